"""Events of `/v1/responses`, rebuilt from sealed token deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .chat_events import token_document
from .events import Delta, TokenLogprob
from .openai_shape import error_document
from .sse import typed_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wire.errors import AnchorholdError

    from .calls import Call
    from .events import Answered, CallDelta
    from .receipts import Receipt

# Members of the request that the response repeats, with what holds where they are absent.
REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class ResponsesEvents:
    """Renders one answer: `response.created`, items and their parts, `response.completed`."""

    def __init__(self, call: Call, answered: Answered) -> None:
        self._call, self._answered = call, answered
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the newest item, while it is written
        self._pieces: list[str] = []  # of its text or arguments
        self._scores: list[TokenLogprob] = []
        self._shown: list[dict[str, Any]] = []  # log-probabilities of its text
        self._finish = "stop"

    def begin(self) -> bytes:
        """`response.created` and `response.in_progress`."""
        made = self._response("in_progress")
        return self._event("response.created", response=made) + self._event(
            "response.in_progress", response=made
        )

    def delta(self, item: object) -> bytes:
        """Events of one delta."""
        if not isinstance(item, Delta):
            return b""
        out = b""
        self._scores += item.logprobs
        if item.text:
            out += self._text(item.text)
        if item.call is not None:
            out += self._call_piece(item.call)
        if item.finish is not None:
            self._finish = item.finish
        return out

    def end(self, receipt: Receipt | None) -> bytes:
        """The open item's end, then `response.completed`, or `response.incomplete`."""
        if receipt is None:
            return b""
        status = "incomplete" if self._finish == "length" else "completed"
        out = self._text("") if not self._items else b""
        out += self._close(status)
        made = self._response(status)
        usage = receipt.usage
        made["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": receipt.cached_tokens},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        return out + self._event(f"response.{status}", response=made)

    def failure(self, error: AnchorholdError) -> bytes:
        """An error event; nothing follows."""
        found = error_document(error)["error"]
        return self._event(
            "error", code=found["code"], message=found["message"], param=found["param"]
        )

    def _text(self, text: str) -> bytes:
        out = b""
        if self._open is None or self._open["type"] != "message":
            out += self._close("completed")
            item = {
                "id": f"msg_{self._tail}",
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
            out += self._add(item)
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            out += self._part("response.content_part.added", part=part)
        scores = [token_document(score) for score in self._scores]
        self._scores = []
        self._shown += scores
        if text:
            self._pieces.append(text)
            out += self._part("response.output_text.delta", delta=text, logprobs=scores)
        return out

    def _call_piece(self, call: CallDelta) -> bytes:
        out = b""
        if call.name is not None:
            out += self._close("completed")
            item = {
                "id": f"fc_{self._tail}_{call.number}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": "",
                "status": "in_progress",
            }
            out += self._add(item)
        if call.arguments:
            self._pieces.append(call.arguments)
            out += self._of_item("response.function_call_arguments.delta", delta=call.arguments)
        return out

    def _add(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        self._open = item
        self._pieces, self._shown = [], []
        return self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=item
        )

    def _close(self, status: str) -> bytes:
        """End the open item, if there is one."""
        item, whole = self._open, "".join(self._pieces)
        if item is None:
            return b""
        item["status"] = status
        if item["type"] == "message":
            self._shown += [token_document(score) for score in self._scores]
            part = {
                "type": "output_text",
                "text": whole,
                "annotations": [],
                "logprobs": self._shown,
            }
            out = self._part("response.output_text.done", text=whole, logprobs=self._shown)
            out += self._part("response.content_part.done", part=part)
            item["content"] = [part]
        else:
            item["arguments"] = whole
            out = self._of_item(
                "response.function_call_arguments.done", name=item["name"], arguments=whole
            )
        self._open = None
        return out + self._event(
            "response.output_item.done", output_index=len(self._items) - 1, item=item
        )

    def _part(self, kind: str, **members: Any) -> bytes:
        return self._of_item(kind, content_index=0, **members)

    def _of_item(self, kind: str, **members: Any) -> bytes:
        item = self._items[-1]
        place = {"item_id": item["id"], "output_index": len(self._items) - 1}
        return self._event(kind, **place, **members)

    def _event(self, kind: str, **members: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return typed_event(document)

    @property
    def _tail(self) -> str:
        return self._answered.id.removeprefix("resp_")

    def _response(self, status: str) -> dict[str, Any]:
        given = self._call.members
        repeated = {
            name: default if given.get(name) is None else given[name]
            for name, default in REPEATED.items()
        }
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._answered.id,
            "object": "response",
            "created_at": self._answered.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": cut,
            "model": self._answered.model,
            "output": list(self._items),
            "previous_response_id": None,
            "reasoning": None,
            "store": False,
            "usage": None,
            **repeated,
        }
