"""Requests of every kind, drawn from a seed: the same seed gives the same requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enclave_worker.engine.engine import Engine

SCHEMA = (
    '{"type":"object","properties":{"name":{"type":"string","maxLength":12},'
    '"count":{"type":"integer"},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":3}},'
    '"required":["name","count"],"additionalProperties":false}'
)
GRAMMARS = (
    Grammar("json_schema", SCHEMA),
    Grammar("json_object"),
    Grammar("regex", r"[a-z]{3}-[0-9]{2}"),
    Grammar("choice", '["yes", "no", "perhaps"]'),
)
TENANTS = 5
# Prompts of one tenant begin alike, so that the prefix cache has work.
PREFIXES = 3
#: Longest prompt and answer; they decide how hard memory presses.
PROMPT_MAX = 700
ANSWER_MAX = 40


@dataclass(frozen=True, slots=True)
class Order:
    """A request, and when its client leaves.

    Attributes:
        request: for the engine.
        leaves: tokens after which it is cancelled; None: it stays to the end.
    """

    request: GenerationRequest
    leaves: int | None


def orders(engine: Engine, seed: int, count: int) -> Iterator[Order]:
    """Draw `count` requests."""
    rng = np.random.default_rng(seed)
    vocab = engine.folder.config.vocab_size
    prefixes = rng.integers(3, vocab, (TENANTS, PREFIXES, PROMPT_MAX))
    room = min(PROMPT_MAX, engine.max_len - ANSWER_MAX)
    for number in range(count):
        tenant = int(rng.integers(TENANTS))
        shared = prefixes[tenant, rng.integers(PREFIXES)]
        length = int(rng.choice([1, 2, 15, 16, 17, 40, 120, room], p=[0.1, *[0.14] * 6, 0.06]))
        known = int(rng.integers(length + 1))
        prompt = [*shared[:known].tolist(), *rng.integers(3, vocab, length - known).tolist()]
        salt = b"" if rng.random() < 0.2 else bytes([tenant, int(rng.integers(2))])
        yield Order(
            GenerationRequest(
                f"order-{number}",
                prompt,
                _params(rng, vocab),
                tenant=f"tenant-{tenant}",
                weight=1 + tenant,
                cache_salt=salt,
                n=int(rng.choice([1, 1, 1, 1, 2, 3])),
            ),
            int(rng.integers(ANSWER_MAX)) if rng.random() < 0.2 else None,
        )


def _params(rng: np.random.Generator, vocab: int) -> SamplingParams:
    """Parameters of one kind or another; every seed is fixed, so that a second run is the same."""
    kind = int(rng.integers(8))
    most = int(rng.integers(1, ANSWER_MAX + 1))
    seed = int(rng.integers(2**62))
    match kind:
        case 0:
            return SamplingParams(seed=seed, top_p=0.9, top_k=40, max_tokens=most)
        case 1:
            return SamplingParams(seed=seed, min_p=0.05, temperature=0.7, max_tokens=most)
        case 2:
            return SamplingParams(
                seed=seed, presence_penalty=0.5, frequency_penalty=0.2, repetition_penalty=1.2,
                logit_bias=((int(rng.integers(vocab)), 4.0),), max_tokens=most,
            )  # fmt: skip
        case 3:
            grammar = GRAMMARS[rng.integers(len(GRAMMARS))]
            return SamplingParams(seed=seed, grammar=grammar, max_tokens=ANSWER_MAX)
        case 4:
            return SamplingParams(temperature=0, logprobs=3, seed=seed, max_tokens=most)
        case 5:
            stop = (" the", "e", "\n")
            return SamplingParams(temperature=0, seed=seed, stop=stop, max_tokens=ANSWER_MAX)
        case 6:
            return SamplingParams(temperature=0, seed=seed, speculate=False, max_tokens=most)
        case _:
            return SamplingParams(temperature=0, seed=seed, max_tokens=most, ignore_eos=True)
