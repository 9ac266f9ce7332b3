"""C2SP checkpoints: the signed head of the log (origin, size, root)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING

from wire.errors import MalformedError
from wire.verifier_key import VerifierKey, parse_vkey

from .merkle import HASH_LEN, SIZE_MAX
from .note import open_note, split_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .note import NoteSigner

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_VERIFIED = object()  # only `open_checkpoint` may say that a checkpoint was signed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A claimed log head. Plain data: nobody has vouched for it.

    origin: name of the log; size: number of leaves; root: 32-byte Merkle root.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that get signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A log head one of the pinned keys signed. Made only by `open_checkpoint`."""

    checkpoint: Checkpoint
    note: str
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIED:
            msg = "SignedCheckpoint is made by open_checkpoint only"
            raise TypeError(msg)

    @property
    def size(self) -> int:
        """Number of leaves under this head."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """32-byte Merkle root."""
        return self.checkpoint.root


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse a checkpoint's text (not the note). Extension lines are allowed and ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or not all(lines[:-1]):
        raise _malformed("origin, size and root lines expected")
    if not _SIZE.fullmatch(lines[1]) or int(lines[1]) > SIZE_MAX:
        raise _malformed("decimal tree size below 2^63 without leading zeros expected")
    try:
        root = base64.b64decode(lines[2].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _malformed("base64 root expected") from error
    if len(root) != HASH_LEN or base64.b64encode(root).decode() != lines[2]:
        raise _malformed(f"root of {HASH_LEN} bytes in canonical base64 expected")
    return Checkpoint(lines[0], int(lines[1]), root)


def peek_checkpoint(note: str) -> Checkpoint:
    """Read a note's checkpoint without verifying it: to plan a request, never to trust."""
    text, _ = split_note(note)
    return parse_checkpoint(text)


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """Sign a head and return the note."""
    return signer.sign(checkpoint.text())


def open_checkpoint(note: str, origin: str, vkeys: Sequence[str | VerifierKey]) -> SignedCheckpoint:
    """Verify a signed checkpoint.

    Steps: 1 at least one pinned key signed the note, and none of them badly. 2 the text is a
    checkpoint. 3 it is a checkpoint of *this* log: one key may serve two logs, so the name counts.
    """
    keys = [parse_vkey(key) if isinstance(key, str) else key for key in vkeys]
    # 1
    opened = open_note(note, keys)
    # 2
    checkpoint = parse_checkpoint(opened.text)
    # 3
    if checkpoint.origin != origin:
        message = f"checkpoint of log {origin!r} expected, found {checkpoint.origin[:80]!r}"
        raise MalformedError(message, code="checkpoint_wrong_log")
    return SignedCheckpoint(checkpoint, note, _VERIFIED)


def _malformed(message: str) -> MalformedError:
    return MalformedError(message, code="checkpoint_malformed")
