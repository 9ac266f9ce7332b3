"""`model inspect` and `model verify`: what a folder holds and needs, and what is wrong with it."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.encoders import add_pooling, random_bert, random_minilm
from simulators.llamas import random_llama

from enclave_worker.engine.config import EngineConfig
from ops.footprint import footprint
from ops.model_cli import register
from ops.model_import import import_model
from ops.model_inspect import inspect
from ops.model_manifest import digest
from wire.errors import ConfigError

WEIGHTS = "model.safetensors"
NORM = "model.layers.0.input_layernorm.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["model", *words])
    return int(arguments.run(arguments))


def sealed_again(folder: Path) -> None:
    """Write the digests of what is there now: a manifest proves nothing about its maker."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: digest(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))


# ---------------------------------------------------------------- inspect


def test_inspect_counts_parameters_and_memory(imported: Path) -> None:
    found = inspect(imported)
    stored = load_file(imported / WEIGHTS)
    assert found.parameters == sum(tensor.numel() for tensor in stored.values())
    assert found.weight_bytes == 2 * found.parameters
    assert found.kv_bytes() == 2 * 2 * 2 * 8 * 2  # k and v, layers, key heads, width, bytes
    more = inspect(imported, 2 * found.pages).memory
    assert more.total - found.memory.total == found.pages * 16 * found.kv_bytes()


