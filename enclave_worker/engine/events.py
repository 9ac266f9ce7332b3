"""What the engine says while it works on a request."""

from dataclasses import dataclass
from typing import Literal

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        prompt_tokens: tokens given.
        completion_tokens: tokens generated, an end-of-sequence token included.
        cached_tokens: prompt tokens taken from a prefix cache (0: there is none yet).
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
        finish: None, or why the answer ended; the event that carries it is the last one.
        usage: totals, on the last event only.
    """

    id: str
    text: str
    tokens: int
    finish: Finish | None = None
    usage: Usage | None = None
