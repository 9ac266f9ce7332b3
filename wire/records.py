"""Records: what a frame's plaintext holds, and the compact token delta.

record = u8 type ‖ u24 n ‖ data[n]; a type 0 byte begins padding, zeros to the frame's end
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from .canonical import encode as encode_json
from .canonical import parse_strict
from .errors import MalformedError, RecordError
from .limits import FRAME_PT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORD_HEAD: Final = 4  # u8 type and u24 length
TAIL_MAX: Final = 4096  # a token delta's JSON tail: a finish reason and an index are tens of bytes
# Members of a tail that say what its text belongs to: choice, tool call, log-probabilities.
PLACES: Final = ("i", "t", "l")


class RecordType(IntEnum):
    """Types on the wire; any other is refused."""

    PAD = 0
    HEAD = 1
    DATA = 2
    TOKENS = 3
    RECEIPT = 4
    ERROR = 5


PAD = RecordType.PAD
HEAD = RecordType.HEAD
DATA = RecordType.DATA
TOKENS = RecordType.TOKENS
RECEIPT = RecordType.RECEIPT
ERROR = RecordType.ERROR

_KNOWN = frozenset(RecordType)


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `data` is content: it is kept out of `repr` so no log or traceback shows it."""

    type: RecordType
    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes the record takes in a frame."""
        return RECORD_HEAD + len(self.data)

    def json(self) -> dict[str, Any]:
        """The JSON object of a HEAD, RECEIPT or ERROR record.

        Raises:
            RecordError: not one strict JSON object.
        """
        try:
            doc = parse_strict(self.data, max_bytes=FRAME_PT_MAX)
        except MalformedError as cause:
            raise RecordError(f"record {self.type.name}: {cause.message}") from None
        if not isinstance(doc, dict):
            raise RecordError(f"record {self.type.name}: expected a JSON object")
        return doc


def json_record(kind: RecordType, doc: dict[str, Any]) -> Record:
    """A record whose data is `doc` as `evj1`."""
    return Record(kind, encode_json(doc))


def encode(records: Iterable[Record], size: int | None = None) -> bytes:
    """One frame's plaintext.

    Args:
        records: in order; may be empty (a frame of padding only).
        size: pad with zeros to this many bytes, or None for no padding.
    """
    parts: list[bytes] = []
    for record in records:
        if record.type == PAD:
            raise ValueError("record: padding is not a record of its own")
        parts += [bytes([record.type]), len(record.data).to_bytes(3, "big"), record.data]
    plain = b"".join(parts)
    if size is None:
        return plain
    if len(plain) > size:
        raise ValueError(f"record: {len(plain)} bytes do not fit a frame of {size}")
    return plain.ljust(size, b"\0")


def decode(pt: bytes) -> list[Record]:
    """The records of one frame's plaintext.

    Raises:
        RecordError: unknown type, a record cut short, or padding that is not zero (a hidden
            channel, and two spellings of one message).
    """
    found: list[Record] = []
    at = 0
    while at < len(pt):
        kind = pt[at]
        if kind == PAD:
            if pt.count(0, at) != len(pt) - at:
                raise RecordError("record: padding is not zero")
            break
        if kind not in _KNOWN:
            raise RecordError(f"record: unknown type {kind}")
        start = at + RECORD_HEAD
        end = start + int.from_bytes(pt[at + 1 : start], "big")
        if start > len(pt) or end > len(pt):
            raise RecordError("record: cut short by the end of its frame")
        found.append(Record(RecordType(kind), pt[start:end]))
        at = end
    return found


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """New text of one choice.

    On the wire: `u16 n ‖ text[n] (UTF-8) ‖ tail`, the tail being empty or an `evj1` object.

    Attributes:
        text: the text added; may be empty.
        tail: "i" choice index (absent: 0), "f" finish reason (stop, length, cancelled, error),
            "s" which stop string ended it; "t" number of the tool call whose arguments the text
            continues, on its first delta with "id" and "fn"; "l" 1 where the text is not the
            answer's but lines of log-probabilities. Unknown members are kept.
    """

    text: str = field(repr=False)
    tail: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The data of a TOKENS record."""
        text = self.text.encode("utf-8")
        if len(text) > 0xFFFF:
            raise ValueError(f"token delta: at most 65535 bytes of text, found {len(text)}")
        return len(text).to_bytes(2, "big") + text + (encode_json(self.tail) if self.tail else b"")

    @classmethod
    def decode(cls, data: bytes) -> TokenDelta:
        """The delta in a TOKENS record's data.

        Raises:
            RecordError: cut short, not UTF-8, or a tail that is not a strict JSON object.
        """
        end = 2 + int.from_bytes(data[:2], "big")
        if len(data) < end:
            raise RecordError("token delta: cut short")
        try:
            text = data[2:end].decode("utf-8")
            tail = parse_strict(data[end:], max_bytes=TAIL_MAX) if len(data) > end else {}
        except UnicodeDecodeError:
            raise RecordError("token delta: text is not UTF-8") from None
        except MalformedError as cause:
            raise RecordError(f"token delta: tail: {cause.message}") from None
        if not isinstance(tail, dict):
            raise RecordError("token delta: the tail is not a JSON object")
        return cls(text, tail)

    def record(self) -> Record:
        """The delta as a TOKENS record."""
        return Record(TOKENS, self.encode())
