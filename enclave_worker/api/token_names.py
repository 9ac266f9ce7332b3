"""The bytes a token stands for, which log-probabilities name.

Vocabularies write bytes as characters: byte-level ones as the printable alphabet of GPT-2 (Radford
et al. 2019, `bytes_to_unicode`), others with a mark for the blank and `<0x0A>` for single bytes.
"""

import re
from typing import Protocol

_BLANK = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    def piece(self, token: int) -> tuple[str, str]:
        """A token's entry, and how it is read: text, bytes or pieces."""


def token_bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """The bytes of one token."""
    entry, reading = vocabulary.piece(token)
    if reading == "bytes":
        return bytes(_ALPHABET.get(char, ord("?")) for char in entry)
    if reading == "pieces":
        single = _BYTE.fullmatch(entry)
        return bytes([int(single[1], 16)]) if single else entry.replace(_BLANK, " ").encode()
    return entry.encode()


def _alphabet() -> dict[str, int]:
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in shown]
    return {chr(value): value for value in shown} | {
        chr(256 + number): value for number, value in enumerate(hidden)
    }


_ALPHABET = _alphabet()
