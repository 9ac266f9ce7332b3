"""Embeddings: the encoder computes what transformers computes, and pooling what the folder says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from simulators.encoders import MODULES, add_pooling, random_bert, random_minilm
from simulators.llamas import random_llama
from simulators.steps import random_tokens
from transformers import BertModel

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.embedder import Embedder
from enclave_worker.engine.errors import (
    ModelConfigError,
    ModelError,
    RequestInvalid,
    RequestTooLong,
)
from enclave_worker.engine.models.encoder import Encoder
from enclave_worker.engine.models.encoder_config import parse_encoder_config
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.pooling import Pooling
from enclave_worker.engine.models.weights import Weights

VALID: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def load(folder: Path) -> Encoder:
    read = ModelFolder.read(folder)
    with Weights(folder, torch.float32) as weights:
        return Encoder(read.encoder, weights, read.pooling)


def oracle_states(model: BertModel, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = model(torch.tensor([tokens])).last_hidden_state[0]
    return states


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    folder = tmp_path_factory.mktemp("bert")
    return folder, random_bert(folder)


def test_hidden_states_equal_transformers_in_any_batch(bert: tuple[Path, BertModel]) -> None:
    folder, oracle = bert
    encoder = load(folder)
    texts = [random_tokens(n, encoder.config.vocab_size, seed=n) for n in (1, 128, 7, 31, 64, 2)]
    together = encoder.hidden(texts)
    for row, tokens in enumerate(texts):
        expected = oracle_states(oracle, tokens)
        assert (together[row, : len(tokens)] - expected).abs().max() < 1e-4
        assert (encoder.hidden([tokens])[0] - expected).abs().max() < 1e-4


def test_an_embedding_is_the_mean_of_its_own_tokens_scaled_to_length_one(
    bert: tuple[Path, BertModel],
) -> None:
    folder, oracle = bert
    encoder = load(folder)
    texts = [random_tokens(n, encoder.config.vocab_size, seed=n) for n in (5, 90, 17)]
    found = encoder.embed(texts)
    assert found.shape == (3, encoder.config.hidden)
    for row, tokens in enumerate(texts):
        mean = oracle_states(oracle, tokens).mean(0)
        assert (found[row] - mean / mean.norm()).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "modules", "expected"),
    [
        ({}, MODULES, Pooling("mean")),
        ({}, MODULES[:2], Pooling("mean", unit=False)),
        (
            {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
            MODULES,
            Pooling("first"),
        ),
        (
            {
                "pooling_mode_mean_tokens": False,
                "pooling_mode_lasttoken": True,
                "include_prompt": True,
            },
            MODULES,
            Pooling("last"),
        ),
    ],
)
def test_pooling_is_what_the_folder_says(
    settings: dict[str, Any], modules: list[Any], expected: Pooling, tmp_path: Path
) -> None:
    random_bert(tmp_path)
    add_pooling(tmp_path, modules, **settings)
    assert ModelFolder.read(tmp_path).pooling == expected


def test_each_kind_of_pooling_takes_its_own_rows() -> None:
    hidden = torch.tensor([[3.0, 4.0], [0.0, 2.0], [6.0, 0.0]])
    assert Pooling("first", unit=False)(hidden).tolist() == [3.0, 4.0]
    assert Pooling("last", unit=False)(hidden).tolist() == [6.0, 0.0]
    assert Pooling("mean", unit=False)(hidden).tolist() == [3.0, 2.0]
    assert Pooling("first")(hidden).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("settings", "modules", "words"),
    [
        ({"pooling_mode_max_tokens": True}, MODULES, "pooling_mode_max_tokens: found True"),
        ({"pooling_mode_cls_token": True}, MODULES, r"found kinds \['mean', 'first'\]"),
        ({"pooling_mode_mean_tokens": False}, MODULES, r"found kinds \[\]"),
        ({"word_embedding_dimension": 49}, MODULES, "found 49, expected 48"),
        ({"include_prompt": False}, MODULES, "include_prompt: found False"),
        ({"pooling_mode_new": True}, MODULES, "unknown key 'pooling_mode_new'"),
        ({}, MODULES[:1], "modules.json: found steps"),
        ({}, [*MODULES, {"type": "sentence_transformers.models.Dense"}], "found steps .*Dense"),
        ({}, [MODULES[0], {"type": "code.Mine"}], "modules.json: found steps .*code.Mine"),
    ],
)
def test_other_ways_to_pool_are_refused(
    settings: dict[str, Any], modules: list[Any], words: str, tmp_path: Path
) -> None:
    random_bert(tmp_path)
    add_pooling(tmp_path, modules, **settings)
    with pytest.raises(ModelConfigError, match=words):
        ModelFolder.read(tmp_path)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({}, 128), ({"max_seq_length": None}, 128), ({"max_seq_length": 40}, 40),
     ({"max_seq_length": 999, "do_lower_case": False}, 128)],
)  # fmt: skip
def test_texts_are_as_long_as_the_folder_and_the_model_allow(
    limit: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    random_bert(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(limit))
    assert ModelFolder.read(tmp_path).longest == expected
    embedder = Embedder(tmp_path, EngineConfig(dtype="float32"))
    assert embedder.max_len == expected
    embedder.start()
    embedder.embed([[1] * expected])
    with pytest.raises(RequestTooLong, match=f"expected <= {expected}"):
        embedder.embed([[1] * (expected + 1)])


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"max_seq_length": 0}, "max_seq_length: found 0"),
        ({"max_seq_length": "256"}, "max_seq_length: found '256'"),
        ({"do_lower_case": True}, "do_lower_case: found True"),
        ({"truncate": "left"}, "sentence_bert_config.json: found unknown key 'truncate'"),
    ],
)
def test_what_else_would_change_a_text_is_refused(
    limit: dict[str, Any], words: str, tmp_path: Path
) -> None:
    random_bert(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(limit))
    with pytest.raises(ModelConfigError, match=words):
        ModelFolder.read(tmp_path)


def test_a_tokenizer_that_pads_and_truncates_does_neither_here(tmp_path: Path) -> None:
    random_minilm(tmp_path)
    embedder = Embedder(tmp_path, EngineConfig(dtype="float32"))
    short, long = embedder.encode("a"), embedder.encode("a b " * 20)
    assert len(short) == 3  # the text's one and those around it
    assert len(long) > 16
    assert (short[0], short[-1]) == (long[0], long[-1])


def test_a_folder_says_what_its_worker_serves(tmp_path: Path) -> None:
    random_llama(tmp_path)
    assert ModelFolder.read(tmp_path).serves == "text"
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    assert ModelFolder.read(tmp_path).longest > 8  # of no meaning to a model of text
    add_pooling(tmp_path, word_embedding_dimension=64)
    described = ModelFolder.read(tmp_path)
    assert (described.serves, described.longest) == ("embeddings", 8)


def test_a_folder_that_says_half_of_it_is_refused(tmp_path: Path) -> None:
    random_bert(tmp_path)
    add_pooling(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: No such file"):
        ModelFolder.read(tmp_path)


def test_a_folder_knows_whether_it_is_a_decoder_or_an_encoder(
    bert: tuple[Path, BertModel], tmp_path: Path
) -> None:
    random_llama(tmp_path)
    decoder, encoder = ModelFolder.read(tmp_path), ModelFolder.read(bert[0])
    assert decoder.decoder is decoder.config
    assert encoder.encoder is encoder.config
    assert (decoder.pooling, encoder.pooling) == (Pooling("last"), Pooling("mean"))
    with pytest.raises(ModelError, match="found an encoder"):
        _ = encoder.decoder
    with pytest.raises(ModelError, match="found a decoder"):
        _ = decoder.encoder


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        ([[1, 2], []], RequestInvalid, "found an empty text"),
        ([], RequestInvalid, "found an empty text"),
        ([[1] * 129], RequestTooLong, "found 129 tokens, expected <= 128"),
        ([[1, 384]], RequestInvalid, "ids below 384"),
        ([[-1]], RequestInvalid, "ids below 384"),
    ],
)
def test_texts_that_cannot_be_embedded_are_refused(
    texts: list[list[int]], error: type[Exception], words: str, bert: tuple[Path, BertModel]
) -> None:
    with pytest.raises(error, match=words):
        load(bert[0]).embed(texts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act: found 'gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder: found True"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"num_attention_heads": 5}, "a divisor of 32"),
        ({"model_type": "roberta"}, "model_type: found 'roberta', expected 'bert'"),
        ({"architectures": ["BertForMaskedLM"]}, "architectures"),
        ({"rotary": True}, "unknown key 'rotary'"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
    ],
)
def test_encoders_that_would_compute_something_else_are_refused(
    change: dict[str, Any], words: str
) -> None:
    parse_encoder_config(VALID)
    with pytest.raises(ModelConfigError, match=words):
        parse_encoder_config(VALID | change)
