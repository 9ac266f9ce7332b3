"""Chunks of `/v1/chat/completions` and `/v1/completions`, rebuilt from sealed token deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .events import Delta, TokenLogprob
from .openai_shape import error_document
from .sse import DONE, event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wire.errors import AnchorholdError

    from .calls import Call, Kind
    from .events import Answered, CallDelta
    from .receipts import Receipt

_OBJECT: Final[Mapping[Kind, str]] = {
    "chat": "chat.completion.chunk",
    "completion": "text_completion",
}


class _Choice:
    """One choice, so far: what its next chunk needs to know."""

    __slots__ = ("called", "length", "scores")

    def __init__(self) -> None:
        self.called = False
        self.length = 0
        self.scores: list[TokenLogprob] = []


class ChatEvents:
    """Renders one answer."""

    def __init__(self, call: Call, answered: Answered) -> None:
        self._call, self._answered = call, answered
        self._choices: dict[int, _Choice] = {}

    def begin(self) -> bytes:
        """Nothing: a choice begins with its first delta."""
        return b""

    def delta(self, item: object) -> bytes:
        """Events of one delta; a chat choice begins with its role."""
        if not isinstance(item, Delta):
            return b""
        out = b""
        choice = self._choices.get(item.index)
        if choice is None:
            choice = self._choices[item.index] = _Choice()
            if self._call.kind == "chat":
                out += self._chat(item.index, {"role": "assistant", "content": ""})
        choice.scores += item.logprobs
        if self._call.kind == "completion":
            return out + self._completion(item, choice)
        if item.call is not None:
            choice.called = True
            out += self._chat(item.index, {"tool_calls": [_piece(item.call)]})
        if item.text:
            out += self._chat(item.index, {"content": item.text}, scores=_taken(choice))
        if item.finish is not None:
            reason = "tool_calls" if choice.called and item.finish == "stop" else item.finish
            out += self._chat(item.index, {}, reason, _taken(choice))
        return out

    def end(self, receipt: Receipt | None) -> bytes:
        """The usage chunk `stream_options.include_usage` asks for, and `[DONE]`."""
        if receipt is None:
            return b""
        if not self._call.include_usage:
            return DONE
        details = {"prompt_tokens_details": {"cached_tokens": receipt.cached_tokens}}
        return self._chunk([], {**receipt.usage, **details}) + DONE

    def failure(self, error: AnchorholdError) -> bytes:
        """An error event; no `[DONE]` follows, so nobody takes the text for complete."""
        return event(error_document(error))

    def _completion(self, item: Delta, choice: _Choice) -> bytes:
        if not item.text and item.finish is None:
            return b""
        scores = _taken(choice)
        logprobs = _lists(scores, choice.length) if scores else None
        choice.length += sum(len(_text(score.token)) for score in scores)
        return self._chunk(
            [
                {
                    "index": item.index,
                    "text": item.text,
                    "finish_reason": item.finish,
                    "logprobs": logprobs,
                }
            ]
        )

    def _chat(
        self,
        index: int,
        delta: Mapping[str, Any],
        finish: str | None = None,
        scores: Sequence[TokenLogprob] = (),
    ) -> bytes:
        logprobs = None
        if scores:
            logprobs = {"content": [token_document(score) for score in scores], "refusal": None}
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return self._chunk([choice])

    def _chunk(
        self, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None = None
    ) -> bytes:
        document: dict[str, Any] = {
            "id": self._answered.id,
            "object": _OBJECT[self._call.kind],
            "created": self._answered.created,
            "model": self._answered.model,
            "choices": choices,
        }
        if usage is not None:
            document["usage"] = dict(usage)
        return event(document)


def token_document(score: TokenLogprob) -> dict[str, Any]:
    """One token as chat completions and responses show it."""
    top = [_token(token, value) for token, value in score.top]
    return {**_token(score.token, score.logprob), "top_logprobs": top}


def _taken(choice: _Choice) -> list[TokenLogprob]:
    scores, choice.scores = choice.scores, []
    return scores


def _piece(call: CallDelta) -> dict[str, Any]:
    function = {"arguments": call.arguments}
    if call.name is None:
        return {"index": call.number, "function": function}
    named = {"name": call.name, **function}
    return {"index": call.number, "id": call.id, "type": "function", "function": named}


def _lists(scores: Sequence[TokenLogprob], at: int) -> dict[str, Any]:
    """The older form of completions, four lists side by side."""
    texts = [_text(score.token) for score in scores]
    offsets = []
    for text in texts:
        offsets.append(at)
        at += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [{_text(token): value for token, value in s.top} for s in scores],
        "text_offset": offsets,
    }


def _token(token: bytes, value: float) -> dict[str, Any]:
    return {"token": _text(token), "logprob": value, "bytes": list(token)}


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")
