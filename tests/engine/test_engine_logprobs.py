"""Log-probabilities are of the model's own distribution, whatever is done to it afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.generation import generate, running
from simulators.llamas import oracle_logits

from enclave_worker.engine.logits import Logits
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sampling.choice import Choice
from enclave_worker.engine.sampling.sampler import choose
from enclave_worker.engine.sampling.state import SamplerState

KINDS = [
    {"temperature": 0},
    {"temperature": 0.2},
    {"temperature": 5.0, "top_p": 0.5},
    {"temperature": 0, "logit_bias": ((3, 90.0),)},
    {"temperature": 0, "presence_penalty": 2.0, "repetition_penalty": 5.0},
]


def one(values: torch.Tensor, params: SamplingParams) -> Choice:
    best = values.argmax(-1, keepdim=True).int().numpy()
    step = Logits(best, np.array([True]), values[None])
    (choice,) = choose(step, [0], [SamplerState(params, 1, [5, 6])])
    assert choice is not None
    return choice


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    vocab=st.sampled_from([1, 4, 300, 5003]),
    kind=st.sampled_from(KINDS),
    alternatives=st.integers(0, 20),
)
def test_they_are_torchs_log_softmax_of_the_models_logits(
    seed: int, vocab: int, kind: dict[str, object], alternatives: int
) -> None:
    if vocab < 7:  # the penalised prompt and the bias need their tokens
        kind = KINDS[0]
    values = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * 4
    expected = torch.log_softmax(values.double(), 0)
    choice = one(values, SamplingParams(logprobs=alternatives, **kind))
    assert choice.logprob == pytest.approx(float(expected[choice.token]), abs=1e-5)
    top = expected.topk(min(alternatives, vocab))
    assert [token for token, _ in choice.top] == top.indices.tolist()
    assert [value for _, value in choice.top] == pytest.approx(top.values.tolist(), abs=1e-5)


def test_of_equals_the_lowest_ids_are_reported() -> None:
    values = torch.zeros(1000)
    values[500:] = 1.0
    choice = one(values, SamplingParams(temperature=0, logprobs=5))
    assert [token for token, _ in choice.top] == [500, 501, 502, 503, 504]
    assert len({value for _, value in choice.top}) == 1


def test_nothing_is_reported_unasked() -> None:
    assert one(torch.zeros(9), SamplingParams()) == Choice(
        one(torch.zeros(9), SamplingParams()).token
    )
    assert one(torch.zeros(9), SamplingParams(logprobs=0)).top == ()


def test_an_answers_log_probabilities_are_transformers(tiny: tuple[Path, object]) -> None:
    prompt = [5, 9, 200, 31]
    kinds = [
        SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=4),
        SamplingParams(seed=2, max_tokens=12, ignore_eos=True, logprobs=4),
    ]
    with running(tiny[0]) as engine:
        answers = generate(engine, [prompt] * 2, kinds)
    for answer in answers:
        logits = oracle_logits(tiny[1], prompt + answer.tokens)[len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        choices = [choice for event in answer.events for choice in event.choices]
        assert [choice.token for choice in choices] == answer.tokens
        for choice, row in zip(choices, expected, strict=True):
            assert choice.logprob == pytest.approx(float(row[choice.token]), abs=1e-3)
            assert [value for _, value in choice.top] == pytest.approx(
                row.topk(4).values.tolist(), abs=1e-3
            )
