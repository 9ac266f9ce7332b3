"""Engine results → the logical OpenAI response: the sealed HEAD and the non-stream JSON body."""

import json
import secrets
from dataclasses import dataclass
from typing import Any

from .engine.events import Usage
from .openai_api import Kind

PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one logical response repeats.

    Attributes:
        id: `chatcmpl-…` or `cmpl-…`, random.
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

    def head(self, stream: bool) -> dict[str, Any]:
        """Return the HEAD record: logical status, headers, and what SSE chunks repeat."""
        content = "text/event-stream" if stream else "application/json"
        return {
            "s": 200,
            "h": {"content-type": content},
            "id": self.id,
            "created": self.created,
            "model": self.model,
        }


def usage_document(usage: Usage) -> dict[str, int]:
    """Return usage as OpenAI spells it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def body(identity: Identity, text: str, finish: str, usage: Usage) -> bytes:
    """Return the whole JSON reply of a non-stream request."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    if identity.kind == "chat":
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    document = {
        "id": identity.id,
        "object": "chat.completion" if identity.kind == "chat" else "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [choice],
        "usage": usage_document(usage),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
