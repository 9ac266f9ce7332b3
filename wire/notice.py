"""Signed worker notices: a refusal before any key is agreed, which the gateway cannot forge.

{"rid","th","kid","code","t","sig"}     sig = Ed25519("anchorhold/1 err\\0" ‖ evj1 of the rest)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .canonical import encode
from .errors import MalformedError, ProtocolFailure
from .ids import b64u, unb64u
from .limits import NOTICE_MAX

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LABEL: Final = b"anchorhold/1 err\0"
CODES: Final = frozenset(
    {"kid_unknown", "open_failed", "replay", "expired", "class_exceeded", "busy"}
)
RETRY_CODES: Final = frozenset({"busy", "kid_unknown"})  # nothing was done: try the next candidate
_MEMBERS = frozenset({"rid", "th", "kid", "code", "t", "sig"})


def sign_notice(
    sk: Ed25519PrivateKey, rid: bytes, th: bytes, kid: bytes, code: str, t: int
) -> dict[str, Any]:
    """A notice ready for JSON.

    Args:
        sk: the attested signing key of the worker.
        rid, th: the request refused (16 and 32 bytes).
        kid: the candidate key refusing (32 bytes).
        code: one of `CODES`; every unwrap, commitment or AEAD failure is `open_failed`.
        t: seconds since 1970, for people; nothing is decided by it.
    """
    if code not in CODES:
        raise ValueError(f"notice code: expected one of {sorted(CODES)}, found {code!r}")
    body = {"rid": b64u(rid), "th": b64u(th), "kid": b64u(kid), "code": code, "t": t}
    return body | {"sig": b64u(sk.sign(LABEL + encode(body)))}


def notice_kid(doc: dict[str, Any]) -> bytes:
    """The key id an unverified notice names, to look its signing key up by.

    Raises:
        ProtocolFailure: no well-formed key id.
    """
    try:
        return unb64u(doc.get("kid", ""), 32)
    except MalformedError as cause:
        raise ProtocolFailure(f"worker notice: kid: {cause.message}") from None


def verify_notice(doc: object, pk: bytes, rid: bytes, th: bytes, kids: Collection[bytes]) -> str:
    """The code of a notice about this very request, signed by an attested key.

    1. exactly the six members, of the right types, within the size limit
    2. `rid` and `th` are this request's, `kid` is one of its candidates
    3. the code is a known one
    4. the signature holds

    Args:
        doc: the notice as relayed by the gateway.
        pk: raw Ed25519 key (32 bytes) from the binding that lists the notice's kid.
        rid, th, kids: of the request that was sent.

    Raises:
        ProtocolFailure: any step fails; treat the answer as the gateway's own word.
    """
    try:
        # 1
        if not isinstance(doc, dict) or doc.keys() != _MEMBERS or type(doc["t"]) is not int:
            raise ProtocolFailure("worker notice: expected rid, th, kid, code, t and sig")
        body = {key: value for key, value in doc.items() if key != "sig"}
        signed = encode(body)
        if len(signed) > NOTICE_MAX:
            raise ProtocolFailure(f"worker notice: at most {NOTICE_MAX} bytes")
        signature = unb64u(doc["sig"], 64)
        # 2
        if unb64u(doc["rid"], 16) != rid or unb64u(doc["th"], 32) != th:
            raise ProtocolFailure("worker notice: about another request")
        if unb64u(doc["kid"], 32) not in kids:
            raise ProtocolFailure("worker notice: from a key that was not a candidate")
        # 3
        code = doc["code"]
        if not isinstance(code, str) or code not in CODES:
            raise ProtocolFailure("worker notice: unknown code")
        # 4
        Ed25519PublicKey.from_public_bytes(pk).verify(signature, LABEL + signed)
    except MalformedError as cause:
        raise ProtocolFailure(f"worker notice: {cause.message}") from None
    except InvalidSignature:
        raise ProtocolFailure("worker notice: the signature does not hold") from None
    return code
