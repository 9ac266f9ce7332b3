"""What the caller may choose about sampling, checked once when a request is made."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

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
# The smaller, the further a token seen before is favoured; below this logits would overflow.
REPETITION_MIN = 0.01


# As OpenAI has it: a request carries a bias for at most this many tokens, and asks for at most this
# many alternatives of each token.
MAX_BIASES = 300
MAX_LOGPROBS = 20
# The largest schemas in use are some 30 kB. Regular expressions and grammars are bounded further
# where they are compiled.
MAX_GRAMMAR_CHARS = 64 * 1024

GrammarKind = Literal["json_schema", "json_object", "regex", "lark", "choice", "calls"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the whole answer must match.

    Attributes:
        kind: the language of `source`.
        source: a JSON schema; nothing (json_object: any JSON object); a regular expression; a
            grammar in llguidance's Lark; a JSON list of strings to choose from; `lark` of the
            worker's own and the caller's `schemas` in it, as JSON.
    """

    kind: GrammarKind
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse unknown kinds and what is too long; the source itself is compiled later."""
        if self.kind not in get_args(GrammarKind):
            raise RequestInvalid(f"grammar: expected a kind of {', '.join(get_args(GrammarKind))}")
        if type(self.source) is not str or len(self.source) > MAX_GRAMMAR_CHARS:
            raise RequestInvalid(f"grammar: expected at most {MAX_GRAMMAR_CHARS} characters")


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
        presence_penalty: taken once from the logit of every token generated so far; -2 to 2.
        frequency_penalty: taken as often as the token was generated; -2 to 2.
        repetition_penalty: divides positive logits and multiplies negative ones of all tokens in
            prompt and answer (Keskar et al. 2019, CTRL); 1 = off.
        logit_bias: (token id, number from -100 to 100 added to its logit), each id once.
        logprobs: None, or how many alternatives to report beside each token's log-probability.
        grammar: what the answer must match, or None.
        speculate: allow drafted tokens. They never change the answer, but the timing of its pieces.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    speculate: bool = True

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
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, REPETITION_MIN, 10.0)
        _integer("top_k", self.top_k, 0, 2**31 - 1)
        _integer("max_tokens", self.max_tokens, 1, 2**31 - 1)
        if self.seed is not None:
            _integer("seed", self.seed, 0, SEED_MAX)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.grammar is not None and type(self.grammar) is not Grammar:
            raise RequestInvalid("grammar: expected a Grammar or none")
        for name in ("ignore_eos", "speculate"):
            if type(getattr(self, name)) is not bool:
                raise RequestInvalid(f"{name}: expected true or false")
        self._check_bias()
        if type(self.stop) is not tuple or len(self.stop) > MAX_STOP_STRINGS:
            raise RequestInvalid(f"stop: expected a tuple of at most {MAX_STOP_STRINGS} strings")
        for text in self.stop:
            if type(text) is not str or not 1 <= len(text) <= MAX_STOP_CHARS:
                raise RequestInvalid(f"stop: expected strings of 1 to {MAX_STOP_CHARS} characters")

    @property
    def greedy(self) -> bool:
        """Whether the next token is the arg-max, with no random draw."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def penalised(self) -> bool:
        """Whether tokens seen before have other logits than the model gave them."""
        off = self.presence_penalty == 0 == self.frequency_penalty
        return not off or self.repetition_penalty != 1

    def check_vocabulary(self, size: int) -> None:
        """Refuse token ids the model does not have (RequestInvalid)."""
        for token, _ in self.logit_bias:
            _integer("logit_bias token", token, 0, size - 1)

    def _check_bias(self) -> None:
        """Refuse a bias that is malformed, too large, or given twice."""
        bias = self.logit_bias
        if type(bias) is not tuple or len(bias) > MAX_BIASES:
            raise RequestInvalid(f"logit_bias: expected a tuple of at most {MAX_BIASES} pairs")
        for pair in bias:
            if type(pair) is not tuple or len(pair) != 2:
                raise RequestInvalid("logit_bias: expected pairs of a token id and a number")
            _integer("logit_bias token", pair[0], 0, 2**31 - 1)
            _number("logit_bias", pair[1], -100.0, 100.0)
        if len({token for token, _ in bias}) != len(bias):
            raise RequestInvalid("logit_bias: expected each token id once")


def _number(name: str, value: float, low: float, high: float) -> None:
    """Require a finite real number in [low, high]; bool is not a number here."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise RequestInvalid(f"{name}: found {value!r}, expected a number from {low} to {high}")


def _integer(name: str, value: int, low: int, high: int) -> None:
    """Require an integer in [low, high]; bool is not an integer here."""
    if type(value) is not int or not low <= value <= high:
        raise RequestInvalid(f"{name}: found {value!r}, expected an integer from {low} to {high}")
