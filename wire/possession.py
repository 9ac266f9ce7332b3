"""Proof on one link that a worker holds every key its binding lists (spec §9.1).

    info     = "anchorhold/1 possession\\0" ‖ kid ‖ nonce ‖ bh
    sealed_i = HPKE-Seal-base(pk_i, info_i, aad = "", pt = secret_i)
    answer   = SHA-256("anchorhold/1 possessed\\0" ‖ nonce ‖ bh ‖ secret_1 ‖ … ‖ secret_n)

`nonce` is the link's challenge and `bh` names the binding: what was sealed for one link or one
binding opens on no other, so a worker cannot have another's holder answer for it. No wrap of a
request opens under this label, nor this under a wrap's: a gateway that asks learns nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .errors import OpenError
from .suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .suites import PrivateKey
    from .wraps import Candidate

SECRET_LEN: Final = 32
ANSWER_LEN: Final = 32


@dataclass(frozen=True, slots=True)
class Possession:
    """One question, by the gateway that asks it.

    Attributes:
        sealed: a secret for each key, in the binding's order.
    """

    sealed: tuple[bytes, ...]
    _answer: bytes = field(repr=False)

    def proves(self, answer: bytes) -> bool:
        """Whether whoever gave this answer opened all of it."""
        return hmac.compare_digest(answer, self._answer)


def ask_possession(
    keys: Sequence[Candidate], nonce: bytes, bh: bytes, rng: Callable[[int], bytes]
) -> Possession:
    """A question that only the holder of all of `keys` can answer.

    Args:
        keys: what the binding lists, in its order.
        nonce: the link's challenge, 32 bytes.
        bh: the binding's hash, 32 bytes.
        rng: random bytes; called once a key for 32.

    Raises:
        MalformedError: a key that nothing can be sealed to.
    """
    secrets = [rng(SECRET_LEN) for _ in keys]
    sealed = tuple(
        SUITES[key.suite].seal(key.pk, possession_info(key.kid, nonce, bh), secret)
        for key, secret in zip(keys, secrets, strict=True)
    )
    return Possession(sealed, _answer(secrets, nonce, bh))


def prove_possession(
    keys: Sequence[tuple[bytes, PrivateKey]], sealed: Sequence[bytes], nonce: bytes, bh: bytes
) -> bytes:
    """The answer, 32 bytes.

    Args:
        keys: kid and key, in the binding's order.
        sealed, nonce, bh: as `ask_possession` has them.

    Raises:
        OpenError: it is no question for these keys, on this link, about this binding.
    """
    if len(sealed) != len(keys):
        raise OpenError(f"possession: {len(keys)} sealed secrets expected, found {len(sealed)}")
    secrets = [
        SUITES[key.suite].open(key, possession_info(kid, nonce, bh), ct)
        for (kid, key), ct in zip(keys, sealed, strict=True)
    ]
    if any(len(secret) != SECRET_LEN for secret in secrets):
        raise OpenError(f"possession: secrets of {SECRET_LEN} bytes expected")
    return _answer(secrets, nonce, bh)


def possession_info(kid: bytes, nonce: bytes, bh: bytes) -> bytes:
    """HPKE `info` of a sealed secret: ties it to one key, one link and one binding."""
    return b"anchorhold/1 possession\0" + kid + nonce + bh


def _answer(secrets: Sequence[bytes], nonce: bytes, bh: bytes) -> bytes:
    label = b"anchorhold/1 possessed\0"
    return hashlib.sha256(b"".join((label, nonce, bh, *secrets))).digest()
