"""Model folders: read strictly, refused by name, never trusted to run anything."""

import json
import os
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
from enclave_worker.engine.models.quantisation import W8A8
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
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
QWEN = VALID | {"num_key_value_heads": 2, "max_position_embeddings": 4096, "head_dim": 8}
QWEN2 = QWEN | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = QWEN | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


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
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "original_max_position_embed"),
        ({"rope_scaling": YARN | {"beta_fast": 64}}, "rope_scaling: found unknown key 'beta_fast'"),
        ({"rope_scaling": YARN | {"attention_factor": 2.0}}, "unknown key 'attention_factor'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "type: found 'dynamic'"),
        ({"rope_scaling": {"rope_type": ["linear"], "factor": 4.0}}, r"rope_type: found \['linear"),
        ({"rope_scaling": LLAMA3 | {"beta_fast": 32}}, "found unknown key 'beta_fast'"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": None}}, "low_freq_factor: found None"),
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


def test_each_architecture_has_its_own_biases_and_norms() -> None:
    def parts(raw: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
        config = parse_config(raw)
        return config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm

    assert parts(VALID) == (False, False, False, False)
    assert parts(VALID | {"attention_bias": True, "mlp_bias": True}) == (True, True, True, False)
    assert parts(QWEN2) == (True, False, False, False)
    assert parts(QWEN3) == (False, False, False, True)
    assert parts(QWEN3 | {"attention_bias": True}) == (True, True, False, True)


def test_a_window_that_is_switched_off_is_no_reason_to_refuse() -> None:
    window = {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28}
    for raw in (QWEN2, QWEN3):
        assert parse_config(raw | window) == parse_config(raw)
        layers = ["full_attention", "full_attention"]
        assert parse_config(raw | window | {"layer_types": layers}) == parse_config(raw)


def test_yarn_stretches_the_context_it_names() -> None:
    config = parse_config(QWEN2 | {"max_position_embeddings": 32768, "rope_scaling": YARN})
    assert (config.rope.kind, config.max_positions) == ("yarn", 131072)


@pytest.mark.parametrize(
    ("raw", "change", "words"),
    [
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window: found True"),
        (QWEN3, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (QWEN3, {"layer_types": ["full_attention"]}, "layer_types"),
        (QWEN2, {"attention_bias": False}, "unknown key 'attention_bias'"),
        (QWEN2, {"mlp_bias": False}, "unknown key 'mlp_bias'"),
        (QWEN2, {"num_key_value_heads": None}, "num_key_value_heads: found None"),
        (QWEN3, {"head_dim": None}, "head_dim: found None"),
        (QWEN3, {"max_position_embeddings": None}, "max_position_embeddings: found None"),
        (QWEN3, {"model_type": "qwen3_moe"}, "model_type: found 'qwen3_moe', expected 'qwen3'"),
        (QWEN3, {"architectures": [{"a": 1}]}, "architectures"),
        (VALID, {"max_window_layers": 2}, "unknown key 'max_window_layers'"),
    ],
)
def test_what_qwen_could_do_and_this_engine_does_not_is_refused(
    raw: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelConfigError, match=words):
        parse_config(raw | change)


def test_the_written_form_of_quantisation_is_read() -> None:
    assert not parse_config(VALID).quantised
    assert parse_config(VALID | {"quantization_config": dict(W8A8)}).quantised
    # As other writers spell it: nulls, and how the scales were found.
    noted = json.loads(json.dumps(W8A8)) | {"kv_cache_scheme": None, "version": "0.17"}
    noted["config_groups"]["group_0"]["output_activations"] = None
    noted["config_groups"]["group_0"]["weights"] |= {"observer": "minmax", "group_size": None}
    assert parse_config(VALID | {"quantization_config": noted}).quantised


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "pack-quantized"}, "quantization_config format: found 'pack-quantized'"),
        ({"quant_method": "gptq"}, "quant_method: found 'gptq'"),
        ({"ignore": []}, "ignore: found"),
        ({"ignore": ["lm_head", "model.layers.0.mlp.down_proj"]}, "ignore: found"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme: found"),
        ({"config_groups": {}}, "config_groups group_0: found None"),
        ({"config_groups": {"group_0": {}, "group_1": {}}}, "config_groups group_0"),
        ({"sparsity_config": {"format": "dense"}}, "sparsity_config: found"),
    ],
)
def test_other_forms_of_quantisation_are_refused_by_name(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelConfigError, match=words):
        parse_config(VALID | {"quantization_config": dict(W8A8) | change})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("weights", {"num_bits": 4}),
        ("weights", {"symmetric": False}),
        ("weights", {"symmetric": 1}),
        ("weights", {"strategy": "group", "group_size": 128}),
        ("weights", {"actorder": "weight"}),
        ("input_activations", {"dynamic": False}),
        ("input_activations", {"strategy": "tensor"}),
        ("input_activations", {"type": "float"}),
        ("output_activations", {"num_bits": 8}),
    ],
)
def test_other_ways_to_round_are_refused_by_name(part: str, change: dict[str, Any]) -> None:
    form = json.loads(json.dumps(W8A8))
    group = form["config_groups"]["group_0"]
    group[part] = group.get(part, {}) | change
    with pytest.raises(ModelConfigError, match=f"group_0 {part}"):
        parse_config(VALID | {"quantization_config": form})


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


def test_weight_files_are_never_mapped(folder: Path) -> None:
    """A mapped file is memory beside the copy made of it, and kills a reader where it shrinks."""
    with Weights(folder, torch.float32) as weights:
        weights.take("model.embed_tokens.weight", 384, 32)
        assert str(folder) not in Path("/proc/self/maps").read_text()


def test_a_file_cut_short_after_it_was_opened_is_refused(folder: Path) -> None:
    with Weights(folder, torch.float32) as weights:
        os.truncate(folder / SINGLE, 4096)
        with pytest.raises(ModelError, match="found a file cut short, expected 49152 B"):
            weights.take("model.embed_tokens.weight", 384, 32)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_stacked_tensors_are_each_in_its_place_and_in_the_dtype_asked_for(
    kind: torch.dtype, tmp_path: Path
) -> None:
    parts = {f"part{n}": torch.randn(n, 5).to(kind) for n in (3, 1, 4)}
    save_file(parts, tmp_path / SINGLE)
    with Weights(tmp_path, torch.bfloat16) as weights:
        rows = {"part4": 4, "part3": 3, "part1": 1}
        for dtype in (torch.bfloat16, torch.float32):
            expected = torch.cat([parts[name] for name in rows]).to(dtype)
            assert torch.equal(weights.stack(rows, 5, dtype=dtype), expected)
        with pytest.raises(ModelError, match=r"part3: found shape \(3, 5\), expected \(4, 5\)"):
            weights.stack(rows | {"part3": 4}, 5)
        weights.finish()


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
