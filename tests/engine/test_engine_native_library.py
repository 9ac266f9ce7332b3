"""The compiled kernels: built once from their sources, and refused where they cannot be trusted."""

import hashlib
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.errors import KernelError
from enclave_worker.engine.models.load import choose
from enclave_worker.engine.ops import library as native
from enclave_worker.engine.ops.library import Library, check_settled, library_path, settle
from enclave_worker.engine.ops.selftest import check

ROOT = Path(__file__).resolve().parents[2]
AVX512 = "flags\t\t: fpu fma avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_vnni\n"


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("native_hook", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = load_hook()
pytestmark = pytest.mark.skipif(
    HOOK.find_compiler() is None, reason="no C++ compiler, so nothing was built"
)


def small(folder: Path, abi: int = 1) -> Path:
    """Sources of a library that is none of ours but compiles at once."""
    folder.mkdir(parents=True)
    (folder / "abi.h").write_text(f"constexpr int kNumber = {abi};\n")
    (folder / "step.cpp").write_text(
        '#include "abi.h"\n#define AH_PUBLIC __attribute__((visibility("default")))\n'
        'extern "C" { AH_PUBLIC int ah_abi() { return kNumber; }\n'
        "AH_PUBLIC const char* ah_where() { return __FILE__; } }\n"
    )
    return folder


def compile_generic(folder: Path, *flags: str) -> Path:
    """Compile one library of `folder`'s sources, quickly."""
    target = folder / "anchorhold-generic.so"
    HOOK.compile_library(HOOK.find_compiler(), target, (*HOOK.FLAGS, *flags), folder)
    return target


# ------------------------------------------------------------ building


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    one = HOOK.build(small(tmp_path / "one"))
    other = HOOK.build(small(tmp_path / "a longer name" / "other"))
    assert [path.name for path in one] == [path.name for path in other]
    assert len(one) >= 1
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert str(tmp_path).encode() not in one[0].read_bytes()


def test_only_changed_sources_are_compiled_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = small(tmp_path / "native")
    first = HOOK.build(folder)
    before = [path.read_bytes() for path in first]
    capfd.readouterr()
    HOOK.build(folder)
    assert capfd.readouterr().err == ""
    (folder / "abi.h").write_text("constexpr int kNumber = 2;\n")
    HOOK.build(folder)
    assert "compiling anchorhold-generic.so" in capfd.readouterr().err
    assert all(path.read_bytes() != old for path, old in zip(first, before, strict=True))


def test_without_a_compiler_there_is_one_line_and_no_library_not_even_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = small(tmp_path / "native")
    HOOK.build(folder)
    capfd.readouterr()
    monkeypatch.setenv("CXX", "none")
    assert HOOK.build(folder) == []
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "no C++ compiler (CXX, g++, clang++, c++)" in said
    assert not list(folder.glob("*.so"))


def test_a_compiler_that_refuses_ends_the_build_with_what_it_said(tmp_path: Path) -> None:
    folder = small(tmp_path / "native")
    (folder / "step.cpp").write_text("this is no C++\n")
    with pytest.raises(
        HOOK.BuildFailed, match=r"step\.cpp:1:1: error[\s\S]*or CXX=none to do with"
    ):
        HOOK.build(folder)
    assert not list(folder.glob("*.so"))


def test_the_installed_libraries_are_of_these_sources() -> None:
    folder = native.FOLDER
    targets = HOOK.targets(folder)
    assert [path for path in targets if not path.is_file()] == []
    for path, flags in targets.items():
        identity = HOOK.identity(HOOK.find_compiler(), flags, folder)
        assert identity in path.read_bytes(), f"{path.name} is old: run scripts/bootstrap"


# ------------------------------------------------------------ choosing


def config(**values: object) -> EngineConfig:
    return EngineConfig.from_dict(values)


def test_only_libraries_for_this_processor_are_candidates(tmp_path: Path) -> None:
    for name in ("avx512", "generic"):
        library_path(name, tmp_path).touch()
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{AVX512}")
    assert native.supported(tmp_path, cpuinfo) == ["avx512", "generic"]
    for missing in ("avx512_bf16", "avx512_vnni", "avx512bw"):
        cpuinfo.write_text(AVX512.replace(f" {missing}", ""))
        assert native.supported(tmp_path, cpuinfo) == ["generic"]
    assert native.supported(tmp_path, tmp_path / "nothing") == ["generic"]
    library_path("generic", tmp_path).unlink()
    assert native.supported(tmp_path, cpuinfo) == []


def test_without_a_library_torch_computes_unless_it_may_not(tmp_path: Path) -> None:
    assert choose(config(), tmp_path) is None
    assert settle(config(), tmp_path).kernels == "reference"
    for values in (
        {"kernels": "native"},
        {"kernels": "native-avx512"},
        {"dtype": "w8a8"},
        {"dtype": "w8a16"},
        {"dtype": "w8a8", "kernels": "native-generic"},
    ):
        with pytest.raises(KernelError, match=r"found none for this processor, expected .*native"):
            choose(config(**values), tmp_path)
        with pytest.raises(KernelError, match=r"install the package where there is a C\+\+"):
            settle(config(**values), tmp_path)


def test_float32_is_always_torchs() -> None:
    assert choose(config(dtype="float32")) is None
    assert settle(config(dtype="float32")).kernels == "reference"
    for kernels in ("native", "native-generic"):
        with pytest.raises(KernelError, match="'auto' or 'reference' with dtype float32"):
            choose(config(dtype="float32", kernels=kernels))


def test_another_back_end_brings_its_own_kernels() -> None:
    assert settle(config(back_end="vllm")).kernels == "reference"
    with pytest.raises(KernelError, match="with back_end vllm, which has its own"):
        settle(config(back_end="vllm", kernels="native"))


def test_what_is_named_is_chosen_and_its_digest_recorded() -> None:
    assert choose(config(kernels="reference")) is None
    assert choose(config(kernels="reference", dtype="w8a8")) is None
    for name in native.supported():
        chosen = choose(config(kernels=f"native-{name}", dtype="w8a8"))
        assert chosen is not None
        assert chosen.name == name
        digest = hashlib.sha256(library_path(name).read_bytes()).hexdigest()
        assert chosen.digest == f"sha256:{digest}"
    best = native.supported()[0]
    for kernels in ("auto", "native"):
        assert settle(config(kernels=kernels)).kernels == f"native-{best}"
        with pytest.raises(KernelError, match="expected the launcher to name a library"):
            check_settled(config(kernels=kernels))
    check_settled(settle(config()))


# ------------------------------------------------------------ refusing


def test_a_library_of_another_interface_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "native"
    shutil.copytree(native.FOLDER, folder, ignore=shutil.ignore_patterns("*.so"))
    change(folder / "abi.h", "kAbi = 2", "kAbi = 3")
    path = compile_generic(folder, "-O0")
    with pytest.raises(KernelError, match="found interface 3, expected 2"):
        Library("generic", path)


@pytest.mark.parametrize("what", ["text", "empty", "missing", "without the functions"])
def test_what_is_no_library_of_kernels_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "anchorhold-generic.so"
    if what == "without the functions":
        path = compile_generic(small(tmp_path / "native"))
    elif what != "missing":
        path.write_text("no ELF file" * (what == "text"))
    with pytest.raises(KernelError, match="found no kernels"):
        Library("generic", path)


# What replaces a kernel: the right one is called, then something is changed.
LINEAR = """
struct Matrix { const void* packed; int n, k, form; };
extern "C" void right(const Matrix*, const float*, int, float*, int*, unsigned char*);
extern "C" __attribute__((visibility("default"))) void ah_linear(
    const Matrix* w, const float* x, int rows, float* out, int* best, unsigned char* finite) {
  right(w, x, rows, out, best, finite);
  if (%s) out[w->n - 1] += %s;
}
"""
RMS_NORM = """
extern "C" void right(const float*, const float*, float, int, int, float*);
extern "C" __attribute__((visibility("default"))) void ah_rms_norm(
    const float* x, const float* weight, float eps, int rows, int count, float* out) {
  right(x, weight, eps * 2000, rows, count, out);
}
"""


@pytest.mark.parametrize(
    ("function", "source", "kernel"),
    [
        ("ah_rms_norm", RMS_NORM, "rms_norm"),
        ("ah_linear", LINEAR % ("w->form == 1", "0.01f"), "linear w8a8"),
        # Right within rounding, and not the same alone.
        ("ah_linear", LINEAR % ("rows == 1", "4e-6f"), "linear bf16 of one row"),
    ],
)
def test_a_library_that_disagrees_with_torch_is_not_used(
    function: str, source: str, kernel: str, tmp_path: Path
) -> None:
    folder = tmp_path / "native"
    shutil.copytree(native.FOLDER, folder, ignore=shutil.ignore_patterns("*.so"))
    (folder / "wrong.cpp").write_text(f"#undef {function}\n{source}")
    library = Library("generic", compile_generic(folder, "-O0", f"-D{function}=right"))
    with pytest.raises(KernelError, match=f"kernel {kernel}: .* away from torch, expected at most"):
        check(library)
    # Named, it ends the start; where the choice is free, the next best computes.
    with pytest.raises(KernelError, match=kernel):
        choose(config(kernels="native-generic"), folder)
    assert choose(config(), folder) is None


def change(path: Path, right: str, wrong: str) -> None:
    source = path.read_text()
    assert source.count(right) == 1, "the sources have changed: name what to break anew"
    path.write_text(source.replace(right, wrong))
