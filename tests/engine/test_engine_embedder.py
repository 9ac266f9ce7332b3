"""Texts as vectors, whatever makes them: an encoder, or a decoder on any back end."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from simulators.encoders import add_pooling, random_bert
from simulators.llamas import random_llama
from simulators.steps import random_tokens
from transformers import BertModel, LlamaForCausalLM

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.embedder import Embedder
from enclave_worker.engine.errors import EngineStopped, RequestInvalid, RequestTooLong

LENGTHS = (1, 40, 7, 33, 16, 2, 64)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    folder = tmp_path_factory.mktemp("bert")
    return folder, random_bert(folder)


@pytest.fixture(scope="module", params=["mean_tokens", "lasttoken"])
def llama(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LlamaForCausalLM, str]:
    folder = tmp_path_factory.mktemp("llama")
    model = random_llama(folder)
    modes = {f"pooling_mode_{m}": m == request.param for m in ("mean_tokens", "lasttoken")}
    add_pooling(folder, **modes, word_embedding_dimension=64)
    return folder, model, request.param


@pytest.fixture
def embedder(bert: tuple[Path, BertModel]) -> Embedder:
    made = Embedder(bert[0], EngineConfig(step_budget=100, max_batch=8))
    made.start()
    return made


def texts(vocab: int) -> list[list[int]]:
    return [random_tokens(length, vocab, seed=length) for length in LENGTHS]


def test_an_encoders_vectors_are_the_mean_of_its_states_in_the_order_asked(
    bert: tuple[Path, BertModel], embedder: Embedder
) -> None:
    asked = texts(bert[1].config.vocab_size)
    found = embedder.embed(asked)
    for row, tokens in enumerate(asked):
        with torch.inference_mode():
            states = bert[1](torch.tensor([tokens])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(states.mean(0), dim=0)
        assert (found[row] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("budget", [16, 512])
def test_a_decoders_vectors_are_pooled_from_its_last_states(
    llama: tuple[Path, LlamaForCausalLM, str], budget: int
) -> None:
    """Also where a text is longer than a step."""
    folder, oracle, kind = llama
    config = EngineConfig(dtype="float32", step_budget=budget, max_batch=8, kv_pages=16)
    embedder = Embedder(folder, config)
    embedder.start()
    asked = texts(oracle.config.vocab_size)
    found = embedder.embed(asked)
    for row, tokens in enumerate(asked):
        with torch.inference_mode():
            states = oracle.model(torch.tensor([tokens])).last_hidden_state[0]
        pooled = states.mean(0) if kind == "mean_tokens" else states[-1]
        expected = torch.nn.functional.normalize(pooled, dim=0)
        assert (found[row] - expected).abs().max() < 1e-4


def test_a_decoders_pages_are_clean_after_each_text(
    llama: tuple[Path, LlamaForCausalLM, str],
) -> None:
    embedder = Embedder(llama[0], EngineConfig(dtype="bfloat16", kv_pages=8))
    embedder.start()
    embedder.embed(texts(100))
    assert embedder._model is not None
    assert all(embedder._model.is_clean(page) for page in range(8))


def test_a_text_has_the_same_vector_beside_any_others(embedder: Embedder) -> None:
    asked = texts(90)
    together = embedder.embed(asked)
    for row, tokens in enumerate(asked):
        assert (embedder.embed([tokens])[0] - together[row]).abs().max() < 1e-5


def test_threads_that_ask_at_once_get_their_own(embedder: Embedder) -> None:
    asked = texts(90) * 4
    alone = embedder.embed(asked)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: embedder.embed([text])[0], asked))
    assert (torch.stack(found) - alone).abs().max() < 1e-5


def test_what_cannot_be_embedded_is_refused_before_anything_is_computed(
    embedder: Embedder,
) -> None:
    for wrong in ([], [[]], [[1], []], [[-1]], [[10**9]], [[True]]):
        with pytest.raises(RequestInvalid):
            embedder.embed(wrong)
    with pytest.raises(RequestTooLong, match=f"expected <= {embedder.max_len}"):
        embedder.embed([[1] * (embedder.max_len + 1)])


@pytest.mark.parametrize("budget", [16, 80, 512])
def test_batches_hold_every_text_once_and_no_more_than_the_budget(
    budget: int, bert: tuple[Path, BertModel]
) -> None:
    embedder = Embedder(bert[0], EngineConfig(step_budget=budget, max_batch=8))
    asked = texts(90)
    batches = embedder.batches(asked)
    assert sorted(index for batch in batches for index in batch) == [*range(len(asked))]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(asked[i]) for i in batch) <= budget
    assert len(batches) == {16: 6, 80: 3, 512: 1}[budget]


def test_before_it_is_started_it_says_so(bert: tuple[Path, BertModel]) -> None:
    with pytest.raises(EngineStopped):
        Embedder(bert[0], EngineConfig()).embed([[1]])
