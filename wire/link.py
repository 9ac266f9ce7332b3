"""The gateway⇄worker link: length-prefixed messages over one stream socket.

    message = u32 len ‖ u8 type ‖ payload            len counts type and payload

JSON payloads are `evj1` on the way out and strict JSON on the way in; binary ones begin with the
16-byte request id. Either side closes the link on the first malformed message. Spec §9.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from .canonical import encode as encode_json
from .canonical import parse_strict
from .errors import MalformedError
from .limits import (
    JSON_MAX,
    LINK_ITEMS_MAX,
    LINK_MESSAGE_MAX,
    LINK_RECEIPT_MAX,
    LINK_SMALL_MAX,
    RID_LEN,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_PULL_LABEL: Final = b"anchorhold/1 pull\0"
_DONE_LABEL: Final = b"anchorhold/1 done\0"


class MessageType(IntEnum):
    """G→W is gateway to worker, W→G the other way."""

    CHALLENGE = 1  # G→W {"nonce","gw","beacon"} on connect
    HELLO = 2  # W→G {"wid","binding","evidence","posture","sig","activation"}
    ACTIVATE = 3  # G→W {"id","credential"} for evidence kinds that need it
    ACTIVATED = 4  # W→G {"id","answer"}
    ADMITTED = 5  # G→W {"lease_s","bh","leaf"}
    REFUSED = 6  # G→W {"reasons"}
    KEYS = 7  # W→G HELLO for the next epoch
    PULL = 8  # W→G {"n","seq","sig"} credits, added up
    HEARTBEAT = 9  # W→G {}
    LEASE = 10  # G→W {"lease_s","beacon"}
    JOB = 11  # G→W rid ‖ envelope
    CANCEL = 12  # G→W rid
    BYTES = 13  # W→G rid ‖ response bytes
    NOTICE = 14  # W→G rid ‖ JSON signed notice, before any byte
    RECEIPT = 15  # W→G rid ‖ JSON {"event"}
    LOGGED = 16  # G→W rid ‖ JSON {"index","leaf","blind","event","checkpoint","proof"}
    DONE = 17  # W→G rid ‖ JSON {"usage","finish","sig"}
    CHALLENGE_JOB = 18  # G→W {"id","wid","nonce","bh","credential"?}
    CHALLENGE_ANSWER = 19  # W→G {"id","binding"?,"evidence"?,"posture"?,"answer"?}
    GOODBYE = 20  # W→G {} draining
    PROVE = 21  # G→W {"id","bh","sealed"} open these with the binding's keys
    PROVED = 22  # W→G {"id","answer"}


CHALLENGE = MessageType.CHALLENGE
HELLO = MessageType.HELLO
ACTIVATE = MessageType.ACTIVATE
ACTIVATED = MessageType.ACTIVATED
ADMITTED = MessageType.ADMITTED
REFUSED = MessageType.REFUSED
KEYS = MessageType.KEYS
PULL = MessageType.PULL
HEARTBEAT = MessageType.HEARTBEAT
LEASE = MessageType.LEASE
JOB = MessageType.JOB
CANCEL = MessageType.CANCEL
BYTES = MessageType.BYTES
NOTICE = MessageType.NOTICE
RECEIPT = MessageType.RECEIPT
LOGGED = MessageType.LOGGED
DONE = MessageType.DONE
CHALLENGE_JOB = MessageType.CHALLENGE_JOB
CHALLENGE_ANSWER = MessageType.CHALLENGE_ANSWER
GOODBYE = MessageType.GOODBYE
PROVE = MessageType.PROVE
PROVED = MessageType.PROVED

WITH_RID: Final = frozenset({JOB, CANCEL, BYTES, NOTICE, RECEIPT, LOGGED, DONE})
_RAW: Final = frozenset({JOB, CANCEL, BYTES})  # after the rid: bytes; every other type holds JSON
#: Those that are large, and made of a few long texts: evidence, and an event.
FEW_ITEMS: Final = frozenset({HELLO, KEYS, CHALLENGE_ANSWER, RECEIPT})
#: What a gateway takes from a peer that is not admitted, and the largest payload of each.
FROM_STRANGERS: Final = {HELLO: JSON_MAX, ACTIVATED: LINK_SMALL_MAX, PROVED: LINK_SMALL_MAX}
#: Likewise from a worker that is; BYTES are bounded by the decoder's own limit.
FROM_WORKERS: Final = {
    **FROM_STRANGERS,
    KEYS: JSON_MAX,
    PULL: LINK_SMALL_MAX,
    HEARTBEAT: LINK_SMALL_MAX,
    BYTES: LINK_MESSAGE_MAX,
    NOTICE: RID_LEN + LINK_SMALL_MAX,
    RECEIPT: RID_LEN + LINK_RECEIPT_MAX,
    DONE: RID_LEN + LINK_SMALL_MAX,
    CHALLENGE_ANSWER: JSON_MAX,
    GOODBYE: LINK_SMALL_MAX,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `body` is the payload after the type byte."""

    type: int
    body: bytes

    @property
    def rid(self) -> bytes:
        """The 16-byte request id of a message that carries one."""
        if self.type not in WITH_RID:
            raise MalformedError(f"link: message type {self.type} carries no request id")
        return self.body[:RID_LEN]

    @property
    def data(self) -> bytes:
        """What follows the request id."""
        if self.type not in WITH_RID:
            raise MalformedError(f"link: message type {self.type} carries no request id")
        return self.body[RID_LEN:]

    def json(self) -> dict[str, Any]:
        """The JSON object of the payload (after the request id where there is one).

        Raises:
            MalformedError: no JSON in this type, too many items, or not one strict JSON object.
        """
        if self.type in _RAW:
            raise MalformedError(f"link: message type {self.type} carries bytes, not JSON")
        raw = self.data if self.type in WITH_RID else self.body
        most = LINK_ITEMS_MAX if self.type in FEW_ITEMS else None
        doc = parse_strict(raw, max_bytes=JSON_MAX, max_items=most)
        if not isinstance(doc, dict):
            raise MalformedError("link: expected a JSON object")
        return doc


