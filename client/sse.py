"""OpenAI server-sent events, rebuilt from sealed token deltas on the tenant's side.

Nothing of this framing travels: the sealed stream carries compact deltas, and chunk JSON exists
only after they were authenticated. `DONE` is for the caller to send once the receipt has verified.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calls import Kind

DONE: Final = b"data: [DONE]\n\n"
_OBJECT: Final[Mapping[Kind, str]] = {
    "chat": "chat.completion.chunk",
    "completion": "text_completion",
}


def event(document: Mapping[str, Any]) -> bytes:
    """One `data:` event. ASCII only: U+2028 and its kin end lines in some readers."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@dataclass(slots=True)
class ChunkBuilder:
    """Chunks of one streamed answer.

    Attributes:
        kind: which endpoint.
        id: the answer's id, from the authenticated HEAD.
        created: seconds since the epoch, from the authenticated HEAD.
        model: served model's name, from the authenticated HEAD.
    """

    kind: Kind
    id: str
    created: int
    model: str
    _begun: set[int] = field(default_factory=set)

    def delta(self, text: str, index: int = 0, finish: str | None = None) -> bytes:
        """Events for one delta; a chat choice begins with its role."""
        out = b""
        if self.kind == "completion":
            choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
            return self._chunk([choice])
        if index not in self._begun:
            self._begun.add(index)
            out += self._chat(index, {"role": "assistant", "content": ""}, None)
        if text:
            out += self._chat(index, {"content": text}, None)
        if finish is not None:
            out += self._chat(index, {}, finish)
        return out

    def usage(self, usage: Mapping[str, int]) -> bytes:
        """The extra chunk `stream_options.include_usage` asks for."""
        return self._chunk([], usage)

    def _chat(self, index: int, delta: Mapping[str, str], finish: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._chunk([choice])

    def _chunk(
        self, choices: list[dict[str, Any]], usage: Mapping[str, int] | None = None
    ) -> bytes:
        document: dict[str, Any] = {
            "id": self.id,
            "object": _OBJECT[self.kind],
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            document["usage"] = dict(usage)
        return event(document)
