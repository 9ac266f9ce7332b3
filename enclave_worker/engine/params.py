"""What the caller may choose about sampling, checked once when a request is made."""

import math
from dataclasses import dataclass

from .errors import RequestInvalid

# Every stop string is searched for in the held-back tail at each token, and the tail is as long as
# the longest of them: bounded so that one request cannot slow the shared step down.
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
# Seeds are one 64-bit word of the counter-based generator.
SEED_MAX = 2**64 - 1
# Far above any useful value; keeps logits / temperature finite in float32.
TEMPERATURE_MIN = 1e-3
TEMPERATURE_MAX = 100.0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling of one request.

    Attributes:
        temperature: 0 is greedy (arg-max, no random draw); else within [0.001, 100].
        top_p: keep the smallest set of tokens with at least this probability mass; 1 = off.
        top_k: keep the k most likely tokens; 0 = off.
        min_p: drop tokens less likely than min_p times the most likely one; 0 = off.
        seed: fixes the draws whatever else is in the batch; None = the engine picks one.
        stop: strings that end the answer; neither they nor a part of them is ever emitted.
        max_tokens: most tokens to generate, at least 1.
        ignore_eos: go on after an end-of-sequence token (benchmarks).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Refuse values no sampler can honour, naming the field (RequestInvalid)."""
        _number("temperature", self.temperature, 0.0, TEMPERATURE_MAX)
        if 0 < self.temperature < TEMPERATURE_MIN:
            raise RequestInvalid(
                f"temperature: found {self.temperature}, expected 0 or at least {TEMPERATURE_MIN}"
            )
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise RequestInvalid("top_p: found 0, expected a number above 0 and at most 1")
        _number("min_p", self.min_p, 0.0, 1.0)
        _integer("top_k", self.top_k, 0, 2**31 - 1)
        _integer("max_tokens", self.max_tokens, 1, 2**31 - 1)
        if self.seed is not None:
            _integer("seed", self.seed, 0, SEED_MAX)
        if type(self.stop) is not tuple or len(self.stop) > MAX_STOP_STRINGS:
            raise RequestInvalid(f"stop: expected a tuple of at most {MAX_STOP_STRINGS} strings")
        for text in self.stop:
            if type(text) is not str or not 1 <= len(text) <= MAX_STOP_CHARS:
                raise RequestInvalid(f"stop: expected strings of 1 to {MAX_STOP_CHARS} characters")

    @property
    def greedy(self) -> bool:
        """Whether the next token is the arg-max, with no random draw."""
        return self.temperature == 0 or self.top_k == 1


def _number(name: str, value: float, low: float, high: float) -> None:
    """Require a finite real number in [low, high]; bool is not a number here."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise RequestInvalid(f"{name}: found {value!r}, expected a number from {low} to {high}")


def _integer(name: str, value: int, low: int, high: int) -> None:
    """Require an integer in [low, high]; bool is not an integer here."""
    if type(value) is not int or not low <= value <= high:
        raise RequestInvalid(f"{name}: found {value!r}, expected an integer from {low} to {high}")