def test_inspect_is_for_people_and_for_programs(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", str(imported), "--pages", "100") == 0
    shown = capsys.readouterr().out
    for part in (
        "tiny-model",
        "llama decoder, 2 layers of 32, 4 heads on 2 key heads of 8",
        "context 2048 tokens",
        "KV cache 128 bytes a token",
        "with 100 pages of 16",
    ):
        assert part in " ".join(shown.split())
    assert run("inspect", str(imported), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["mode"] == "bfloat16"
    assert document["kv_bytes_per_token"] == 128
    assert document["config"]["layers"] == 2
    for name, expected in document["files"].items():
        assert f"  {name}\n    {expected}\n" in shown


@pytest.mark.parametrize("pages", ["0", "-3"])
def test_a_pool_of_no_pages_is_refused(pages: str, imported: Path) -> None:
    with pytest.raises(ConfigError, match="--pages: found"):
        run("inspect", str(imported), "--pages", pages)


def test_an_int8_folder_that_came_so_says_that_there_are_no_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_model(str(folder), tmp_path / "a", quantise="w8a8", smoothing=0.5)
    import_model(str(tmp_path / "a"), tmp_path / "b")
    first, second = inspect(tmp_path / "a"), inspect(tmp_path / "b")
    assert (first.mode, second.mode) == ("w8a8", "w8a8")
    assert first.parameters == second.parameters == inspect_parameters(folder)
    assert run("inspect", str(tmp_path / "b")) == 0
    assert "no figures" in capsys.readouterr().out


def inspect_parameters(folder: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())


def test_an_encoder_is_inspected_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_minilm(tmp_path / "bert")
    manifest = import_model(str(tmp_path / "bert"), tmp_path / "out")
    own = {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"}
    assert own <= set(manifest.files)
    assert run("verify", str(tmp_path / "out")) == 0
    assert run("inspect", str(tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "bert encoder, 3 layers of 48, 4 heads" in shown
    assert "embeddings of 48 numbers, the mean of all tokens at length 1" in shown
    assert "context       40 tokens" in shown
    assert "KV cache" not in shown
    (tmp_path / "out" / "1_Pooling" / "config.json").write_text("{}")
    assert run("verify", str(tmp_path / "out")) == 2
    (tmp_path / "out" / "1_Pooling" / "config.json").write_bytes(
        (tmp_path / "bert" / "1_Pooling" / "config.json").read_bytes()
    )
    assert run("verify", str(tmp_path / "out")) == 0
    (tmp_path / "out" / "1_Pooling" / "extra.json").write_text("{}")
    assert run("verify", str(tmp_path / "out")) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_takes_memory_in_float32_however_it_is_stored(
    dtype: str, tmp_path: Path
) -> None:
    random_bert(tmp_path / "bert")
    import_model(str(tmp_path / "bert"), tmp_path / "out", dtype=dtype)
    found = inspect(tmp_path / "out")
    largest = max(tensor.count for tensor in found.tensors)
    assert found.memory.weights == 4 * (found.parameters + largest)
    assert found.memory.cache == 0
    assert footprint(tmp_path / "out", EngineConfig(dtype="bfloat16")) == found.memory
    assert found.document()["serves"] == "embeddings"
    assert found.mode == "float32"


def test_an_encoder_whose_weights_are_not_its_own_is_no_model(tmp_path: Path) -> None:
    random_bert(tmp_path / "bert")
    import_model(str(tmp_path / "bert"), tmp_path / "out")
    for folder in ("bert", "out"):
        path = tmp_path / folder / WEIGHTS
        tensors = load_file(path)
        del tensors["encoder.layer.1.output.dense.bias"]
        save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        import_model(str(tmp_path / "bert"), tmp_path / "again")
    assert not (tmp_path / "again").exists()
    sealed_again(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        run("verify", str(tmp_path / "out"))


def test_a_decoder_that_is_described_as_embedding_is_shown_so(tmp_path: Path) -> None:
    random_llama(tmp_path / "llama")
    assert "serves        text" in shown_of(tmp_path, "text")
    add_pooling(
        tmp_path / "llama",
        word_embedding_dimension=64,
        pooling_mode_mean_tokens=False,
        pooling_mode_lasttoken=True,
    )
    assert "embeddings of 64 numbers, the last token at length 1" in shown_of(tmp_path, "embeds")


def shown_of(folder: Path, name: str) -> str:
    """What inspect says of the imported model."""
    import_model(str(folder / "llama"), folder / name)
    return "\n".join(inspect(folder / name).lines())


# ---------------------------------------------------------------- verify


def test_verify_says_what_differs_and_ends_with_two(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (imported / "tokenizer.json").write_text("{}")
    assert run("verify", str(imported), "--json") == 2
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["ok"], document["exit_code"]) == (False, 2)
    assert document["error"]["code"] == "model_changed"
    assert "tokenizer.json: found SHA-256" in document["error"]["message"]
    assert "import the model again" in shown.err


def test_verify_lists_the_files_for_programs(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", str(imported), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"][WEIGHTS] == digest(imported / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({NORM: None}, f"{NORM}: found no such tensor, expected \\[32\\]"),
        (
            {NORM: torch.ones(31)},
            f"{NORM}: found B?F\\d+ \\[31\\], expected F32 or BF16 or F16 \\[32",
        ),
        ({DOWN: torch.ones(32, 64, dtype=torch.int8)}, f"{DOWN}: found I8 \\[32, 64\\], expected"),
        ({"a.bias": torch.ones(2)}, "a.bias: found a tensor config.json does not account for"),
    ],
    ids=["missing", "shape", "kind", "unknown"],
)
def test_tensors_that_are_not_the_models_are_refused_by_name(
    change: dict[str, Any], words: str, imported: Path, tmp_path: Path
) -> None:
    tensors = load_file(imported / WEIGHTS) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, imported / WEIGHTS, metadata={"format": "pt"})
    sealed_again(imported)
    with pytest.raises(ConfigError, match=words):
        run("verify", str(imported))
    with pytest.raises(ConfigError, match=words):  # nor would an import take it
        import_model(str(imported), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_head_stored_beside_a_tied_embedding_is_no_fault(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    import_model(str(folder), tmp_path / "out")
    assert run("verify", str(tmp_path / "out")) == 0


def test_weights_cut_short_and_sealed_again_are_refused(imported: Path) -> None:
    whole = (imported / WEIGHTS).read_bytes()
    (imported / WEIGHTS).write_bytes(whole[:-10])
    sealed_again(imported)
    with pytest.raises(ConfigError, match=r"bytes that are not whole safetensors") as caught:
        run("verify", str(imported))
    assert "fetch the file again" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architectures: found .'MambaForCausalLM'"),
        ({"sliding_window": 5}, "sliding_window: found 5, expected None"),
        ({"magic": 1}, "found unknown key 'magic'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ],
    ids=["architecture", "window", "unknown", "quantisation"],
)
def test_a_configuration_the_worker_would_refuse_is_refused(
    change: dict[str, Any], words: str, imported: Path
) -> None:
    path = imported / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    sealed_again(imported)
    with pytest.raises(ConfigError, match=words):
        run("verify", str(imported))
    with pytest.raises(ConfigError, match=words):
        inspect(imported)


def test_a_manifest_of_another_kind_of_model_is_refused(imported: Path) -> None:
    path = imported / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "encoder"}))
    with pytest.raises(ConfigError, match="found kind 'encoder', expected 'decoder'"):
        inspect(imported)


@pytest.mark.parametrize("shape", ["qwen2", "qwen3-untied-biases", "biases", "gqa-untied"])
@pytest.mark.parametrize("quantise", ["none", "w8a8"])
def test_every_architecture_passes_its_own_check(shape: str, quantise: str, tmp_path: Path) -> None:
    random_llama(tmp_path / "source", shape)
    import_model(str(tmp_path / "source"), tmp_path / "out", quantise=quantise)
    assert run("verify", str(tmp_path / "out")) == 0
    shutil.rmtree(tmp_path / "source")
