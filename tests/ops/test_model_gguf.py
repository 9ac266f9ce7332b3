"""GGUF files: every architecture and every type give the tensors that were meant."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from simulators.gguf_blocks import k_quantised
from simulators.gguf_files import write_gguf
from simulators.llamas import random_llama
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from enclave_worker.engine.models.config import parse_config
from ops.model_gguf import GgufModel
from ops.model_import import import_model
from ops.model_tokenizer import build_tokenizer
from wire.errors import ConfigError

# Wide enough that rows are whole blocks of 256.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8}
PRE = {"llama": "gpt-2", "qwen2": "qwen2", "qwen3": "qwen2"}
SHAPE = {"llama": "gqa-untied", "qwen2": "qwen2", "qwen3": "qwen3"}
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K")


@pytest.mark.parametrize("architecture", SHAPE)
def test_a_float_gguf_of_each_architecture_gives_back_the_very_model(
    architecture: str, tmp_path: Path
) -> None:
    random_llama(tmp_path / "hf", SHAPE[architecture])
    path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", pre=PRE[architecture])
    import_model(str(path), tmp_path / "out", dtype="float32")
    before = load_file(tmp_path / "hf" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    configs = [json.loads((tmp_path / at / "config.json").read_text()) for at in ("hf", "out")]
    assert parse_config(configs[0]) == parse_config(configs[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_type_gives_what_transformers_makes_of_it(
    architecture: str, kind: str, tmp_path: Path
) -> None:
    model = random_llama(tmp_path / "hf", SHAPE[architecture], **WIDE)
    path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", kind)
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    ours = dict(GgufModel(path).tensors())
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= 1e-6 * theirs[name].abs().max(), name


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_give_what_their_bytes_stand_for(kind: str, tmp_path: Path) -> None:
    """Packed here after ggml's layout, unpacked by the library both importers lean on."""
    random_llama(tmp_path / "hf", "qwen2", **WIDE)
    path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", kind)
    wide = load_file(tmp_path / "hf" / "model.safetensors")
    for name, tensor in GgufModel(path).tensors():
        if tensor.ndim == 2:
            meant = torch.from_numpy(k_quantised(wide[name].numpy(), kind)[1])
            assert (tensor - meant).abs().max() <= 1e-6 * meant.abs().max(), name
            most = {"Q4_K": 0.15, "Q5_K": 0.08, "Q6_K": 0.05}[kind]
            assert (meant - wide[name]).norm() / wide[name].norm() < most  # a real quantisation
        else:
            assert torch.equal(tensor, wide[name]), name


@pytest.mark.parametrize(
    ("architecture", "shape", "words"),
    [
        ("qwen3", "qwen2", r"'blk\.0\.attn_k\.bias', which is not understood"),
        ("qwen2", "qwen3", r"'blk\.0\.attn_k_norm\.weight', which is not understood"),
        ("llama", "qwen2", r"'blk\.0\.attn_k\.bias', which is not understood"),
    ],
)
def test_tensors_of_another_architecture_are_refused(
    architecture: str, shape: str, words: str, tmp_path: Path
) -> None:
    random_llama(tmp_path / "hf", shape)
    path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", architecture=architecture)
    with pytest.raises(ConfigError, match=words):
        GgufModel(path)


def test_a_type_that_cannot_be_undone_is_refused(tmp_path: Path) -> None:
    random_llama(tmp_path / "hf", **WIDE)
    path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", "TQ1_0")
    with pytest.raises(ConfigError, match="found type TQ1_0, expected one of F32, F16"):
        list(GgufModel(path).tensors())


def test_metadata_of_another_architecture_is_refused(tmp_path: Path) -> None:
    random_llama(tmp_path / "hf", "qwen3")
    for key in ("qwen3.rope.scaling.factor", "qwen3.attention.sliding_window"):
        path = write_gguf(tmp_path / "hf", tmp_path / "x.gguf", extra={key: 4})
        with pytest.raises(ConfigError, match=f"found key '{key}', which is not understood"):
            GgufModel(path)


WORDS = (
    "the quick brown fox 12 345 don't DON'T caf\u00e9 e\u0301 \u4e2d\u6587 \U0001f600  x\n\n y\t"
)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Qwen2Tokenizer]:
    """(ours from a GGUF's metadata, transformers' from the same vocabulary and merges)."""
    folder = tmp_path_factory.mktemp("tokens")
    random_llama(folder, "qwen2")
    path = write_gguf(folder, folder / "x.gguf", pre="qwen2")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return build_tokenizer(GgufModel(path).metadata), Qwen2Tokenizer(model["vocab"], merges)


@given(text=st.text(max_size=60) | st.lists(st.sampled_from(WORDS.split(" "))).map(" ".join))
def test_qwens_tokenizer_encodes_as_transformers_does(
    text: str, qwen2: tuple[Tokenizer, Qwen2Tokenizer]
) -> None:
    ours, theirs = qwen2
    assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_blocks_are_as_long_as_the_format_says() -> None:
    values = np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32)
    for kind, size in (("Q4_K", 144), ("Q5_K", 176), ("Q6_K", 210)):
        assert k_quantised(values, kind)[0].shape == (3, 2 * size)
