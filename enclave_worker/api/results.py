"""What came out: one finished choice, and the identity that every part of a response repeats."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from enclave_worker.engine.events import Usage
from evidence.commit import Said

from .logprobs import TokenLogprob
from .request import Kind, ToolCall

PREFIX: dict[Kind, str] = {
    "chat": "chatcmpl-",
    "completion": "cmpl-",
    "responses": "resp_",
    "messages": "msg_",
    "embeddings": "embd-",
}
CALL_PREFIX: dict[Kind, str] = {"messages": "toolu_"}


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """One finished choice.

    Attributes:
        index: from 0.
        text: of the answer, without calls.
        calls: tool calls, in order.
        finish: stop or length.
        stop: which of the request's stop strings ended it, or None.
        logprobs: of each token, where asked for.
    """

    index: int
    text: str = field(repr=False)
    calls: tuple[ToolCall, ...] = field(repr=False)
    finish: str
    stop: int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)

    @property
    def reason(self) -> str:
        """OpenAI's finish reason."""
        return "tool_calls" if self.calls and self.finish == "stop" else self.finish

    def said(self) -> Said:
        """What the receipt commits to."""
        return Said(self.text, tuple((call.name, call.arguments) for call in self.calls))


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one logical response repeats.

    Attributes:
        id: the shape's prefix and random hex.
        created: seconds since the epoch.
        model: the served model's name.
        kind: which endpoint was asked.
    """

    id: str
    created: int
    model: str
    kind: Kind

    @classmethod
    def fresh(cls, kind: Kind, model: str, created: int) -> "Identity":
        """Draw a new id."""
        return cls(PREFIX[kind] + secrets.token_hex(12), created, model, kind)

    def call_id(self) -> str:
        """Draw the id of a tool call."""
        return CALL_PREFIX.get(self.kind, "call_") + secrets.token_hex(12)

    def head(self, stream: bool, prompt_tokens: int) -> dict[str, Any]:
        """Return the HEAD record: logical status, headers, and what SSE chunks repeat."""
        content = "text/event-stream" if stream else "application/json"
        return {
            "s": 200,
            "h": {"content-type": content},
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "in": prompt_tokens,
        }


def overall(results: Sequence[ChoiceResult]) -> str:
    """The one finish a receipt states: length where any choice was cut."""
    return "length" if any(result.finish == "length" for result in results) else "stop"


def usage_document(usage: Usage) -> dict[str, int]:
    """Return usage as OpenAI spells it, of counts only."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
