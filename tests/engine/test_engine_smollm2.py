"""The real demo model: logits and greedy tokens equal transformers' on the same weights."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from simulators.generation import Answer, generate, running
from simulators.llamas import shared_folder
from transformers import AutoModelForCausalLM

from enclave_worker.engine.params import SamplingParams
from ops.model_cache import ensure

STEPS = 64
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child in two sentences.",
    "List three prime numbers above 100.",
    "def fibonacci(n):",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "What is 12 + 30?",
    "Return a JSON object with the keys name and age.",
    "Summarise the plot of Romeo and Juliet.",
    "Who wrote 'The Origin of Species'?",
    "Name the planets of the solar system in order.",
    "Schreibe einen Satz auf Deutsch.",
    "Describe a cat \U0001f431 in one word.",
    "How do I reverse a list in Python?",
    "What does HTTP stand for?",
    "Tell me a short story about a lighthouse keeper and a storm at night.",
    "Compare tea and coffee.",
    "hi",
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("smollm2")]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in float32, imported from its package."""
    return ensure("smollm2", shared_folder(tmp_path_factory) / "models", dtype="float32")


@pytest.fixture(scope="module")
def answers(smollm2: Path) -> list[Answer]:
    """Twenty greedy answers, made in one batch."""
    with running(smollm2, kv_pages=512) as engine:
        assert engine.template is not None
        prompts = [
            engine.tokenizer.encode(engine.template.render([{"role": "user", "content": text}]))
            for text in QUESTIONS
        ]
        params = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)
        return generate(engine, prompts, params)


@pytest.fixture(scope="module")
def oracle(smollm2: Path) -> Iterator[torch.nn.Module]:
    """Transformers' model over the imported folder."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    yield model
    del model
    gc.collect()


def test_greedy_tokens_equal_transformers_over_64_steps_for_20_prompts(
    answers: list[Answer], oracle: torch.nn.Module
) -> None:
    """One pass over prompt + answer: each token must be the arg-max after those before it.

    By induction over the steps that is greedy decoding, without decoding twice.
    """
    assert len(answers) == 20
    for answer in answers:
        assert len(answer.tokens) == STEPS
        whole = answer.prompt + answer.tokens
        with torch.inference_mode():
            logits = oracle(torch.tensor([whole[:-1]])).logits[0]
        expected = logits[len(answer.prompt) - 1 :].argmax(-1).tolist()
        assert answer.tokens == expected


def test_logits_equal_transformers(smollm2: Path, oracle: torch.nn.Module) -> None:
    from enclave_worker.engine.config import EngineConfig
    from enclave_worker.engine.models.folder import ModelFolder
    from enclave_worker.engine.plan import Work, plan_step
    from enclave_worker.engine.runner import Runner
    from enclave_worker.engine.sequence import GenerationRequest, Sequence

    config = EngineConfig(dtype="float32", kv_pages=64)
    with torch.inference_mode():
        runner = Runner(ModelFolder.read(smollm2), config, 1024)
        generator = torch.Generator().manual_seed(3)
        tokens = torch.randint(17, 49152, (200,), generator=generator).tolist()
        expected = oracle(torch.tensor([tokens])).logits[0]
        sequence = Sequence(GenerationRequest("s", tokens), 0, tokens, 200, 201)
        sequence.pages = runner.pool.take(13)
        for position in (31, 100, 164, 199):  # every step ends where logits are wanted
            visible = Sequence(sequence.request, 0, tokens[: position + 1], 200, 201)
            visible.pages, visible.computed = sequence.pages, sequence.computed
            plan = plan_step([Work(visible, visible.pending)])
            values = runner.model.forward(plan, whole=True).values
            assert values is not None
            found = values[0]
            sequence.computed = position + 1
            assert (found - expected[position]).abs().max() < 1e-3


def test_text_is_what_the_tokenizer_makes_of_the_tokens(
    answers: list[Answer], smollm2: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for answer in answers:
        assert answer.text == tokenizer.decode(answer.tokens, skip_special_tokens=True)


def test_the_model_knows_the_capital_of_france(answers: list[Answer]) -> None:
    assert "Paris" in answers[0].text
