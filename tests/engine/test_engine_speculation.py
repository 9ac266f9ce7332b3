"""Guesses change how fast an answer comes and nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.generation import Answer, generate, running

from enclave_worker.engine.engine import Engine
from enclave_worker.engine.logits import Logits
from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sampling.grammar import Grammars
from enclave_worker.engine.sampling.sampler import verify
from enclave_worker.engine.sampling.speculation import LENGTH_MAX, Drafter, draft_length
from enclave_worker.engine.sampling.state import SamplerState
from enclave_worker.engine.tokenizer import Tokenizer

KINDS: list[dict[str, object]] = [
    {"temperature": 0},
    {"temperature": 0, "logprobs": 2},
    {"seed": 7, "temperature": 0.05},
    {"seed": 8},
    {"seed": 9, "top_p": 0.6, "logprobs": 0},
    {"temperature": 0, "repetition_penalty": 1.2, "frequency_penalty": 0.4, "logprobs": 1},
    {"seed": 10, "temperature": 0.4, "frequency_penalty": -2.0},
    {"temperature": 0, "logit_bias": ((40, 90.0), (41, 89.0)), "logprobs": 3},
    {"seed": 11, "grammar": Grammar("regex", "(abc|abd){3,9}")},
    {"temperature": 0, "grammar": Grammar("json_schema", '{"enum": ["aaaaaaaaa", "aaaaaab"]}')},
]


def prompts() -> list[list[int]]:
    """Fifty prompts that repeat themselves, each in its own way."""
    rng = np.random.default_rng(5)
    phrases = [rng.integers(3, 300, 3 + i % 9).tolist() for i in range(50)]
    return [(phrase * 6)[: 12 + i % 30] for i, phrase in enumerate(phrases)]


def run(engine: Engine, speculate: bool) -> list[Answer]:
    params = [
        SamplingParams(max_tokens=40, speculate=speculate, **KINDS[i % len(KINDS)])
        for i in range(50)
    ]
    texts = prompts()
    # One of each kind's neighbours at a time: with many at once nothing would be guessed.
    pairs = [(i, i + 10) for i in range(10)] + [(i, i + 10) for i in range(20, 30)]
    pairs += [(i, i + 5) for i in range(40, 45)]
    answers = {}
    for pair in pairs:
        found = generate(engine, [texts[i] for i in pair], [params[i] for i in pair])
        answers.update(zip(pair, found, strict=True))
    return [answers[i] for i in range(50)]


def choices(answer: Answer) -> list[object]:
    return [choice for event in answer.events for choice in event.choices]


def test_answers_are_the_same_with_and_without(tiny: tuple[Path, object]) -> None:
    steps = []
    answers = []
    for speculate in (False, True):
        with running(tiny[0]) as engine:
            answers.append(run(engine, speculate))
            steps.append(engine.stats().steps)
    assert steps[1] < 0.95 * steps[0]  # guesses were made, and were right
    for plain, guessed in zip(*answers, strict=True):
        assert plain.tokens == guessed.tokens
        assert (plain.text, plain.finish, plain.usage) == (
            guessed.text,
            guessed.finish,
            guessed.usage,
        )
        for one, other in zip(choices(plain), choices(guessed), strict=True):
            # Rows computed together may differ in the last bits (float32, not the exact mode).
            assert one.token == other.token
            assert [token for token, _ in one.top] == [token for token, _ in other.top]
            assert (one.logprob is None) == (other.logprob is None)
            if one.logprob is not None:
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_the_end_inside_a_guess_ends_the_answer_there(tiny: tuple[Path, object]) -> None:
    """Length, stop string and end of sequence all fall among tokens verified together."""
    prompt = [50, 51, 52] * 8
    bias = ((50, 60.0), (51, 60.0), (52, 60.0))
    base = SamplingParams(temperature=0, logit_bias=bias, max_tokens=30)
    kinds = [dataclasses.replace(base, max_tokens=n) for n in range(1, 12)]
    with running(tiny[0]) as engine:
        whole = generate(engine, [prompt], dataclasses.replace(base, speculate=False))[0]
        for params in kinds:
            answer = generate(engine, [prompt], params)[0]
            assert answer.tokens == whole.tokens[: params.max_tokens]
            assert answer.finish == "length"
        stop = dataclasses.replace(base, stop=(whole.text[5:9],))
        plain = generate(engine, [prompt], dataclasses.replace(stop, speculate=False))[0]
        guessed = generate(engine, [prompt], stop)[0]
    assert (guessed.text, guessed.tokens, guessed.finish) == (plain.text, plain.tokens, "stop")


@settings(deadline=None, max_examples=60)
@given(
    vocab=st.integers(2, 4),
    wrong=st.integers(0, 8),
    length=st.integers(0, 7),
    seed=st.integers(0, 999),
    greedy=st.booleans(),
)
def test_verifying_is_choosing_step_by_step(
    vocab: int, wrong: int, length: int, seed: int, greedy: bool
) -> None:
    """A model of fixed rows: what single steps choose is known beforehand."""
    values = torch.randn(16, vocab, generator=torch.Generator().manual_seed(seed))
    values[:, 0] = values[:, 0].clamp(max=2.0)
    params = SamplingParams(temperature=0.0 if greedy else 1.0, presence_penalty=1.0, logprobs=1)
    best, finite = values.argmax(-1).int().numpy(), np.ones(16, bool)
    logits = Logits(best, finite, values)
    single = SamplerState(params, seed, [1])
    expected = []
    for row in range(3, 3 + length + 1):
        ((choice,),) = verify(logits, [(row, single, ())])
        assert choice is not None
        expected.append(choice)
    draft = [choice.token for choice in expected[:-1]]
    if wrong < length:
        draft[wrong] = (draft[wrong] + 1) % vocab
    other = SamplerState(SamplingParams(temperature=0), 0, [1])
    state = SamplerState(params, seed, [1])
    chosen = verify(logits, [(0, other, ()), (3, state, draft)])
    assert chosen == [[chosen[0][0]], expected[: min(wrong, length) + 1]]
    assert state.position == 1 + len(chosen[1])
    assert other.position == 2


def test_a_bad_row_ends_a_verification(tiny: tuple[Path, object]) -> None:
    values = torch.zeros(4, 5)
    values[:, 2] = 1.0
    best, finite = values.argmax(-1).int().numpy(), np.array([True, True, False, True])
    states = [SamplerState(SamplingParams(temperature=0), 0, [1]) for _ in range(2)]
    first, second = verify(
        Logits(best, finite, values), [(0, states[0], (2, 2, 2)), (3, states[1], ())]
    )
    assert [c and c.token for c in first] == [2, 2, None]
    assert [c and c.token for c in second] == [2]


def slow_guess(tokens: list[int], most: int, sizes: tuple[int, ...] = (4, 2)) -> list[int]:
    """The latest earlier occurrence of the longest n-gram at the end, by search."""
    for n in sizes:
        for end in range(len(tokens) - 1, n - 1, -1):
            if tokens[end - n : end] == tokens[len(tokens) - n :]:
                guess = list(tokens[end:])
                while len(guess) < most:
                    guess.append(guess[-(len(tokens) - end)])
                return guess[:most]
    return []


@settings(deadline=None, max_examples=100)
@given(
    tokens=st.lists(st.integers(0, 3), max_size=40),
    more=st.lists(st.integers(0, 3), max_size=10),
    most=st.integers(1, LENGTH_MAX),
)
def test_a_guess_is_what_followed_the_end_of_the_text_before(
    tokens: list[int], more: list[int], most: int
) -> None:
    text = list(tokens)
    drafter = Drafter(text)
    assert list(drafter.draft(most)) == slow_guess(text, most)
    for token in more:
        text.append(token)
        assert list(drafter.draft(most)) == slow_guess(text, most)


def test_guesses_shrink_when_wrong_and_pause_when_always_wrong() -> None:
    drafter = Drafter([1, 2] * 10)
    assert len(drafter.draft(7)) == 7
    drafter.observe(7, 2)
    assert len(drafter.draft(7)) == 5
    drafter.observe(5, 5)
    assert len(drafter.draft(7)) == 7
    guesses = []
    for _ in range(400):
        guess = drafter.draft(7)
        guesses.append(bool(guess))
        drafter.observe(len(guess), 0)
    assert sum(guesses) < 30
    assert any(guesses[-40:])  # never given up for good


def test_the_index_stays_the_same_size() -> None:
    text = np.random.default_rng(0).integers(0, 40_000, 60_000).tolist()
    drafter = Drafter(text)
    drafter.draft(3)
    assert sum(len(table) for table in drafter._after.values()) == 2 * 8192
    text += text[100:104]  # overwritten long ago, or compared and found equal
    assert drafter.draft(3) in ((), tuple(text[104:107]))


def test_only_what_the_grammar_allows_is_guessed(tiny: tuple[Path, object]) -> None:
    source = (tiny[0] / "tokenizer.json").read_text()
    tokenizer = Tokenizer(source)
    grammars = Grammars(source, tokenizer.vocab_size, frozenset([2]))
    a, b, c = (tokenizer.encode(letter)[-1] for letter in "abc")
    matcher = grammars.compile(Grammar("regex", "[ac]*"))
    drafter = Drafter([a, c, a, c, b, b, a, c, a, c], matcher)
    guess = drafter.draft(7)
    assert matcher.allowed(list(guess)) == len(guess)
    assert b not in guess
    forced = grammars.compile(Grammar("choice", '["cab"]'))
    assert tokenizer.decode(list(Drafter([a, b], forced).draft(7))).strip() in ("c", "ca", "cab")


def test_many_sequences_are_not_guessed_for() -> None:
    lengths = [draft_length(n) for n in range(1, 40)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == LENGTH_MAX
    assert lengths[3] >= 1
    assert set(lengths[15:]) == {0}
