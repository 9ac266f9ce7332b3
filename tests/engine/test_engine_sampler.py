"""Draws: the kept set is the slow reference's, frequencies are right, neighbours do not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from enclave_worker.engine.errors import RequestInvalid
from enclave_worker.engine.logits import Logits
from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sampling import sampler
from enclave_worker.engine.sampling.choice import Choice
from enclave_worker.engine.sampling.filters import CANDIDATES, kept, likeliest
from enclave_worker.engine.sampling.state import SamplerState


def random_logits(rows: int, vocab: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocab, generator=generator) * spread


def state(params: SamplingParams, seed: int, position: int) -> SamplerState:
    """A sequence without content: only how long it is counts."""
    return SamplerState(params, seed, [0] * position)


def choices(values: torch.Tensor, states: list[SamplerState]) -> list[Choice | None]:
    best = values.argmax(-1).int().numpy()
    logits = Logits(best, values.amax(-1).isfinite().numpy(), values)
    return sampler.choose(logits, range(len(states)), states)


def choose(values: torch.Tensor, states: list[SamplerState]) -> list[int | None]:
    return [None if choice is None else choice.token for choice in choices(values, states)]


def slow_reference(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """The filters as their definitions read, one token at a time."""
    p = torch.softmax(logits.double(), 0).tolist()
    order = sorted(range(len(p)), key=lambda i: -p[i])
    if params.top_k:
        order = order[: params.top_k]
    total = sum(p[i] for i in order)
    chosen, mass = [], 0.0
    for token in order:
        if mass >= params.top_p * total and chosen:
            break
        chosen.append(token)
        mass += p[token]
    return {i for i in chosen if p[i] >= params.min_p * p[order[0]]}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.01, 1.0, 4.0]),
    top_k=st.sampled_from([0, 1, 2, 40, CANDIDATES, CANDIDATES + 1, 5000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.001, 0.1, 1.0]),
    vocab=st.sampled_from([5, 300, 1000]),
)
def test_the_kept_set_is_the_slow_references(
    seed: int, spread: float, top_k: int, top_p: float, min_p: float, vocab: int
) -> None:
    logits = random_logits(1, vocab, seed, spread)[0]
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    ids, weights = kept(logits.numpy(), params)
    expected = slow_reference(logits, params)
    found = set(ids.tolist())
    assert len(found) == len(ids)
    # At the border of top_p, sums of float32 and of float64 may disagree about one token.
    assert found == expected or (top_p < 1 and len(found ^ expected) <= 1)
    assert weights.tolist() == sorted(weights, reverse=True)


@pytest.mark.parametrize("vocab", [400, 3000])
@pytest.mark.parametrize(
    ("params", "warper"),
    [
        (SamplingParams(top_k=50), TopKLogitsWarper(50)),
        (SamplingParams(top_k=700), TopKLogitsWarper(700)),
        (SamplingParams(top_p=0.7), TopPLogitsWarper(0.7)),
        (SamplingParams(top_p=0.99), TopPLogitsWarper(0.99)),
        (SamplingParams(min_p=0.05), MinPLogitsWarper(0.05)),
        (SamplingParams(min_p=0.0005), MinPLogitsWarper(0.0005)),
    ],
)
def test_the_kept_set_is_transformers(vocab: int, params: SamplingParams, warper: object) -> None:
    for seed in range(5):
        logits = random_logits(1, vocab, seed, 1.5)
        masked = warper(None, logits.clone())[0]
        ids, _ = kept(logits[0].numpy(), params)
        assert set(ids.tolist()) == set(masked.isfinite().nonzero().view(-1).tolist())


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5])
    for params in (SamplingParams(), SamplingParams(top_k=5), SamplingParams(temperature=2.0)):
        expected = torch.softmax(logits / params.temperature, 0)
        rows = [state(params, 77, position) for position in range(8000)]
        drawn = torch.tensor(choose(logits.repeat(8000, 1), rows))
        found = torch.bincount(drawn, minlength=5) / 8000
        assert (found - expected).abs().max() < 0.02  # about 3.5 standard deviations


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=0),
        SamplingParams(seed=0, temperature=0.3),
        SamplingParams(seed=0, top_k=9),
        SamplingParams(seed=0, top_p=0.6),
        SamplingParams(seed=0, min_p=0.2),
        SamplingParams(temperature=0),
    ],
)
def test_a_row_draws_the_same_alone_and_among_others(params: SamplingParams) -> None:
    logits = random_logits(24, 2000, 3)
    others = [
        SamplingParams(),
        SamplingParams(top_k=1500),
        SamplingParams(top_p=0.3, temperature=5.0),
        SamplingParams(temperature=0),
    ]
    draws = [state(others[i % 4], i, i) for i in range(24)]
    draws[13] = state(params, 5, 99)
    together = choose(logits.clone(), draws)
    assert choose(logits[13:14].clone(), [draws[13]])[0] == together[13]


def test_seed_and_position_both_change_the_draw_and_nothing_else_does() -> None:
    params, hot = SamplingParams(), SamplingParams(temperature=5.0)
    assert state(params, 1, 2).uniform == state(hot, 1, 2).uniform
    assert len({state(params, s, p).uniform for s in range(30) for p in range(30)}) == 900
    assert all(0 <= state(params, 2**64 - 1, p).uniform < 1 for p in range(1000))


def test_draws_are_fixed_for_good() -> None:
    """A receipt names seed and parameters: the generator behind them must not drift."""
    assert state(SamplingParams(), 1, 2).uniform == GOLDEN_UNIFORM


GOLDEN_UNIFORM = 0.5124518282591252


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.sampled_from([1, 7, 300, 1000, 5003]),
    count=st.sampled_from([1, 5, 20, 256, 4096]),
    levels=st.sampled_from([2, 50, 100_000]),
    masked=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_the_likeliest_are_the_beginning_of_a_full_sort(
    seed: int, vocab: int, count: int, levels: int, masked: float
) -> None:
    rng = np.random.default_rng(seed)
    row = rng.integers(-levels, levels, vocab).astype(np.float32)
    row[rng.random(vocab) < masked] = -np.inf
    ids, complete = likeliest(row, count)
    expected = [i for i in np.argsort(-row, kind="stable") if row[i] > -np.inf]
    assert ids.tolist() == expected[: len(ids)]
    assert len(ids) >= min(count, len(expected))
    assert complete <= (len(ids) == len(expected))


KINDS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0, logprobs=3),
    SamplingParams(),
    SamplingParams(temperature=0.4, logprobs=20),
    SamplingParams(top_p=0.8),
    SamplingParams(top_p=0.9999, temperature=30.0),
    SamplingParams(top_k=40, min_p=0.01),
    SamplingParams(top_k=900),
    SamplingParams(presence_penalty=1.0, repetition_penalty=1.3, logprobs=0),
    SamplingParams(logit_bias=((3, 50.0), (4, 49.0)), top_p=0.9),
]


@settings(deadline=None, max_examples=40)
@given(
    vocab=st.sampled_from([301, 1003, 4099]),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=9),
    place=st.integers(0, 8),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_the_bits_of_a_row_do_not_depend_on_its_neighbours(
    vocab: int, kinds: list[SamplingParams], place: int, kind: SamplingParams, seed: int
) -> None:
    """Odd sizes: rows begin at every alignment, where vector code has its edges."""
    place = min(place, len(kinds))
    kinds = [*kinds[:place], kind, *kinds[place:]]
    logits = random_logits(len(kinds), vocab, seed)
    states = [SamplerState(p, i, list(range(i, 40))) for i, p in enumerate(kinds)]
    alone = choices(logits[place : place + 1].clone(), [states[place]])[0]
    assert choices(logits, states)[place] == alone
    assert alone is not None


def test_a_step_that_needs_no_logits_asks_for_none() -> None:
    assert not SamplerState(SamplingParams(temperature=0), 0, [1]).needs_values
    assert not SamplerState(SamplingParams(top_k=1), 0, [1]).needs_values
    for params in KINDS[1:]:
        assert SamplerState(params, 0, [1]).needs_values
    best, finite = np.array([7], np.int32), np.array([True])
    greedy = SamplerState(SamplingParams(temperature=0), 0, [1])
    assert sampler.choose(Logits(best, finite, None), [0], [greedy]) == [Choice(7)]
    with pytest.raises(ValueError, match="found no logits"):
        sampler.choose(Logits(best, finite, None), [0], [SamplerState(KINDS[2], 0, [1])])


def test_choosing_changes_neither_logits_nor_states() -> None:
    logits = random_logits(len(KINDS), 500, 4)
    before = logits.clone()
    states = [SamplerState(p, i, [1, 2, 3]) for i, p in enumerate(KINDS)]
    assert choices(logits, states) == choices(logits, states)
    assert torch.equal(logits, before)


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.zeros(1, 50)
    assert choose(logits, [state(SamplingParams(temperature=0), 1, 1)]) == [0]
    assert choose(logits, [state(SamplingParams(top_k=1), 1, 1)]) == [0]


def test_a_row_with_nan_or_infinity_yields_nothing_and_spares_the_others() -> None:
    logits = random_logits(4, 100, 1)
    logits[1, 7] = math.nan
    logits[2, 9] = math.inf
    for params in (SamplingParams(temperature=0), SamplingParams(), SamplingParams(top_p=0.5)):
        found = choose(logits.clone(), [state(params, 1, 1)] * 4)
        assert found[1] is None
        assert found[2] is None
        assert found[0] is not None
        assert found[3] is not None


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = torch.full((2000, 700), -math.inf)
    logits[:, 300] = 0.0
    logits[:, 512] = 0.0
    for params in (SamplingParams(), SamplingParams(top_p=0.9999), SamplingParams(top_k=600)):
        found = choose(logits.clone(), [state(params, 3, p) for p in range(2000)])
        assert set(found) == {300, 512}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", 1e-5),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", True),
        ("temperature", "1"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("top_k", -1),
        ("top_k", 1.0),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", ("",)),
        ("stop", ["a"]),
        ("stop", ("x" * 257,)),
        ("stop", ("x",) * 17),
        ("presence_penalty", 2.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", False),
        ("repetition_penalty", 0),
        ("repetition_penalty", 10.5),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("logit_bias", {1: 2.0}),
        ("logit_bias", ((1, 101.0),)),
        ("logit_bias", ((1, 1.0), (1, 2.0))),
        ("logit_bias", ((1,),)),
        ("logit_bias", tuple((i, 1.0) for i in range(301))),
        ("logit_bias token", ((-1, 1.0),)),
        ("logit_bias token", ((1.0, 1.0),)),
        ("grammar", "regex"),
        ("ignore_eos", 1),
        ("speculate", None),
    ],
)
def test_impossible_parameters_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestInvalid, match=f"^{field}: "):
        SamplingParams(**{field.removesuffix(" token"): value})


def test_limits_of_parameters_are_allowed() -> None:
    for sign in (-1, 1):
        SamplingParams(presence_penalty=2 * sign, frequency_penalty=2.0 * sign)
    SamplingParams(repetition_penalty=10, logprobs=20, logit_bias=((0, 100), (5, -100.0)))
    SamplingParams(logit_bias=tuple((i, 1.0) for i in range(300)))


def test_a_bias_for_a_token_the_model_does_not_have_is_refused() -> None:
    params = SamplingParams(logit_bias=((99, 1.0), (7, 2.0)))
    params.check_vocabulary(100)
    with pytest.raises(RequestInvalid, match=r"^logit_bias token: found 99, .* from 0 to 98$"):
        params.check_vocabulary(99)


@pytest.mark.parametrize(("kind", "source"), [("ebnf", ""), ("regex", 3), ("regex", "a" * 65537)])
def test_an_impossible_grammar_is_refused_before_it_is_compiled(kind: str, source: str) -> None:
    with pytest.raises(RequestInvalid, match=r"^grammar: "):
        Grammar(kind, source)
