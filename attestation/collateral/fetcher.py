"""The one interface through which collateral comes in: a request out, bytes and headers back.

Requests are made by `intel`, `amd`, `nvidia` and `jwks` from checked keys and the operator's
`Services`; nothing else makes them. `http_fetcher` performs them over HTTPS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from wire.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a vendor's service.

    Attributes:
        url: absolute; its origin is one the operator configured.
        limit: largest body of the answer in bytes; a longer one is refused while it is read.
        what: the kind of collateral, for error sentences.
        method: GET, or POST with `body`.
        content_type: type of `body`.
    """

    url: str
    limit: int
    what: str
    method: Literal["GET", "POST"] = "GET"
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole successful answer; nothing about it is trusted.

    Attributes:
        body: the bytes.
        headers: by lower-case name.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class DeclinedError(UnavailableError):
    """The service answered, but not with what was asked for: to another question it may."""


class Fetcher(Protocol):
    """Whatever can perform a request."""

    def fetch(self, request: Request) -> Response:
        """Perform one request.

        Raises:
            DeclinedError: an answer that is none: a status that says so, or outside the limits.
            UnavailableError: no answer, or one that asks for patience.
        """
