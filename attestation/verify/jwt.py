"""Signed tokens: whether the key signed this one, and whether it holds now, for us.

Every decision a token would like to make is made elsewhere: the key comes from a key set obtained
out of band (`signing_key`), and the key and the issuer's rule decide the algorithm. Functions, in
order of use:

 1. `check_algorithm`    alg_none, alg_not_accepted: unsigned, or not among the issuer's algorithms
 2. `verify_signature`   alg_not_accepted, signature_invalid
 3. `check_times`        token_expired, token_not_yet_valid, expiry_missing
 4. `check_issuer`       issuer_mismatch
 5. `check_audience`     audience_mismatch
 6. `stated_audience`    audience_mismatch
 7. `check_nonce`        nonce_mismatch

The library's own claim checks are not used: they read the clock.
"""

from __future__ import annotations

import base64
import hmac
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from attestation.examined import FOREVER
from attestation.formats.jose import text_claim, time_claim
from wire.errors import refused
from wire.excerpt import cut
from wire.ids import b64u
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.formats.jose import Token

    from .signing_key import SigningKey

_refused: Final = partial(refused, about="token")


def check_algorithm(token: Token, accepted: Sequence[str]) -> str:
    """The token is signed, with an algorithm the issuer uses (function 1)."""
    if token.unsigned:
        raise _refused("alg_none", f"found the algorithm none, expected {_or(accepted)}")
    if token.alg not in accepted:
        raise _refused(
            "alg_not_accepted", f'found algorithm "{cut(token.alg)}", expected {_or(accepted)}'
        )
    return token.alg


def verify_signature(token: Token, key: SigningKey, accepted: Sequence[str]) -> str:
    """The key signed exactly these bytes (function 2)."""
    algorithms = [name for name in key.algorithms if name in accepted]
    if token.alg not in algorithms:
        raise _refused(
            "alg_not_accepted",
            f'found algorithm "{cut(token.alg)}", expected {_or(algorithms)}, as the key says',
        )
    try:
        PyJWS(algorithms=algorithms).decode_complete(token.compact, key.key, [token.alg])
    except (PyJWTError, ValueError, UnsupportedAlgorithm):
        raise _refused("signature_invalid", "the signature does not verify") from None
    return f"{token.alg} by key {key.fingerprint[:16]}"


def check_times(token: Token, now: int, *, expires: bool, skew: int = CLOCK_SKEW_S) -> int:
    """`nbf`, `iat` and `exp` hold now (function 3).

    Args:
        token: the token.
        now: Unix seconds.
        expires: whether a token without `exp` is refused.
        skew: by how many seconds its issuer's clock may be ahead.

    Returns:
        Unix seconds at which it ends.
    """
    for name in ("nbf", "iat"):
        start = time_claim(token.claims, name)
        if start is not None and start > now + skew:
            raise _refused("token_not_yet_valid", f"{name}: found {start}, expected ≤ {now}")
    end = time_claim(token.claims, "exp")
    if end is None:
        if expires:
            raise _refused("expiry_missing", "found no exp, expected one")
        return FOREVER
    if now >= end:
        raise _refused("token_expired", f"exp: found {end}, expected > {now}")
    return end


def check_issuer(token: Token, issuer: str) -> str:
    """`iss` is exactly the issuer's name (function 4)."""
    if text_claim(token.claims, "iss") != issuer:
        raise _refused("issuer_mismatch", f'iss: expected exactly "{issuer}"')
    return issuer


def check_audience(claims: Mapping[str, Any], audience: str | None) -> str:
    """`aud` names exactly us, or nobody where nobody is expected (function 5)."""
    found = claims.get("aud")
    names = [found] if isinstance(found, str) else found
    if names is None and audience is None:
        return "for no particular audience"
    if not isinstance(names, list) or audience is None or audience not in names:
        raise _refused(
            "audience_mismatch",
            "aud: expected none" if audience is None else f'aud: expected "{cut(audience)}"',
        )
    return audience


def stated_audience(claims: Mapping[str, Any]) -> str:
    """Whoever `aud` names, if it names anybody as a token does (function 6)."""
    found = claims.get("aud")
    names = [found] if isinstance(found, str) else found
    if names is None:
        return "for no particular audience"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused("audience_mismatch", "aud: expected a text or texts")
    return f"for {len(names)} audiences, as supplied"


def check_nonce(found: object, nonce: bytes) -> str:
    """An `eat_nonce` equals the nonce asked for, in one of the spellings in use (function 7).

    In JSON it is a text: hex, base64, or the nonce itself where that is a text.
    """
    spellings = (nonce.hex().encode(), b64u(nonce).encode(), *_padded(nonce), nonce)
    texts = found if isinstance(found, list) else [found]
    equal = [
        isinstance(text, str) and any(hmac.compare_digest(text.encode(), one) for one in spellings)
        for text in texts[:2]
    ]
    if not nonce or equal != [True]:
        raise _refused("nonce_mismatch", "eat_nonce: not the nonce asked for, and no other")
    return f"{len(nonce)} bytes, as asked"


def _padded(nonce: bytes) -> tuple[bytes, bytes]:
    return base64.b64encode(nonce), base64.urlsafe_b64encode(nonce)


def _or(names: Sequence[str]) -> str:
    return " or ".join(names) or "none"
