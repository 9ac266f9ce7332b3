"""What an answer said: text and tool calls of each choice, from its deltas or from a whole body.

These are the segments the receipt commits to, the same whatever shape the body had.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from evidence.commit import Role, Said, response_segments
from wire.canonical import parse_strict
from wire.errors import MalformedError, ProtocolFailure, RecordError
from wire.limits import BODY_DEPTH_MAX

from .events import CallDelta, TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .calls import Kind

    Segments = list[tuple[int, bytes]]

# A choice's line of log-probabilities: 21 tokens of a few bytes each.
LINE_MAX: Final = 65_536
# A body repeats schemas of the request inside objects of its own.
DEPTH_MAX: Final = BODY_DEPTH_MAX + 8
LOGPROB_PARTS: Final = 3
# What reading a document of another form ends in.
_WRONG: Final = (MalformedError, LookupError, TypeError, ValueError, ArithmeticError, struct.error)


@dataclass(slots=True)
class ChoiceTold:
    """One choice of a stream, so far."""

    texts: list[str] = field(default_factory=list, repr=False)
    calls: list[tuple[str, list[str]]] = field(default_factory=list, repr=False)
    finish: str = ""
    logprobs: list[float] = field(default_factory=list, repr=False)
    _line: str = field(default="", repr=False)

    def said(self) -> Said:
        """What the receipt commits to."""
        calls = tuple((name, "".join(parts)) for name, parts in self.calls)
        return Said("".join(self.texts), calls)

    def called(self, tail: Mapping[str, Any], text: str) -> CallDelta:
        """Take a piece of a tool call.

        Raises:
            RecordError: not a piece of the last call, nor the beginning of the next.
        """
        number, name = tail["t"], tail.get("fn")
        call_id = tail.get("id", "")
        if name is not None:
            if number != len(self.calls) or not (
                isinstance(name, str) and isinstance(call_id, str)
            ):
                raise RecordError("response: the next tool call, with id and name, expected")
            self.calls.append((name, []))
        if type(number) is not int or number < 0 or number != len(self.calls) - 1:
            raise RecordError("response: a piece of the last tool call expected")
        self.calls[number][1].append(text)
        return CallDelta(number, call_id if name is not None else "", name, text)

    def scored(self, text: str) -> tuple[TokenLogprob, ...]:
        """Take a piece of the lines of log-probabilities; returns the lines it completes.

        Raises:
            RecordError: a line that is none.
        """
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > LINE_MAX:
            raise RecordError(f"response: log-probabilities of at most {LINE_MAX} expected")
        entries = tuple(_entry(line) for line in lines)
        self.logprobs += [entry.logprob for entry in entries]
        return entries


def whole(kind: Kind, body: bytes, limit: int) -> tuple[Segments, list[str]]:
    """Segments and finish reasons (stop or length) of a whole answer, in choice order.

    Raises:
        ProtocolFailure: not an answer of this endpoint.
    """
    try:
        document = parse_strict(body, max_depth=DEPTH_MAX, max_bytes=limit)
        if kind == "embeddings":
            return _vectors(document), ["stop"]
        choices, finishes = _READERS[kind](document)
    except _WRONG as error:
        raise ProtocolFailure("response: a whole answer of this endpoint expected") from error
    texts = [text for choice in choices for text in (choice.text, *sum(choice.calls, ()))]
    if not all(isinstance(item, str) for item in (*texts, *finishes)):
        raise ProtocolFailure("response: text in every choice expected")
    return response_segments(choices), finishes


def logprobs_of(kind: Kind, body: bytes, limit: int) -> tuple[tuple[float, ...], ...]:
    """Log-probabilities of the chosen tokens of each choice of a whole answer; none if not told.

    Raises:
        ProtocolFailure: not an answer of this endpoint.
    """
    if kind in ("embeddings", "messages") or b'"logprobs"' not in body:
        return ()
    try:
        document = parse_strict(body, max_depth=DEPTH_MAX, max_bytes=limit)
        return tuple(tuple(map(float, values)) for values in _scores(kind, document) if values)
    except (*_WRONG, AttributeError) as error:
        raise ProtocolFailure("response: log-probabilities as this endpoint has them") from error


def _scores(kind: Kind, document: Any) -> list[list[Any]]:
    if kind == "responses":
        parts = [p for item in document["output"] for p in item.get("content") or ()]
        return [[entry["logprob"] for p in parts for entry in p.get("logprobs") or ()]]
    choices = sorted(document["choices"], key=lambda choice: int(choice["index"]))
    told = [choice.get("logprobs") or {} for choice in choices]
    if kind == "completion":
        return [item.get("token_logprobs") or [] for item in told]
    return [[entry["logprob"] for entry in item.get("content") or ()] for item in told]


def _chat(document: Any) -> tuple[list[Said], list[str]]:
    choices = sorted(_listed(document["choices"]), key=lambda choice: int(choice["index"]))
    said = []
    for choice in choices:
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        text = message["content"]
        text = "" if text is None and calls else text
        said.append(Said(text, tuple((call["name"], call["arguments"]) for call in calls)))
    ends = [choice["finish_reason"] for choice in choices]
    return said, ["stop" if end == "tool_calls" else end for end in ends]


def _completion(document: Any) -> tuple[list[Said], list[str]]:
    choices = sorted(_listed(document["choices"]), key=lambda choice: int(choice["index"]))
    return [Said(c["text"]) for c in choices], [c["finish_reason"] for c in choices]


def _responses(document: Any) -> tuple[list[Said], list[str]]:
    text, calls = "", []
    for item in _listed(document["output"]):
        if item["type"] == "function_call":
            calls.append((item["name"], item["arguments"]))
        else:
            text += "".join(part["text"] for part in item["content"])
    finish = {"completed": "stop", "incomplete": "length"}[document["status"]]
    return [Said(text, tuple(calls))], [finish]


def _messages(document: Any) -> tuple[list[Said], list[str]]:
    text, calls = "", []
    for block in _listed(document["content"]):
        if block["type"] == "tool_use":
            calls.append((block["name"], json.dumps(block["input"], ensure_ascii=False)))
        else:
            text += block["text"]
    finish = "length" if document["stop_reason"] == "max_tokens" else "stop"
    return [Said(text, tuple(calls))], [finish]


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("an array expected")
    return value


def _vectors(document: Any) -> Segments:
    rows = sorted(_listed(document["data"]), key=lambda row: int(row["index"]))
    found: Segments = []
    for row in rows:
        vector = row["embedding"]
        try:
            data = (
                base64.b64decode(vector, validate=True)
                if isinstance(vector, str)
                else struct.pack(f"<{len(vector)}f", *vector)
            )
        except binascii.Error as error:
            raise ProtocolFailure("response: an embedding in base64 expected") from error
        found.append((Role.OUTPUT, data))
    return found


_READERS: Final[Mapping[Kind, Callable[[Any], tuple[list[Said], list[str]]]]] = {
    "chat": _chat,
    "completion": _completion,
    "responses": _responses,
    "messages": _messages,
}


def _entry(line: str) -> TokenLogprob:
    try:
        parts = parse_strict(line.encode(), max_bytes=4 * LINE_MAX)
        if len(parts) != LOGPROB_PARTS:
            raise RecordError("response: a line of log-probabilities expected")
        top = tuple((_token(token), float(value)) for token, value in parts[2])
        return TokenLogprob(_token(parts[0]), float(parts[1]), top)
    except (MalformedError, TypeError, ValueError) as error:
        raise RecordError("response: a line of log-probabilities expected") from error


def _token(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