def json_message(kind: MessageType, doc: dict[str, Any], *, rid: bytes = b"") -> Message:
    """A message whose payload is `doc`, after `rid` for the types that carry one."""
    _check_rid(kind, rid)
    return Message(kind, rid + encode_json(doc))


def raw_message(kind: MessageType, rid: bytes, data: bytes = b"") -> Message:
    """A JOB, CANCEL or BYTES message."""
    _check_rid(kind, rid)
    return Message(kind, rid + data)


def _check_rid(kind: MessageType, rid: bytes) -> None:
    expected = RID_LEN if kind in WITH_RID else 0
    if len(rid) != expected:
        raise ValueError(f"link: {kind.name} needs a request id of {expected} bytes")


def encode(message: Message) -> bytes:
    """The message's bytes on the link."""
    length = 1 + len(message.body)
    if length > LINK_MESSAGE_MAX:
        raise ValueError(f"link: at most {LINK_MESSAGE_MAX} bytes a message, found {length}")
    return length.to_bytes(4, "big") + bytes([message.type]) + message.body


class Decoder:
    """Cuts a byte stream into messages; holds at most one incomplete message.

    Args:
        limit: largest accepted `len`; the peer's claim is checked before any byte is kept for it.
        expected: the types that may come, and the largest payload of each; None for all.
    """

    __slots__ = ("_buffer", "_limit", "expected")

    def __init__(
        self,
        limit: int = LINK_MESSAGE_MAX,
        expected: Mapping[MessageType, int] | None = None,
    ) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self.expected = expected

    @property
    def held(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    @property
    def empty(self) -> bool:
        """Whether the stream stands at a message boundary."""
        return not self._buffer

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages completed by `chunk`.

        Raises:
            MalformedError: impossible length, unknown or unexpected type, or a request id cut
                short.
        """
        buffer = self._buffer
        buffer += chunk
        found: list[Message] = []
        at = 0
        while len(buffer) - at >= 5:
            length = int.from_bytes(buffer[at : at + 4], "big")
            kind = buffer[at + 4]
            if not 1 <= length <= self._limit:
                raise MalformedError(f"link: length {length}, expected 1 to {self._limit}")
            _check_type(kind, length)
            self._check_expected(MessageType(kind), length - 1)
            if len(buffer) - at < 4 + length:
                break
            found.append(Message(MessageType(kind), bytes(buffer[at + 5 : at + 4 + length])))
            at += 4 + length
        if at:
            del buffer[:at]
        return found

    def _check_expected(self, kind: MessageType, size: int) -> None:
        if self.expected is None:
            return
        most = self.expected.get(kind)
        if most is None:
            raise MalformedError(f"link: message type {int(kind)} is not expected now")
        if size > most:
            raise MalformedError(
                f"link: message type {int(kind)}: found {size} bytes, expected at most {most}"
            )


def _check_type(kind: int, length: int) -> None:
    if kind not in MessageType.__members__.values():
        raise MalformedError(f"link: unknown message type {kind}")
    if kind in WITH_RID and length < 1 + RID_LEN:
        raise MalformedError(f"link: message type {kind} is too short for a request id")
    if kind == CANCEL and length != 1 + RID_LEN:
        raise MalformedError("link: CANCEL carries a request id and nothing else")
    if kind not in _RAW and length > 1 + RID_LEN + JSON_MAX:
        raise MalformedError(f"link: a JSON message of {length} bytes, at most {JSON_MAX}")


def hello_bytes(nonce: bytes, bh: bytes) -> bytes:
    """What HELLO and KEYS sign with the attested key: proves this link's peer holds it."""
    return _PULL_LABEL + nonce + bh


def pull_bytes(nonce: bytes, seq: int, n: int) -> bytes:
    """What PULL signs: the link's nonce, a number that only grows, and the credits asked for."""
    return _PULL_LABEL + nonce + seq.to_bytes(8, "big") + n.to_bytes(4, "big")


def done_bytes(rid: bytes, usage: dict[str, Any], finish: str) -> bytes:
    """What a worker signs to report a request's rounded usage and end."""
    return _DONE_LABEL + rid + encode_json({"usage": usage, "finish": finish})
