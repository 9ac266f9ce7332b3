"""What the engine says while it works on a request."""

from dataclasses import dataclass
from typing import Literal

from .sampling.choice import Choice

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        prompt_tokens: tokens given.
        completion_tokens: tokens generated, an end-of-sequence token included.
        cached_tokens: tokens taken from the prefix cache.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One piece of an answer, delivered in order on the engine thread.

    Attributes:
        id: of the request.
        text: new text; may be empty (an incomplete character or a possible stop string is held
            back until it is decided).
        tokens: tokens generated since the previous event.
        finish: None, or why the answer ended; the event that carries it is its last one.
        usage: totals of this answer, on its last event only.
        index: which of the request's answers.
        choices: the tokens since the previous event, with log-probabilities where asked for.
        stop: which of the request's stop strings ended it, on the last event.
    """

    id: str
    text: str
    tokens: int
    finish: Finish | None = None
    usage: Usage | None = None
    index: int = 0
    choices: tuple[Choice, ...] = ()
    stop: int | None = None
