"""A log's public key as a policy pins it: `name+hash+base64(type ‖ key)`, as C2SP's notes have it.

The hash is the first four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ key): it finds a key, and tells a
mistyped one. Here because a policy states keys and a log's notes are checked with them, in packages
of which one may not know the other.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from .errors import MalformedError
from .excerpt import shown

ALG_ED25519: Final = 1
KEY_ID_LEN: Final = 4
_PUBLIC_LEN: Final = 32


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's public key under its name."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ type ‖ key)[:4]: a hint for finding the key, not an identity."""
        encoded = bytes([ALG_ED25519]) + self.public
        return sha256(self.name.encode() + b"\n" + encoded).digest()[:KEY_ID_LEN]

    @property
    def vkey(self) -> str:
        """`name+hash+base64(type ‖ key)`: the string a policy pins."""
        encoded = base64.b64encode(bytes([ALG_ED25519]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


def parse_vkey(vkey: str) -> VerifierKey:
    """Parse `name+hash+base64(type ‖ key)`; only Ed25519 (type 1) is accepted.

    Raises:
        MalformedError: any other text (code `note_malformed`).
    """
    parts = vkey.split("+", 2)
    if len(parts) != 3 or not valid_name(parts[0]):
        raise malformed(f"found {shown(vkey)}, expected a verifier key of the form name+hash+key")
    encoded = unbase64(parts[2])
    if encoded[:1] != bytes([ALG_ED25519]) or len(encoded) != 1 + _PUBLIC_LEN:
        raise malformed(
            f"found a key of {len(encoded)} bytes, expected an Ed25519 verifier key of 33 bytes"
        )
    key = VerifierKey(parts[0], encoded[1:])
    if parts[1] != key.key_id.hex():
        raise malformed(f"key hash {key.key_id.hex()} expected, found {shown(parts[1], 16)}")
    return key


def valid_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no spaces, plus signs or control characters."""
    return bool(name) and "+" not in name and not any(_space_or_control(c) for c in name)


def unbase64(text: str) -> bytes:
    """Standard base64 in its one canonical spelling: a second spelling would be a second note."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise malformed("base64 expected") from error
    if base64.b64encode(raw).decode() != text:
        raise malformed("canonical base64 expected")
    return raw


def malformed(message: str) -> MalformedError:
    """The refusal of a note or of a key for notes."""
    return MalformedError(message, code="note_malformed")


def _space_or_control(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cc", "Cs")
