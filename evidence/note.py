"""C2SP signed notes with Ed25519 keys: the text format checkpoints are signed in.

A note is UTF-8 text ending in a newline, an empty line, then one line per signature:
`— <key name> <base64(key id[4] ‖ signature)>`. The key id is SHA-256(name ‖ 0x0A ‖ type ‖ key)[:4].
Unknown keys are ignored and reported; one bad signature by a *known* key refuses the whole note.
Refusals are `MalformedError` with code `note_malformed`, `note_unsigned` or `note_bad_signature`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wire.errors import MalformedError
from wire.verifier_key import KEY_ID_LEN, VerifierKey, malformed, unbase64, valid_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOTE_MAX = 64 * 1024  # a checkpoint with every allowed signature is a tenth of this
SIGNATURES_MAX = 100  # the Go implementation's limit: a note must not buy unbounded verification
_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line; says nothing about validity by itself."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note at least one known key signed."""

    text: str
    verified: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...]


class NoteSigner:
    """An Ed25519 key that signs notes under a name."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        if not valid_name(name):
            msg = f"key name without spaces, plus signs and control characters expected: {name!r}"
            raise ValueError(msg)
        self._private = private
        self.key = VerifierKey(name, private.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        """The verifier key string a policy pins."""
        return self.key.vkey

    def sign(self, text: str) -> str:
        """Sign `text` (ending in a newline) and return the note."""
        if not text.endswith("\n") or _has_control(text):
            raise malformed("text of printable lines ending in a newline expected")
        signed = self.key.key_id + self._private.sign(text.encode())
        return f"{text}\n{_DASH}{self.key.name} {base64.b64encode(signed).decode()}\n"


def make_vkey(name: str, public: Ed25519PublicKey) -> str:
    """The verifier key string of a public key under a name."""
    if not valid_name(name):
        msg = f"key name without spaces, plus signs and control characters expected: {name!r}"
        raise ValueError(msg)
    return VerifierKey(name, public.public_bytes_raw()).vkey


def split_note(note: str | bytes) -> tuple[str, tuple[NoteSignature, ...]]:
    """Parse a note into its text and signature lines. Checks form only: nothing is trusted yet."""
    raw = note.encode("utf-8", "surrogatepass") if isinstance(note, str) else note
    if len(raw) > NOTE_MAX:
        raise malformed(f"note of at most {NOTE_MAX} bytes expected, found {len(raw)}")
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed("valid UTF-8 expected") from error
    if _has_control(decoded):
        raise malformed("no control character other than newline expected")
    at = decoded.rfind("\n\n")
    if at < 0 or not decoded.endswith("\n"):
        raise malformed("text, empty line, and signature lines expected")
    text, block = decoded[: at + 1], decoded[at + 2 :]
    lines = block.split("\n")[:-1]
    if not 0 < len(lines) <= SIGNATURES_MAX:
        raise malformed(f"1 to {SIGNATURES_MAX} signatures expected, found {len(lines)}")
    return text, tuple(_signature(line) for line in lines)


def open_note(note: str | bytes, keys: Sequence[VerifierKey]) -> OpenedNote:
    """Verify a note against known keys.

    Steps: 1 form. 2 the known keys are unambiguous. 3 every signature under a known key verifies.
    4 there is at least one.
    """
    # 1
    text, signatures = split_note(note)
    # 2: two keys under one name and id would let the order of a list decide who signed
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) is not key:
            raise malformed("ambiguous key: one name and id listed twice")
    # 3
    verified: dict[tuple[str, bytes], NoteSignature] = {}
    unverified: list[NoteSignature] = []
    for item in signatures:
        who = (item.name, item.key_id)
        if who not in known:
            unverified.append(item)
        elif who not in verified:
            try:
                public = Ed25519PublicKey.from_public_bytes(known[who].public)
                public.verify(item.signature, text.encode())
            except (InvalidSignature, ValueError) as error:
                message = f"signature by known key {item.name} does not verify"
                raise MalformedError(message, code="note_bad_signature") from error
            verified[who] = item
    # 4
    if not verified:
        message = f"signature by one of {len(known)} known keys expected, found none"
        raise MalformedError(message, code="note_unsigned")
    return OpenedNote(text, tuple(verified.values()), tuple(unverified))


def _signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise malformed("signature line starting with an em dash expected")
    name, _, encoded = line[len(_DASH) :].partition(" ")
    if not valid_name(name):
        raise malformed("key name without spaces and plus signs expected")
    raw = unbase64(encoded)
    if len(raw) <= KEY_ID_LEN:
        raise malformed("signature longer than its key id expected")
    return NoteSignature(name, raw[:KEY_ID_LEN], raw[KEY_ID_LEN:])


def _has_control(text: str) -> bool:
    return any(char < " " and char != "\n" for char in text)
