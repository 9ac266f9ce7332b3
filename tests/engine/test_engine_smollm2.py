"""The real demo model: logits and greedy tokens equal transformers' on the same weights."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from simulators.generation import Answer, generate, running
from simulators.llamas import shared_folder
from simulators.steps import Pages, greedy, random_tokens, read, torch_decoder
from transformers import AutoModelForCausalLM

from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.templates import ChatTemplate
from enclave_worker.engine.tokenizer import Tokenizer
from ops.model_cache import ensure

STEPS = 128
TEXTS, TEXT_STEPS = 4, 32
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
    "What is the boiling point of water in Fahrenheit?",
    "Rewrite this politely: send me the file now.",
    "SELECT name FROM users WHERE",
    "Give three synonyms for 'quick'.",
    "Explain recursion with an example.",
    "What is the largest ocean?",
    "Write a limerick about a programmer.",
    "How many legs do spiders have?",
    "Convert 5 kilometres to miles.",
    "Pourquoi le ciel est-il bleu ?",
    "List the ingredients of bread.",
    "What year did the Berlin Wall fall?",
    "Draft a short e-mail asking for a day off.",
    "x = [1, 2, 3]\nprint(sum(x))",
    "Name a mammal that lays eggs.",
    "What is a prime number?",
    "Describe the taste of a lemon.",
    "Who painted the Mona Lisa?",
    "Finish the sentence: once upon a time",
    "What are the three states of matter?",
    "Give an example of a metaphor.",
    "Is 91 prime?",
    "How does a vaccine work?",
    "Write a slogan for a bakery.",
    "\u4f60\u597d\uff0c\u4f60\u662f\u8c01\uff1f",
    "What is the square root of 144?",
    "Tell me a fact about octopuses.",
    "Why do leaves change colour?",
    "Suggest a name for a small black dog.",
    "?",
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("smollm2")]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in float32, imported from its package."""
    return ensure("smollm2", shared_folder(tmp_path_factory) / "models", dtype="float32")


@pytest.fixture(scope="module")
def prompts(smollm2: Path) -> list[list[int]]:
    """The questions as the model's own template asks them."""
    folder = ModelFolder.read(smollm2)
    assert folder.template is not None
    template = ChatTemplate(folder.template, folder.special)
    tokenizer = Tokenizer(folder.tokenizer_json)
    asked = [template.render([{"role": "user", "content": text}]) for text in QUESTIONS]
    return [tokenizer.encode(text) for text in asked]


@pytest.fixture(scope="module")
def greedy_tokens(smollm2: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Fifty greedy answers, made in one batch."""
    return greedy(torch_decoder(smollm2, pages=768, max_len=1024), prompts, STEPS)


@pytest.fixture(scope="module")
def answers(smollm2: Path, prompts: list[list[int]]) -> list[Answer]:
    """A few of them from a running engine, as text."""
    with running(smollm2) as engine:
        params = SamplingParams(temperature=0, max_tokens=TEXT_STEPS, ignore_eos=True)
        return generate(engine, prompts[:TEXTS], params)


@pytest.fixture(scope="module")
def oracle(smollm2: Path) -> Iterator[torch.nn.Module]:
    """Transformers' model over the imported folder."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    yield model
    del model
    gc.collect()


def test_greedy_tokens_equal_transformers_over_128_steps_for_50_prompts(
    greedy_tokens: list[list[int]], prompts: list[list[int]], oracle: torch.nn.Module
) -> None:
    """One pass over prompt + answer: each token must be the arg-max after those before it.

    By induction over the steps that is greedy decoding, without decoding twice.
    """
    assert len(greedy_tokens) == len(prompts) == 50
    for prompt, answer in zip(prompts, greedy_tokens, strict=True):
        assert len(answer) == STEPS
        with torch.inference_mode():
            whole = torch.tensor([prompt + answer[:-1]])
            logits = oracle(whole, logits_to_keep=STEPS).logits[0]
        assert answer == logits.argmax(-1).tolist()


def test_a_running_engine_answers_with_the_same_tokens(
    answers: list[Answer], greedy_tokens: list[list[int]]
) -> None:
    for answer, expected in zip(answers, greedy_tokens, strict=False):
        assert answer.tokens == expected[:TEXT_STEPS]


def test_logits_equal_transformers(smollm2: Path, oracle: torch.nn.Module) -> None:
    model = torch_decoder(smollm2, max_len=1024)
    text = Pages().text(random_tokens(200, 49152, seed=3))
    with torch.inference_mode():
        expected = oracle(torch.tensor([text.tokens])).logits[0]
    found = read(model, text, chunk=67)
    assert (found - expected).abs().max() < 1e-3


def test_text_is_what_the_tokenizer_makes_of_the_tokens(
    answers: list[Answer], smollm2: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for answer in answers:
        assert answer.text == tokenizer.decode(answer.tokens, skip_special_tokens=True)


def test_the_model_knows_the_capital_of_france(answers: list[Answer]) -> None:
    assert "Paris" in answers[0].text
