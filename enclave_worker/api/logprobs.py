"""Log-probabilities of chosen tokens, as each shape spells them.

A token is shown as its text and, where bytes do not make up characters, as its bytes. Values are
rounded to six places, more than float32 logits are good for; what has no probability at all is
−9999, as OpenAI has it.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PLACES = 6
NEVER = -9999.0

TokenBytes = Callable[[int], bytes]


class Chosen(Protocol):
    """What the sampler says of a token it chose; `top` is best first."""

    @property
    def token(self) -> int:
        """Its id."""

    @property
    def logprob(self) -> float | None:
        """Its log-probability, where one was asked for."""

    @property
    def top(self) -> Sequence[tuple[int, float]]:
        """Ids and log-probabilities of the likeliest tokens."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token and its alternatives, best first."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]

    @classmethod
    def of(cls, choice: Chosen, most: int, token_bytes: TokenBytes) -> "TokenLogprob":
        """From the engine's choice; at most `most` alternatives."""
        top = choice.top[:most]
        return cls(
            token_bytes(choice.token),
            rounded(choice.logprob),
            tuple((token_bytes(token), rounded(value)) for token, value in top),
        )

    def line(self) -> str:
        """The line that travels in a stream."""
        top = [[_spelled(token), value] for token, value in self.top]
        row = [_spelled(self.token), self.logprob, top]
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def rounded(value: float | None) -> float:
    """A log-probability as it is shown."""
    return round(value, PLACES) if value is not None and math.isfinite(value) else NEVER


def chat_document(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """OpenAI chat's `logprobs` of one choice."""
    return {"content": [entry_document(entry) for entry in entries], "refusal": None}


def entry_document(entry: TokenLogprob) -> dict[str, Any]:
    """One token as chat completions and responses show it."""
    top = [_token(token, value) for token, value in entry.top]
    return {**_token(entry.token, entry.logprob), "top_logprobs": top}


def completion_document(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The older form of completions, four lists side by side."""
    texts = [_text(entry.token) for entry in entries]
    offsets, at = [], 0
    for text in texts:
        offsets.append(at)
        at += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{_text(token): value for token, value in e.top} for e in entries],
        "text_offset": offsets,
    }


def _token(token: bytes, value: float) -> dict[str, Any]:
    return {"token": _text(token), "logprob": value, "bytes": list(token)}


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _spelled(token: bytes) -> str | list[int]:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return list(token)
