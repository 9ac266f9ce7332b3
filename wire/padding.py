"""Padding of sizes: Padmé for bytes and frame counts, classes for output lengths.

Padmé keeps the top bits of a length and rounds the rest up: at most 12 % larger, and O(log log n)
distinct sizes (Nikitin et al., PETS 2019, §4).
"""

from __future__ import annotations

from .errors import ClassExceededError
from .limits import OUT_CLASSES, REQUEST_MIN


def padme(n: int) -> int:
    """The smallest Padmé size ≥ `n`; idempotent, so a size can be checked by itself."""
    if n < 0:
        raise ValueError(f"padme: expected a length, found {n}")
    if n < 2:
        return n
    exponent = n.bit_length() - 1
    kept = exponent.bit_length()
    mask = (1 << (exponent - kept)) - 1
    return (n + mask) & ~mask


def request_size(n: int) -> int:
    """Plaintext bytes of a request whose records take `n` bytes."""
    return padme(max(REQUEST_MIN, n))


def out_class(max_tokens: int) -> int:
    """The smallest output class that holds `max_tokens`.

    Raises:
        ClassExceededError: larger than every class.
    """
    for size in OUT_CLASSES:
        if max_tokens <= size:
            return size
    raise ClassExceededError(f"max_tokens: at most {OUT_CLASSES[-1]}, found {max_tokens}")
