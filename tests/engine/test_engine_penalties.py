"""Penalties and bias are transformers' and vLLM's definitions, and what was said is counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor

from enclave_worker.engine.logits import Logits
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sampling.sampler import choose
from enclave_worker.engine.sampling.state import SamplerState

VOCAB = 60
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40)


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, VOCAB).astype(np.float32)


def adjusted(params: SamplingParams, prompt: list[int], answer: list[int], logits: np.ndarray):
    state = SamplerState(params, 0, prompt)
    for token in answer:
        state.accept(token)
    changed = logits.copy()
    assert state.adjust(changed)
    return changed


@settings(deadline=None, max_examples=50)
@given(
    prompt=TOKENS,
    answer=TOKENS,
    penalty=st.sampled_from([0.01, 0.7, 1.3, 10.0]),
    seed=st.integers(0, 99),
)
def test_repetition_is_transformers_over_prompt_and_answer(
    prompt: list[int], answer: list[int], penalty: float, seed: int
) -> None:
    logits = row(seed)
    oracle = RepetitionPenaltyLogitsProcessor(penalty)
    expected = oracle(torch.tensor([prompt + answer]), torch.tensor(logits)[None])[0].numpy()
    found = adjusted(SamplingParams(repetition_penalty=penalty), prompt, answer, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    prompt=TOKENS,
    answer=TOKENS,
    presence=st.sampled_from([-2.0, 0.0, 0.5]),
    frequency=st.sampled_from([-1.0, 0.0, 2.0]),
    repetition=st.sampled_from([1.0, 1.5]),
    bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=5),
)
def test_the_order_is_bias_repetition_frequency_presence(
    prompt: list[int],
    answer: list[int],
    presence: float,
    frequency: float,
    repetition: float,
    bias: dict[int, float],
) -> None:
    """Token by token, as the definitions of the OpenAI API and of CTRL read."""
    logits = row(1)
    expected = logits.astype(float)
    for token in range(VOCAB):
        value = expected[token] + bias.get(token, 0.0)
        if token in prompt or token in answer:
            value = value / repetition if value > 0 else value * repetition
        value -= frequency * answer.count(token)
        expected[token] = value - presence * (token in answer)
    params = SamplingParams(
        presence_penalty=presence,
        frequency_penalty=frequency,
        repetition_penalty=repetition,
        logit_bias=tuple(bias.items()),
    )
    if bias or params.penalised:
        found = adjusted(params, prompt, answer, logits)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_bias_is_transformers() -> None:
    logits, bias = row(3), {5: 2.5, 7: -100.0, 0: 100.0}
    oracle = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})
    expected = oracle(torch.tensor([[1, 2, 3]]), torch.tensor(logits)[None])[0].numpy()
    params = SamplingParams(logit_bias=tuple(bias.items()))
    np.testing.assert_array_equal(adjusted(params, [1, 2], [3], logits), expected)


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_the_choice_follows_the_changed_logits(temperature: float) -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, 10], logits[0, 11] = 3.0, 2.5
    step = Logits(np.array([10], np.int32), np.array([True]), logits)
    for more, expected in (
        ({}, 10),
        ({"presence_penalty": 1.0}, 11),
        ({"frequency_penalty": 0.3}, 11),
        ({"frequency_penalty": 0.2}, 10),
        ({"repetition_penalty": 1.5}, 11),
        ({"logit_bias": ((20, 4.0),)}, 20),
        ({"logit_bias": ((10, -100.0), (11, -100.0), (30, 1.0))}, 30),
    ):
        state = SamplerState(SamplingParams(temperature=temperature, **more), 9, [1])
        for _ in range(2):
            state.accept(10)
        (choice,) = choose(step, [0], [state])
        assert choice is not None
        assert choice.token == expected, more


def test_many_different_tokens_are_all_remembered() -> None:
    state = SamplerState(SamplingParams(frequency_penalty=1.0), 0, [])
    for token in range(1000):
        for _ in range(token % 3):
            state.accept(token)
    changed = np.zeros(1000, np.float32)
    state.adjust(changed)
    assert changed.tolist() == [-float(token % 3) for token in range(1000)]
