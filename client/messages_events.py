"""Events of `/v1/messages`, rebuilt from sealed token deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .events import Delta
from .openai_shape import error_document
from .sse import typed_event

if TYPE_CHECKING:
    from wire.errors import AnchorholdError

    from .calls import Call
    from .events import Answered, CallDelta
    from .receipts import Receipt


class MessagesEvents:
    """Renders one answer: `message_start`, content blocks, `message_delta`, `message_stop`."""

    def __init__(self, call: Call, answered: Answered) -> None:
        self._call, self._answered = call, answered
        self._block = -1  # index of the newest content block
        self._open: str | None = None  # its type, while it is open
        self._called = False
        self._last: Delta | None = None

    def begin(self) -> bytes:
        """The message without content; its count of input tokens is the worker's early word."""
        message: dict[str, Any] = {
            "id": self._answered.id,
            "type": "message",
            "role": "assistant",
            "model": self._answered.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self._answered.prompt_tokens, "output_tokens": 0},
        }
        return typed_event({"type": "message_start", "message": message})

    def delta(self, item: object) -> bytes:
        """Events of one delta."""
        if not isinstance(item, Delta):
            return b""
        out = b""
        if item.text:
            if self._open != "text":
                out += self._stop() + self._start("text", {"type": "text", "text": ""})
            out += self._delta({"type": "text_delta", "text": item.text})
        if item.call is not None:
            out += self._call_piece(item.call)
        if item.finish is not None:
            self._last = item
        return out

    def end(self, receipt: Receipt | None) -> bytes:
        """Why it ended and the signed usage, then `message_stop`."""
        if receipt is None or self._last is None:
            return b""
        out = b""
        if self._block < 0:
            out += self._start("text", {"type": "text", "text": ""})
        usage = receipt.usage
        reason, sequence = self._reason(self._last)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        counts = {
            "input_tokens": usage["prompt_tokens"] - receipt.cached_tokens,
            "cache_read_input_tokens": receipt.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": usage["completion_tokens"],
        }
        out += self._stop()
        out += typed_event({"type": "message_delta", "delta": delta, "usage": counts})
        return out + typed_event({"type": "message_stop"})

    def failure(self, error: AnchorholdError) -> bytes:
        """An error event; no `message_stop` follows."""
        return typed_event(error_document(error, self._call.path))

    def _reason(self, last: Delta) -> tuple[str, str | None]:
        if last.finish == "length":
            return "max_tokens", None
        stops = self._call.members.get("stop_sequences")
        if last.stop is not None and isinstance(stops, list) and last.stop < len(stops):
            return "stop_sequence", stops[last.stop]
        return ("tool_use" if self._called else "end_turn"), None

    def _call_piece(self, call: CallDelta) -> bytes:
        out = b""
        if call.name is not None:
            self._called = True
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            out += self._stop() + self._start("tool_use", block)
        if call.arguments:
            out += self._delta({"type": "input_json_delta", "partial_json": call.arguments})
        return out

    def _start(self, kind: str, block: dict[str, Any]) -> bytes:
        self._block += 1
        self._open = kind
        return typed_event(
            {"type": "content_block_start", "index": self._block, "content_block": block}
        )

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return typed_event({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return typed_event({"type": "content_block_stop", "index": self._block})
