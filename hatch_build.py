"""Compiles the engine's kernels when the package is built, one library for each instruction set.

A compiler has no place in a worker, so this runs when the distribution is installed or packed, and
never later; by hand, `python hatch_build.py` does the same. The libraries lie beside the Python
that loads them. The same sources and the same compiler give the same bytes. Each library's
build id (`readelf -n`) is a digest of both, so only what changed is compiled again.

Without a compiler there is no library and the engine runs on torch. CXX names another compiler;
CXX=none means none.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "enclave_worker/engine/ops/native"
COMPILERS = ("g++", "clang++", "c++")
# Nothing here lets a compiler reorder or fuse arithmetic: a row's bits must not depend on whether
# it fell into the unrolled part of a loop or its rest. No debug sections, no names of folders.
FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-w", "-ffp-contract=off",
    "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
    "-fno-ident", "-s", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack",
)  # fmt: skip
X86 = ("x86_64", "AMD64")
AVX512 = (
    "-DAH_BUILD_AVX512", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16",
    "-mavx512vnni", "-mfma",
)  # fmt: skip
SHOWN_MAX = 400  # of what a compiler complains


class BuildFailed(Exception):  # noqa: N818 - states a fact
    """The compiler refused; the message says what it said."""


class Kernels(BuildHookInterface[Any]):
    """The build hook; hatch finds it by its base class. Editable installs run it too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what changed, and mark a wheel with libraries in it as one for this platform."""
        del version
        try:
            built = build(Path(self.root) / NATIVE)
        except BuildFailed as error:
            self.app.abort(str(error))
            return
        if built:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_')}"
            names = [f"{NATIVE}/{library.name}" for library in built]
            build_data["artifacts"].extend(names)


def build(folder: Path) -> list[Path]:
    """Compile the C++ sources of `folder` for every instruction set; returns the libraries.

    Libraries that are already of these sources and this compiler are left alone. Without a
    compiler, whatever older library is there goes: it would not be of these sources.

    Raises:
        BuildFailed: the compiler refused.
    """
    found = find_compiler()
    if found is None:
        for old in folder.glob("anchorhold-*.so"):
            old.unlink()
        _say(f"no C++ compiler ({', '.join(('CXX', *COMPILERS))}): the engine will run on torch")
        return []
    wanted = targets(folder)
    with ThreadPoolExecutor(len(wanted)) as pool:
        for job in [pool.submit(compile_library, found, *one, folder) for one in wanted.items()]:
            job.result()
    return sorted(wanted)


def targets(folder: Path) -> dict[Path, tuple[str, ...]]:
    """Every library of this platform with the compiler's flags for it."""
    sets = {"generic": (), **({"avx512": AVX512} if platform.machine() in X86 else {})}
    return {folder / f"anchorhold-{name}.so": (*FLAGS, *isa) for name, isa in sets.items()}


def find_compiler() -> str | None:
    """The C++ compiler of CXX, else the first one found; None without any."""
    named = os.environ.get("CXX")
    if named == "none":
        return None
    for name in (named,) if named else COMPILERS:
        if found := shutil.which(name):
            return found
    return None


def identity(compiler: str, flags: tuple[str, ...], folder: Path) -> bytes:
    """What a library is made of, 32 bytes: sources, flags and the compiler's version."""
    digest = hashlib.sha256(repr((_run([compiler, "--version"], folder), flags)).encode())
    for path in _sources(folder, ".h", ".cpp"):
        digest.update(repr((path.name, hashlib.sha256(path.read_bytes()).digest())).encode())
    return digest.digest()


def compile_library(compiler: str, target: Path, flags: tuple[str, ...], folder: Path) -> None:
    """Compile one library unless it is there; it appears whole or not at all."""
    build_id = identity(compiler, flags, folder)
    if target.is_file() and build_id in target.read_bytes():
        return
    _say(f"compiling {target.name} with {compiler} ...")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as beside:
        made = Path(beside) / target.name
        noted = f"-Wl,--build-id=0x{build_id.hex()}"
        names = [path.name for path in _sources(folder, ".cpp")]
        _run([compiler, *flags, noted, "-o", str(made), *names], folder)
        made.chmod(0o644)
        made.replace(target)


def _sources(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes)


def _run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip()[:SHOWN_MAX]
        raise BuildFailed(
            f"anchorhold: {command[0]} could not compile the engine's kernels: {said}\n"
            "Set CXX to a C++17 compiler (GCC 11, Clang 14 or later), or CXX=none to do without."
        )
    return done.stdout


def _say(text: str) -> None:
    sys.stderr.write(f"anchorhold: {text}\n")


if __name__ == "__main__":
    try:
        build(Path(__file__).resolve().parent / NATIVE)
    except BuildFailed as failed:
        sys.exit(str(failed))
