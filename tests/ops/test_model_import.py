"""Importing a model: right numbers, right tokenizer, complete or absent, refused by name."""

import argparse
import json
import math
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.gguf_files import write_gguf
from simulators.llamas import random_llama
from simulators.models import tiny_llama
from transformers import LlamaForCausalLM

from enclave_worker.engine.models.folder import ModelFolder
from ops.model_cache import ensure
from ops.model_cli import register
from ops.model_import import import_model
from ops.model_manifest import read, verify
from wire.errors import AnchorholdError, ConfigError

WEIGHTS = "model.safetensors"
QUALITY = {"perplexity": 12.5, "divergence": 0.01, "agreement": 0.9}
FIGURES = {
    "text": "a text",
    "sha256": "0" * 64,
    "tokens": 3577,
    "window": 512,
    "modes": {"bfloat16": QUALITY, "w8a8": QUALITY},
}


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- numbers


def test_a_float_gguf_gives_back_the_very_weights(
    folder: Path, gguf_file: Path, tmp_path: Path
) -> None:
    import_model(str(gguf_file), tmp_path / "out", dtype="float32")
    expected, found = load_file(folder / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(("kind", "error"), [("Q8_0", 0.01), ("Q4_1", 0.15)])
def test_quantised_ggufs_are_undone(kind: str, error: float, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", hidden=64)
    source = write_gguf(folder, tmp_path / "tiny.gguf", kind)
    import_model(str(source), tmp_path / "out", dtype="float32")
    expected, found = load_file(folder / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < error, name


def test_the_configuration_survives_the_gguf(folder: Path, gguf_file: Path, tmp_path: Path) -> None:
    import_model(str(gguf_file), tmp_path / "out")
    before, after = ModelFolder.read(folder), ModelFolder.read(tmp_path / "out")
    assert after.config == before.config
    assert after.eos == before.eos
    assert after.template == before.template
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_transformers_reads_an_imported_folder(
    folder: Path, gguf_file: Path, tmp_path: Path
) -> None:
    import_model(str(gguf_file), tmp_path / "out", dtype="float32")
    tokens = torch.tensor([[5, 60, 7, 200, 9]])
    with torch.inference_mode():
        expected = LlamaForCausalLM.from_pretrained(folder)(tokens).logits
        found = LlamaForCausalLM.from_pretrained(tmp_path / "out")(tokens).logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)]
)
def test_folders_are_converted(dtype: str, kind: torch.dtype, folder: Path, tmp_path: Path) -> None:
    manifest = import_model(str(folder), tmp_path / "out", dtype=dtype)
    expected, found = load_file(folder / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert manifest.dtype == dtype
    assert manifest.name == "tiny-model"
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(kind))


def test_a_sharded_folder_becomes_one_file(tmp_path: Path) -> None:
    random_llama(tmp_path / "whole", "gqa-untied").save_pretrained(
        tmp_path / "sharded", max_shard_size="100KB"
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    import_model(str(tmp_path / "sharded"), tmp_path / "out", dtype="float32")
    expected, found = load_file(tmp_path / "whole" / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_equal_sources_give_equal_bytes(gguf_file: Path, tmp_path: Path) -> None:
    first = import_model(str(gguf_file), tmp_path / "a")
    second = import_model(str(gguf_file), tmp_path / "b")
    assert first == second
    assert (tmp_path / "a/manifest.json").read_bytes() == (
        tmp_path / "b/manifest.json"
    ).read_bytes()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "found nothing, expected a .gguf file"),
        (lambda p: _file(p / "x.bin", b"x"), "found a file that is not .gguf"),
        (
            lambda p: _file(p / "x.gguf", b"not one"),
            "x.gguf: found 7 bytes that begin with 6e6f7420 inst",
        ),
        (
            lambda p: _file(p / "x.gguf", b""),
            "x.gguf: found 0 bytes that begin with nothing instead of",
        ),
        (lambda p: _file(p / "x.gguf", b"GGUF\3\0"), "found 6 bytes that begin like GGUF and"),
        (lambda p: p, "found no config.json"),
    ],
    ids=["missing", "other-file", "broken-gguf", "empty-gguf", "cut-gguf", "not-a-model"],
)
def test_sources_that_are_none_are_refused(make: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(ConfigError, match=words):
        import_model(str(make(tmp_path / "work")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "gemma2"}, "found architecture 'gemma2', expected one of llama, qwen2"),
        ({"pre": "tekken"}, "pre-tokenizer 'tekken'"),
        ({"extra": {"llama.expert_weights_scale": 1.0}}, "'llama.expert_weights_scale'"),
        ({"extra": {"llama.rope.scaling.factor": 2.0}}, "'llama.rope.scaling.factor'"),
    ],
    ids=["architecture", "pre-tokenizer", "experts", "rope"],
)
def test_ggufs_that_mean_something_else_are_refused(
    options: dict[str, object], words: str, folder: Path, tmp_path: Path
) -> None:
    source = write_gguf(folder, tmp_path / "x.gguf", **options)
    with pytest.raises(ConfigError, match=words):
        import_model(str(source), tmp_path / "out")
    assert leftovers(tmp_path) == ["tiny-model", "x.gguf"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"tokenizer.ggml.tokens": None}, "tokens: found none, expected a list of str"),
        ({"tokenizer.ggml.tokens": 1.5}, "tokens: found something else, expected a list of str"),
        ({"tokenizer.ggml.token_type": None}, "token_type: found none, expected a list of int"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "token_type: found 2 types, expected one for each"),
        ({"tokenizer.ggml.merges": None}, "merges: found none, expected a list of str"),
        ({"tokenizer.ggml.merges": ["a"]}, "merges: found 'a', expected two tokens that make"),
        ({"tokenizer.ggml.merges": ["a nosuch"]}, "merges: found 'a nosuch', expected two tokens"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, "bos_token_id: found 1000000, expected a token"),
        ({"tokenizer.ggml.eos_token_id": 0.5}, "eos_token_id: found 0.5, expected a token id"),
        ({"llama.attention.head_count": 0}, "head_count: found 0, expected an integer above 0"),
        ({"llama.embedding_length": 1.5}, "embedding_length: found 1.5, expected an integer above"),
        ({"llama.rope.freq_base": float("nan")}, "freq_base: found nan, expected a number above 0"),
    ],
)  # fmt: skip
def test_ggufs_whose_metadata_does_not_fit_together_are_refused(
    extra: dict[str, object], words: str, folder: Path, tmp_path: Path
) -> None:
    source = write_gguf(folder, tmp_path / "x.gguf", extra=extra)
    with pytest.raises(ConfigError, match=words):
        import_model(str(source), tmp_path / "out")
    assert leftovers(tmp_path) == ["tiny-model", "x.gguf"]


