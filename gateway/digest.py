"""One hash of several parts."""

from collections.abc import Iterable
from hashlib import sha256


def digest_of(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of the parts, each after its length in 8 bytes: no two lists collide."""
    state = sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
