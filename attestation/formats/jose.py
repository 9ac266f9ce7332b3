"""A signed token in compact form (RFC 7515, RFC 7519): three parts, parsed and nothing believed.

    token = base64url(header JSON) "." base64url(claims JSON) "." base64url(signature)

The header says how the token wants to be verified. It is only ever compared with what a key
obtained elsewhere decides: `jku`, `jwk`, `x5u` and `x5c` are recorded as present, so that a check
can name them, and give no key. The signature may be empty: unsigned tokens exist in the wild, and
their claims are reported with the refusal.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.ids import unb64u

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_MAX: Final = 131_072  # a result with one machine's whole evidence annotated takes 60 KiB
HEADER_MAX: Final = 16_384  # an x5c chain of four certificates; it is not used, only tolerated
SIGNATURE_MAX: Final = 1_024  # RSA 8192
DEPTH_MAX: Final = 16  # annotated evidence nests event logs
KID_MAX: Final = 256
ALG_MAX: Final = 32
TIME_MAX: Final = 2**53 - 1

# Extensions that change what is signed or how; the base specification forbids ignoring `crit`.
REFUSED_MEMBERS: Final = ("crit", "b64", "zip")
KEY_MEMBERS: Final = ("jku", "jwk", "x5u", "x5c")

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_ALG = re.compile(r"[A-Za-z0-9+_-]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed, unverified token.

    Attributes:
        compact: the three parts as received; what is signed, and what a digest names.
        header: protected header members.
        claims: the claims.
        alg: the algorithm the token claims; compared, never obeyed.
        kid: the key it names, or None.
        signature: signature bytes, perhaps none.
    """

    compact: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    alg: str
    kid: str | None
    signature: bytes

    @property
    def unsigned(self) -> bool:
        """Whether the token says itself that nobody signed it, in any spelling."""
        return self.alg.lower() == "none"

    @property
    def carries_key(self) -> tuple[str, ...]:
        """Header members by which the token would choose its own key."""
        return tuple(name for name in KEY_MEMBERS if name in self.header)


def parse_token(raw: bytes) -> Token:
    """The token in `raw`, one final line end tolerated.

    Raises:
        MalformedError: not three parts of canonical base64url, a header or claims that are no
            strict JSON object, a header member that changes the rules, or anything too long.
    """
    if len(raw) > TOKEN_MAX:
        raise MalformedError(f"token: found {len(raw)} bytes, expected ≤ {TOKEN_MAX}")
    body = raw.removesuffix(b"\n").removesuffix(b"\r")
    if _COMPACT.fullmatch(body) is None:
        raise MalformedError("token: expected three parts of base64url with two dots")
    compact = body.decode("ascii")
    first, second, third = compact.split(".")
    if len(first) > HEADER_MAX:
        raise MalformedError(f"token.header: found {len(first)} bytes, expected ≤ {HEADER_MAX}")
    if len(third) > SIGNATURE_MAX * 4 // 3 + 4:
        raise MalformedError(f"token.signature: expected ≤ {SIGNATURE_MAX} bytes")
    header = _object(unb64u(first), "header")
    refused = [name for name in REFUSED_MEMBERS if name in header]
    if refused:
        raise MalformedError(f'token.header: found "{refused[0]}", expected no such extension')
    return Token(
        compact=compact,
        header=MappingProxyType(header),
        claims=MappingProxyType(_object(unb64u(second), "claims")),
        alg=_alg(header),
        kid=_kid(header),
        signature=unb64u(third),
    )


def time_claim(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate claim in whole Unix seconds, rounded down; None when absent.

    Raises:
        MalformedError: present, and no number of a plausible size.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIME_MAX:
        raise MalformedError(f"token.{name}: expected Unix seconds")
    return int(value)


def text_claim(claims: Mapping[str, Any], name: str) -> str | None:
    """A string claim; None when absent.

    Raises:
        MalformedError: present, and no string.
    """
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedError(f"token.{name}: expected a string")
    return value


def _object(data: bytes, what: str) -> dict[str, Any]:
    obj = parse_strict(data, max_depth=DEPTH_MAX, max_bytes=TOKEN_MAX)
    if not isinstance(obj, dict):
        raise MalformedError(f"token.{what}: expected a JSON object")
    return obj


def _alg(header: dict[str, Any]) -> str:
    alg = header.get("alg")
    if not isinstance(alg, str) or len(alg) > ALG_MAX or _ALG.fullmatch(alg) is None:
        raise MalformedError("token.header.alg: expected the name of an algorithm")
    return alg


def _kid(header: dict[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is None and "kid" not in header:
        return None
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_MAX or not kid.isprintable():
        raise MalformedError(f"token.header.kid: expected 1 to {KID_MAX} printable characters")
    return kid
