"""The cache of imported models: each is imported once, whole, and again when it is damaged."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.model_cache import cache_dir, ensure
from ops.model_manifest import verify
from wire.errors import ConfigError

WEIGHTS = "model.safetensors"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_cache_imports_once(gguf_file: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    first = ensure(str(gguf_file), tmp_path / "c", report=lambda stage, *_: stages.append(stage))
    assert stages
    stamp = (first / WEIGHTS).stat().st_mtime_ns
    stages.clear()
    assert ensure(str(gguf_file), tmp_path / "c", report=lambda s, *_: stages.append(s)) == first
    assert not stages
    assert (first / WEIGHTS).stat().st_mtime_ns == stamp


def test_a_damaged_cached_model_is_imported_again(gguf_file: Path, tmp_path: Path) -> None:
    path = ensure(str(gguf_file), tmp_path / "c")
    (path / "config.json").write_text("{}")
    assert ensure(str(gguf_file), tmp_path / "c") == path
    verify(path)


def test_what_a_killed_import_left_is_cleared(gguf_file: Path, tmp_path: Path) -> None:
    path = ensure(str(gguf_file), tmp_path / "c")
    for name in (f".{path.name}.00ff.tmp", f".{path.name}.00ff.old"):
        (path.parent / name).mkdir()
    assert ensure(str(gguf_file), tmp_path / "c") == path
    assert leftovers(path.parent) == [f".{path.name}.lock", path.name]


def test_an_imported_folder_is_its_own_cache(imported: Path, tmp_path: Path) -> None:
    assert ensure(str(imported), tmp_path / "c") == imported
    assert not (tmp_path / "c").exists()


def test_dtypes_are_kept_apart(gguf_file: Path, tmp_path: Path) -> None:
    first = ensure(str(gguf_file), tmp_path / "c", dtype="bfloat16")
    second = ensure(str(gguf_file), tmp_path / "c", dtype="float32")
    assert first != second
    assert (verify(first).dtype, verify(second).dtype) == ("bfloat16", "float32")


def test_int8_and_float_are_kept_apart(gguf_file: Path, tmp_path: Path) -> None:
    first = ensure(str(gguf_file), tmp_path / "c")
    second = ensure(str(gguf_file), tmp_path / "c", quantise="w8a8")
    assert first != second
    assert verify(first).quantisation is None
    assert verify(second).quantisation is not None
    assert ensure(str(gguf_file), tmp_path / "c", quantise="w8a8") == second


def test_a_model_of_an_older_manifest_is_imported_again(gguf_file: Path, tmp_path: Path) -> None:
    path = ensure(str(gguf_file), tmp_path / "c")
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("anchorhold-model/2", "anchorhold-model/1"))
    assert ensure(str(gguf_file), tmp_path / "c") == path
    verify(path)


def test_an_unknown_source_is_refused_by_the_cache(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing, expected"):
        ensure("no-such-model", tmp_path / "c")


def test_two_processes_import_one_model(gguf_file: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ops.model_cache import ensure; n = []\n"
        "print(ensure(sys.argv[1], Path(sys.argv[2]), report=lambda *a: n.append(a)), bool(n))"
    )
    command = [sys.executable, "-c", script, str(gguf_file), str(tmp_path / "c")]
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)
    ]
    results = [process.communicate(timeout=50)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert results[0][0] == results[1][0]
    assert sorted(result[1] for result in results) == ["False", "True"]
    verify(Path(results[0][0]))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ANCHORHOLD_MODELS": "/m"}, Path("/m")),
        ({"ANCHORHOLD_MODELS": "/m", "XDG_CACHE_HOME": "/x"}, Path("/m")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/anchorhold/models")),
        ({}, Path.home() / ".cache/anchorhold/models"),
    ],
    ids=["models", "both", "xdg", "home"],
)
def test_where_models_are_kept(environ: dict[str, str], expected: Path) -> None:
    assert cache_dir(environ) == expected