@pytest.mark.parametrize("index", ['{"weight_map": {}}', '{"weight_map": {"x": 1}}', "{}", "["])
def test_an_index_that_names_no_weights_is_refused(
    index: str, folder: Path, tmp_path: Path
) -> None:
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(index)
    with pytest.raises(ConfigError, match=rf"{WEIGHTS}.index.json'?: found no "):
        import_model(str(folder), tmp_path / "out")
    assert leftovers(tmp_path) == ["tiny-model"]


def test_pickled_weights_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"found pytorch_model.bin, expected model.safetensors"):
        import_model(str(folder), tmp_path / "out")


def test_an_unsupported_folder_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 512}))
    with pytest.raises(ConfigError, match="sliding_window"):
        import_model(str(folder), tmp_path / "out")
    assert leftovers(tmp_path) == ["tiny-model"]


def test_wrong_dtype_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found 'float16', expected one of"):
        import_model(str(folder), tmp_path / "out", dtype="float16")


def test_a_bad_name_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model name: found '../x'"):
        import_model(str(folder), tmp_path / "out", name="../x")


def test_no_space_is_said_before_writing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 3 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        ConfigError, match=r"found 3 MiB free in .*, expected at least 64 MiB"
    ) as caught:
        import_model(str(folder), tmp_path / "out")
    assert "folder on another disk" in caught.value.hint
    assert "ANCHORHOLD_MODELS" not in caught.value.hint
    assert leftovers(tmp_path) == ["tiny-model"]
    with pytest.raises(ConfigError, match="found 3 MiB free") as cached:
        ensure(str(folder), tmp_path / "cache")
    assert "ANCHORHOLD_MODELS" in cached.value.hint


def test_a_target_that_cannot_be_written_is_not_called_a_full_disk(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write in /proc: ") as caught:
        import_model(str(folder), Path("/proc/nope"))
    assert "may write to" in caught.value.hint
    assert "MiB" not in caught.value.diagnostics()


@pytest.mark.parametrize("path", ["/", "/nowhere/at/all"])
def test_the_folder_that_is_no_model_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{path}'"):
        import_model(path, tmp_path / "out")


def test_weights_cut_short_are_named_with_their_file(folder: Path, tmp_path: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:1000])
    with pytest.raises(ConfigError, match=f"{WEIGHTS}: found 1000 bytes that are not whole") as cut:
        import_model(str(folder), tmp_path / "out")
    assert "fetch the file again" in cut.value.hint


def test_a_template_the_worker_would_refuse_leaves_nothing_behind(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ConfigError, match="chat template does not compile"):
        import_model(str(folder), tmp_path / "out")
    assert leftovers(tmp_path) == ["tiny-model"]


