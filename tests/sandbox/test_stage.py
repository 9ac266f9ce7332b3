"""The staged root: what a worker can import, what it cannot, and that all of it is measured."""

import json
import py_compile
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from enclave_worker.stage import WorkerRoot, check_beside, measure, stage_worker_root
from wire.errors import ConfigError

pytestmark = pytest.mark.sandbox

SMALL = ("markupsafe", "typing_extensions")


@pytest.fixture
def small(tmp_path) -> WorkerRoot:
    """A root with two tiny distributions: most claims do not need torch."""
    return stage_worker_root(tmp_path / "root", SMALL, ("wire",))


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def run(root: WorkerRoot, source: str, *arguments: str) -> str:
    """Run a module of ours in the root; returns what its main() printed."""
    (root.parts["first_party"] / "asked.py").write_text(source)
    done = subprocess.run(
        root.command("asked", *arguments), capture_output=True, text=True, timeout=50, env={}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTS = """
import importlib, json, sys
def main():
    failed = {}
    for name in sys.argv[1].split():
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed[name] = type(error).__name__
    print(json.dumps(sorted(failed)))
"""


def test_the_worker_imports_what_it_needs_and_nothing_else(tmp_path):
    root = stage_worker_root(tmp_path / "root")
    present = """
        torch torch.nn.functional numpy tokenizers safetensors.torch jinja2.sandbox
        cryptography.x509 cryptography.hazmat.primitives.ciphers.aead asyncio
        cryptography.hazmat.primitives.hpke
        wire.framing attestation.posture evidence enclave_worker enclave_worker.sandbox.confine
        enclave_worker.main enclave_worker.engine.engine
    """
    absent = """
        fastapi starlette httpx2 uvicorn apsw redis opentelemetry gateway client tenancy ops
        anchorhold pytest hypothesis transformers huggingface_hub openai gguf rich pip setuptools
        sympy networkx fsspec filelock requests cffi torch._inductor torch.onnx idlelib test
        site-packages ensurepip
    """
    found = json.loads(run(root, IMPORTS, f"{present} {absent}"))
    assert found == sorted(absent.split())


def test_the_search_path_is_the_staged_root_alone(small):
    source = "import sys, json\ndef main(): print(json.dumps([sys.path, sys.flags.no_site]))\n"
    path, no_site = json.loads(run(small, source))
    assert tuple(path) == small.sys_path
    assert all(Path(entry).is_relative_to(small.path) for entry in path)
    assert no_site == 1


def test_a_start_up_file_is_not_run(small):
    (small.parts["site"] / "evil.pth").write_text("import sys; sys.evil = True\n")
    assert run(small, "import sys\ndef main(): print(hasattr(sys, 'evil'))\n") == "False\n"


def test_bytecode_and_archives_cannot_be_imported(small, tmp_path):
    """They are not measured, so they must not run: alone, cached beside a source, or zipped."""
    source = tmp_path / "evil.py"
    source.write_text("marker = 'evil'\n")
    py_compile.compile(str(source), cfile=str(small.parts["site"] / "lonely.pyc"))
    good = small.parts["site"] / "cached.py"
    good.write_text("marker = 'good'\n")
    cache = small.parts["site"] / "__pycache__"
    cache.mkdir()
    py_compile.compile(
        str(source),
        cfile=str(cache / "cached.cpython-311.pyc"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    with zipfile.ZipFile(small.parts["site"] / "packed.zip", "w") as archive:
        archive.write(source, "zipped.py")
    asked = f"""
import sys
def main():
    import cached
    sys.path.append({str(small.parts["site"] / "packed.zip")!r})
    for name in ("lonely", "zipped"):
        try:
            __import__(name)
        except ImportError:
            continue
        print(name)
    print(cached.marker)
"""
    assert run(small, asked) == "good\n"
    assert not (small.parts["first_party"] / "__pycache__").exists()


def test_a_package_planted_beside_a_distribution_is_not_staged(small):
    staged = {entry.name for entry in small.parts["site"].iterdir()}
    assert {name for name in staged if ".dist-info" not in name} == {
        "markupsafe",
        "typing_extensions.py",
    }


def test_every_link_leads_to_a_readable_path(small):
    links = [path for path in small.path.rglob("*") if path.is_symlink()]
    assert len(links) > 100
    assert {path.resolve() for path in links} <= set(small.read_paths)


def test_a_folder_with_files_is_not_staged_into(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="empty folder"):
        stage_worker_root(tmp_path, SMALL, ("wire",))


def test_a_missing_distribution_or_package_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no-such-thing") as caught:
        stage_worker_root(tmp_path / "one", ("no-such-thing",), ("wire",))
    assert "pip install" in caught.value.hint
    with pytest.raises(ConfigError, match="no_such_package"):
        stage_worker_root(tmp_path / "two", SMALL, ("no_such_package",))


def test_two_stagings_measure_the_same(tmp_path, model):
    one = stage_worker_root(tmp_path / "one", SMALL, ("wire",))
    other = stage_worker_root(tmp_path / "other", tuple(reversed(SMALL)), ("wire",))
    assert measure(one, model, ["serve"], b"{}") == measure(other, model, ["serve"], b"{}")


def test_each_input_changes_its_part_and_the_whole(small, model):
    whole, parts = measure(small, model, ["serve"], b"{}")
    assert set(parts) == {
        "interpreter",
        "stdlib",
        "site",
        "first_party",
        "model",
        "args",
        "config",
        "env",
        "system",
    }

    def changed(*arguments: object, **named: object) -> set[str]:
        other, found = measure(small, *arguments, **named)  # type: ignore[arg-type]
        assert other != whole
        return {name for name in parts if parts[name] != found[name]}

    assert changed(model, ["serve", "--debug"], b"{}") == {"args"}
    assert changed(model, ["serve"], b'{"x":1}') == {"config"}
    assert changed(model, ["serve"], b"{}", env={"LD_PRELOAD": "x"}) == {"env"}
    (small.parts["site"] / "new.py").write_text("")
    assert changed(model, ["serve"], b"{}") == {"site"}
    (small.parts["site"] / "new.py").unlink()
    (model / "config.json").write_text("[]")
    assert changed(model, ["serve"], b"{}") == {"model"}


def test_the_systems_libraries_are_those_the_staged_files_ask_for(small):
    assert {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1"} <= set(small.system)
    assert not {"libX11.so.6", "libtcl8.6.so", "libreadline.so.8"} & set(small.system)
    assert all(path.is_file() and not path.is_symlink() for path in small.system.values())


def test_another_library_of_the_system_changes_the_measurement(small, model, tmp_path):
    other = tmp_path / "libc.so.6"
    other.write_bytes(small.system["libc.so.6"].read_bytes() + b"\0")
    patched = replace(small, system={**small.system, "libc.so.6": other})
    before, after = (measure(root, model, [], b"")[1] for root in (small, patched))
    assert {name for name in before if before[name] != after[name]} == {"system"}


def test_arguments_cannot_be_shifted_into_one_another(small, model):
    first = measure(small, model, ["ab", "c"], b"")[1]["args"]
    assert first != measure(small, model, ["a", "bc"], b"")[1]["args"]


def test_progress_names_the_part_it_is_in(small, model):
    seen: dict[str, int] = {}
    measure(
        small, model, [], b"", lambda part, count: seen.update({part: seen.get(part, 0) + count})
    )
    assert set(seen) == {"interpreter", "stdlib", "site", "first_party", "model"}
    assert seen["model"] == 2
    assert seen["interpreter"] > 1 << 20


@pytest.mark.parametrize(
    "name",
    [
        "bin/pyvenv.cfg",
        "pyvenv.cfg",
        "bin/pybuilddir.txt",
        f"{sys.platlibdir}/python{sys.version_info.major}{sys.version_info.minor}.zip",
    ],
)
def test_what_moves_the_interpreters_library_before_anything_can_look_is_refused(tmp_path, name):
    program = tmp_path / "bin" / "python3"
    for path in (program, tmp_path / name):
        path.parent.mkdir(exist_ok=True)
    program.write_bytes(b"")
    check_beside(program)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="expected none"):
        check_beside(program)
