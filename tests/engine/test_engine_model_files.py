"""Model folders: read strictly, refused by name, never trusted to run anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.models import tiny_llama

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import ModelConfigError, ModelError
from enclave_worker.engine.models.config import parse_config
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.weights import INDEX, SINGLE, Weights

VALID: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_defaults_are_llamas() -> None:
    config = parse_config(VALID)
    assert (config.kv_heads, config.head_dim, config.norm_eps) == (4, 8, 1e-6)
    assert (config.max_positions, config.tied, config.rope.theta) == (2048, False, 10_000.0)


def test_both_spellings_of_rope_are_read_alike() -> None:
    old = parse_config(VALID | {"rope_theta": 5e5, "rope_scaling": LLAMA3})
    new = parse_config(VALID | {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}})
    assert old == new
    assert old.rope.kind == "llama3"
    assert old.rope.original_context == 8192


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"architectures": ["LlamaForCausalLM", "Other"]}, "architectures"),
        ({"model_type": "mistral"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"residual_multiplier": 0.22}, "residual_multiplier"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"qk_norm": True}, "unknown key 'qk_norm'"),
        ({"final_logit_softcapping": 30.0}, "unknown key 'final_logit_softcapping'"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "unknown key 'auto_map'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: found type 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "found type 'dynamic'"),
        ({"rope_scaling": LLAMA3 | {"beta_fast": 32}}, "found key 'beta_fast'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"factor": 0}}, "factor"),
        ({"rope_scaling": "linear"}, "rope_scaling: found str"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "expected a divisor of 4"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
    ],
)
def test_configurations_that_would_compute_something_else_are_refused(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelConfigError, match=words):
        parse_config(VALID | change)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "model")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "found no config.json, expected a Hugging Face"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: found no valid JSON"),
        (
            lambda f: (f / "config.json").write_text("[" * 99999),
            "config.json: found no valid JSON$",
        ),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: found list"),
        (lambda f: (f / "config.json").write_bytes(b"\xff{}"), "config.json: found bytes that"),
        (lambda f: (f / "config.json").write_text(" " * 2**20 + "{}"), "config.json: found over"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: No such file"),
        (
            lambda f: edit(f / "generation_config.json", eos_token_id=10**6),
            "eos_token_id: found 1000000",
        ),
        (lambda f: edit(f / "generation_config.json", eos_token_id=["2"]), "eos_token_id"),
    ],
)
def test_broken_folders_are_refused_by_file(
    spoil: Callable[[Path], object], words: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        ModelFolder.read(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found no folder at '.*nowhere'"):
        Engine(tmp_path / "nowhere", EngineConfig())


def test_eos_may_be_one_or_several(folder: Path) -> None:
    assert ModelFolder.read(folder).eos == {2}
    edit(folder / "generation_config.json", eos_token_id=[0, 2])
    assert ModelFolder.read(folder).eos == {0, 2}
    (folder / "generation_config.json").unlink()
    assert ModelFolder.read(folder).eos == {2}  # config.json's own


def start(folder: Path) -> None:
    engine = Engine(folder, EngineConfig(dtype="float32", kv_pages=8))
    try:
        engine.start()
    finally:
        engine.stop()


def respell(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "found no tensor 'model.norm.weight'"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(31)}),
            r"model.norm.weight: found shape \(31,\), expected \(32,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            "model.norm.weight: found dtype torch.int8",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
            "found 1 tensors config.json does not account for, first '.*q_proj.bias'",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], words: str, folder: Path
) -> None:
    respell(folder, change)
    with pytest.raises(ModelError, match=words):
        start(folder)


def test_a_redundant_head_and_stored_frequencies_are_no_reason_to_refuse(folder: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    respell(folder, add)
    start(folder)


def shard(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    half = len(names) // 2
    index: dict[str, Any] = {"weight_map": {}}
    for number, part in enumerate((names[:half], names[half:])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index["weight_map"] |= dict.fromkeys(part, file)
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    return index


def test_shards_hold_the_same_tensors(folder: Path) -> None:
    whole = load_file(folder / SINGLE)
    shard(folder)
    with Weights(folder, torch.float32) as weights:
        for name, tensor in whole.items():
            assert torch.equal(weights.take(name, *tensor.shape), tensor)
        weights.finish()


@pytest.mark.parametrize(
    "name", ["../model-0.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors"]
)
def test_shard_names_outside_the_folder_are_refused(name: str, folder: Path) -> None:
    index = shard(folder)
    index["weight_map"]["model.norm.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="found shard name"):
        start(folder)


def test_an_index_and_its_shards_must_agree(folder: Path) -> None:
    index = shard(folder)
    index["weight_map"]["model.extra.weight"] = "model-0.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names 'model.extra.weight', found in no shard"):
        start(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"found no model.safetensors"):
        start(folder)


def test_damaged_weights_are_refused_with_their_name(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"model.safetensors: SafetensorError"):
        start(folder)


def test_weights_do_not_follow_the_file_after_loading(folder: Path) -> None:
    """The file is measured before it is loaded; what it says later must not matter."""
    with Weights(folder, torch.float32) as weights:
        taken = weights.take("model.embed_tokens.weight", 384, 32)
    before = taken.clone()
    with (folder / SINGLE).open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * 20_000)
    assert torch.equal(taken, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16"}, "found 'float16', expected float32 or bfloat16"),
        ({"page_size": 32}, "page_size: found 32, expected 16"),
        ({"threads": 0}, "threads: found 0"),
        ({"max_batch": True}, "max_batch: found True"),
        ({"max_batch": 600}, "step_budget: found 512, expected at least max_batch"),
        ({"gpu": 1}, "unknown key 'gpu'"),
    ],
)
def test_engine_sizes_are_checked_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EngineConfig.from_dict(change)