def test_a_second_import_needs_force(folder: Path, gguf_file: Path, tmp_path: Path) -> None:
    import_model(str(folder), tmp_path / "out")
    before = verify(tmp_path / "out")
    with pytest.raises(ConfigError, match="found a model there already") as caught:
        import_model(str(gguf_file), tmp_path / "out")
    assert "--force" in caught.value.hint
    assert verify(tmp_path / "out") == before
    import_model(str(gguf_file), tmp_path / "out", force=True, name="other")
    assert verify(tmp_path / "out").name == "other"
    assert leftovers(tmp_path) == ["out", "tiny-model", "tiny.F32.gguf"]


def test_force_never_replaces_what_is_not_a_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not an imported model"):
        import_model(str(folder), tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "precious"


# ---------------------------------------------------------------- manifest


def test_the_manifest_lists_every_file(imported: Path) -> None:
    manifest = verify(imported)
    assert set(manifest.files) == {path.name for path in imported.iterdir()} - {"manifest.json"}


def test_a_changed_byte_is_found(imported: Path) -> None:
    with (imported / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xa5")
    with pytest.raises(ConfigError, match=r"model.safetensors: found SHA-256 \w{16}, expected"):
        verify(imported)


def test_a_missing_file_is_found(imported: Path) -> None:
    (imported / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer.json: found no such file"):
        verify(imported)


def test_an_extra_file_is_found(imported: Path) -> None:
    (imported / "code.py").write_text("")
    with pytest.raises(ConfigError, match=r"code.py: found a file the manifest does not list"):
        verify(imported)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "anchorhold-model/1"},
        {"files": {"../x": "0" * 64}},
        {"files": {"1_Pooling/../x": "0" * 64}},
        {"files": {"x": "0" * 63}},
        {"files": []},
        {"name": 1},
        {"kind": "oracle"},
        {"dtype": "float64"},
        {"colour": "blue"},
        {"quantisation": {"mode": "w4a4", "smoothing": None, "tokens": 1, "sha256": ""}},
        {"quantisation": {"mode": "w8a8", "smoothing": 2, "tokens": 1, "sha256": ""}},
        {"quantisation": {"mode": "w8a8"}},
        {"figures": {}},
        {"figures": FIGURES | {"modes": {}}},
        {"figures": FIGURES | {"tokens": -1}},
        {"figures": FIGURES | {"modes": {"bfloat16": QUALITY | {"perplexity": True}}}},
        {"figures": FIGURES | {"modes": {"bfloat16": QUALITY | {"agreement": math.nan}}}},
        {"figures": FIGURES | {"modes": {"bfloat16": QUALITY | {"luck": 1.0}}}},
    ],
    ids=str,
)
def test_broken_manifests_are_refused(change: dict[str, object], imported: Path) -> None:
    path = imported / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="manifest"):
        read(imported)


def test_a_manifest_with_figures_reads_back(imported: Path) -> None:
    path = imported / "manifest.json"
    whole = json.loads(path.read_text()) | {"figures": FIGURES}
    path.write_text(json.dumps(whole))
    assert json.loads(read(imported).encode()) == whole


def test_a_manifest_without_a_member_is_refused(imported: Path) -> None:
    path = imported / "manifest.json"
    whole = json.loads(path.read_text())
    del whole["kind"]
    path.write_text(json.dumps(whole))
    with pytest.raises(ConfigError, match="found no member 'kind'"):
        read(imported)


def test_an_older_manifest_says_what_to_do(imported: Path) -> None:
    path = imported / "manifest.json"
    path.write_text(json.dumps({"schema": "anchorhold-model/1"}))
    with pytest.raises(ConfigError, match="found schema 'anchorhold-model/1', expected") as caught:
        read(imported)
    assert "import the model again with --force" in caught.value.hint


# ---------------------------------------------------------------- command line


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["model", *words])
    return int(arguments.run(arguments))


def test_the_command_imports_inspects_and_verifies(
    gguf_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run("import", str(gguf_file), out, "--dtype", "float32", "--name", "mine") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("mine: ")
    assert "hashing" in shown.err  # the bar is on stderr
    assert run("inspect", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mine"
    assert run("verify", out) == 0
    assert capsys.readouterr().out.endswith("files match the manifest\n")


def test_the_command_fails_with_an_error_of_our_tree(tmp_path: Path) -> None:
    with pytest.raises(AnchorholdError, match="found nothing"):
        run("import", str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(AnchorholdError, match="No such file"):
        run("verify", str(tmp_path / "nowhere"))


def test_a_folder_with_unreadable_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, folder / "y.safetensors")
    (folder / WEIGHTS).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")
    with pytest.raises(ConfigError, match=f"model weights .*{WEIGHTS}: found 16 bytes"):
        import_model(str(folder), tmp_path / "out")
