"""Who is calling: a Bearer API key checked against the key table. Keys never leave this module."""

from tenancy.identity import Principal
from tenancy.key_table import KeyTable

from .errors import Fault, Refusal
from .watched import Watched

_SCHEME = "bearer "
#: A header longer than any key is refused unread.
_HEADER_MAX = 256


class Authenticator:
    """Turns an Authorization header into a `Principal`, or refuses with 401 or 403."""

    def __init__(self, table: Watched[KeyTable]) -> None:
        """Use the table as it is at each request: a revoked key stops working while we run."""
        self._table = table

    def authenticate(self, header: str | None, scope: str, now: int) -> Principal:
        """Check a credential.

        Args:
            header: the Authorization header's value, or None.
            scope: what the caller wants to do.
            now: Unix seconds.

        Raises:
            Refusal: no credential, a wrong one (one answer for all kinds of wrong), or one that
                does not have the scope.
        """
        if header is None or len(header) > _HEADER_MAX or not header.lower().startswith(_SCHEME):
            raise Refusal(Fault.AUTH, "expected the header Authorization: Bearer <API key>")
        principal = self._table.value.authenticate(header[len(_SCHEME) :].strip(), now)
        if principal is None:
            raise Refusal(Fault.AUTH, "the API key is unknown, expired or revoked")
        if scope not in principal.scopes:
            raise Refusal(Fault.SCOPE, f"the API key does not have the scope {scope}")
        return principal
