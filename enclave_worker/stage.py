"""The measured worker root: exactly what a worker can import, as folders of links, and its digest.

Run by the launcher, outside the worker. `stage_worker_root` links the top-level entries of the
allow-listed distributions, the first-party packages, the standard library and the interpreter into
a fresh folder; the worker's ``sys.path`` names that folder and nothing else, so a package merely
installed beside them cannot be imported, and everything that can be imported is measured.

The worker starts as ``python -I -S -B -X pycache_prefix=… -c BOOTSTRAP``: no environment, no
``site`` (hence no ``.pth`` file, which is code run at start), no bytecode written or read. The
bootstrap also removes the importer for lone ``.pyc`` files and for zip archives: bytecode is not
measured, so it must not run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from attestation.collect.tree import digest_tree
from attestation.measurement import combine
from wire.errors import ConfigError
from wire.ids import sha256_tag

from .launch_line import BOOTSTRAP, LAUNCH_FLAGS, arguments_digest, environment_digest
from .system_libraries import libraries_digest, library_tags, system_libraries

__all__ = (
    "FIRST_PARTY",
    "WORKER_DISTRIBUTIONS",
    "MeasureProgress",
    "WorkerRoot",
    "check_beside",
    "measure",
    "stage_worker_root",
)

WORKER_DISTRIBUTIONS: Final = (
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "jinja2",
    "llguidance",
    "markupsafe",
    "cryptography",
    "cffi",
    "typing_extensions",
)
FIRST_PARTY: Final = ("wire", "attestation", "evidence", "enclave_worker")

# Left out of what is linked. torch: headers, test programs, the compiler stack (it starts a C++
# compiler) and the exporters; none is imported by inference. cffi: only its extension module is.
_LEFT_OUT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "": frozenset({"cffi", "functorch"}),
        "torch": frozenset({"include", "share", "test", "_inductor", "_dynamo", "onnx"}),
        "torch/lib": frozenset(
            {
                "libaoti_custom_ops.so",
                "libbackend_with_compiler.so",
                "libjitbackend_test.so",
                "libtorchbind_test.so",
                "libshm",
                "libshm_windows",
            }
        ),
        "numpy": frozenset({"distutils", "f2py", "tests"}),
    }
)
# torch looks for this one program when imported and never starts it (the sandbox would refuse);
# the test programs beside it stay out.
_ONLY: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"torch/bin": frozenset({"torch_shm_manager"})}
)
_STDLIB_LEFT_OUT: Final = frozenset(
    {
        "site-packages",
        "dist-packages",
        "sitecustomize.py",
        "usercustomize.py",
        "test",
        "idlelib",
        "lib2to3",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "venv",
        "pydoc_data",
    }
)

_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})

# Told the part's name and the bytes hashed since the last call.
MeasureProgress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class WorkerRoot:
    """A staged root.

    Attributes:
        path: the folder that holds everything below.
        interpreter: the program to start, its real path.
        stdlib: the staged standard library.
        parts: measured folders by name: interpreter, stdlib, site, first_party.
        system: the system's libraries that the staged files ask for, by name.
        sys_path: the worker's whole module search path.
        read_paths: what the worker must be able to read: the root and every link's target.
    """

    path: Path
    interpreter: Path
    stdlib: Path
    parts: Mapping[str, Path]
    system: Mapping[str, Path]
    sys_path: tuple[str, ...]
    read_paths: tuple[Path, ...]

    def command(self, module: str, *arguments: str) -> list[str]:
        """The argv that runs ``module.main()`` here, with `arguments` in ``sys.argv[1:]``."""
        program = [str(self.interpreter), *LAUNCH_FLAGS, "-c", BOOTSTRAP]
        return [*program, "\n".join(self.sys_path), module, *arguments]


def stage_worker_root(
    dest: Path,
    distributions: Sequence[str] = WORKER_DISTRIBUTIONS,
    first_party: Sequence[str] = FIRST_PARTY,
) -> WorkerRoot:
    """Link the worker's files into `dest`, a folder that is absent or empty. Copies nothing.

    Raises:
        ConfigError: `dest` is not empty, or a distribution or package is not installed.
    """
    dest = dest.absolute()
    folders = {name: dest / name for name in ("interpreter", "stdlib", "site", "first_party")}
    if dest.exists() and any(dest.iterdir()):
        raise ConfigError(f"stage: {dest.name}: found files, expected an empty folder")
    check_beside(_interpreter_files()[0])
    dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in folders.values():
        folder.mkdir()
    targets: list[Path] = []
    for program in _interpreter_files():
        _link(folders["interpreter"] / program.name, program, targets)
    for entry in sorted(Path(sysconfig.get_path("stdlib")).iterdir()):
        if entry.name not in _STDLIB_LEFT_OUT and not entry.name.startswith("config-"):
            _link(folders["stdlib"] / entry.name, entry, targets)
    for name in distributions:
        for entry in _top_level(name):
            _stage(folders["site"] / entry.name, entry, entry.name, targets)
    for name in first_party:
        _link(folders["first_party"] / name, _package_folder(name), targets)
    stdlib = folders["stdlib"]
    path = (stdlib, stdlib / "lib-dynload", folders["site"], folders["first_party"])
    return WorkerRoot(
        path=dest,
        interpreter=_interpreter_files()[0],
        stdlib=stdlib,
        parts=MappingProxyType(folders),
        system=MappingProxyType(dict(system_libraries(folders.values()))),
        sys_path=tuple(map(str, path)),
        read_paths=(dest, *targets),
    )


def check_beside(program: Path) -> None:
    """Nothing lies beside the interpreter that moves its library before measured code can look.

    Raises:
        ConfigError: something does.
    """
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    prefix = program.parent.parent
    for path in (
        program.parent / "pyvenv.cfg",
        prefix / "pyvenv.cfg",
        program.parent / "pybuilddir.txt",
        prefix / sys.platlibdir / f"python{version}.zip",
    ):
        if path.exists():
            raise ConfigError(
                f"stage: found {path}, expected none: the interpreter would start by it",
                hint="Remove it, or run the launcher with an interpreter installed without it.",
            )


def measure(
    root: WorkerRoot,
    model_dir: Path,
    args: Sequence[str],
    config: bytes,
    progress: MeasureProgress | None = None,
    *,
    env: Mapping[str, str] = _NO_VARIABLES,
    threads: int = 2,
) -> tuple[str, dict[str, str]]:
    """The worker's measurement and the parts it is made of, each a "sha256:" tag.

    Args:
        root: a staged root.
        model_dir: the model's folder: plain files, no links.
        args: module and arguments as a third party can repeat them: no paths of this machine. The
            interpreter's flags and the bootstrap are added here.
        config: the worker's configuration bytes.
        progress: called with the part's name and the bytes hashed since the last call.
        env: the worker's whole environment.
        threads: hashing threads.

    Raises:
        ConfigError: see `attestation.collect.tree.digest_tree`.
    """

    def report(part: str) -> Callable[[int], None] | None:
        return None if progress is None else lambda count: progress(part, count)

    parts = {
        name: digest_tree(folder, staged=True, progress=report(name), threads=threads)
        for name, folder in root.parts.items()
    }
    parts["model"] = digest_tree(model_dir, progress=report("model"), threads=threads)
    parts["system"] = libraries_digest(library_tags(root.system))
    parts["args"] = arguments_digest([*LAUNCH_FLAGS, BOOTSTRAP, *args])
    parts["env"] = environment_digest(env)
    parts["config"] = sha256_tag(config)
    return combine(parts), parts


def _interpreter_files() -> tuple[Path, ...]:
    """The interpreter (behind a virtual environment's link) and its shared library, if it has one.

    The library is the one mapped into this very process: configuration variables keep the build
    machine's folders.
    """
    base: str = getattr(sys, "_base_executable", sys.executable)
    files = [Path(base).resolve()]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    mapped = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/libpython" in line}
    files += [Path(name).resolve() for name in sorted(mapped)]
    return tuple(files)


def _top_level(distribution: str) -> Iterator[Path]:
    """The installed top-level files and folders of `distribution`, from its RECORD.

    Scripts lie outside the package folder and start-up files (``.pth``) run code unasked: neither
    is yielded.
    """
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"stage: {distribution}: expected an installed distribution, found none",
            hint="Install the worker's requirements: pip install -e .[worker]",
        ) from None
    names = {file.parts[0] for file in found.files or ()}
    if not names:
        raise ConfigError(f"stage: {distribution}: found no RECORD, expected a list of files")
    for name in sorted(names - {"..", "__pycache__"}):
        if not name.endswith(".pth"):
            yield Path(str(found.locate_file(name)))


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigError(f"stage: {name}: expected an importable package, found none")
    return Path(spec.origin).parent


def _stage(target: Path, source: Path, relpath: str, targets: list[Path]) -> None:
    """Link `source`, or descend where some of its children are left out."""
    if relpath in _LEFT_OUT[""]:
        return
    trimmed = {*_LEFT_OUT, *_ONLY}
    if relpath not in trimmed and not any(key.startswith(relpath + "/") for key in trimmed):
        _link(target, source, targets)
        return
    target.mkdir()
    for child in sorted(source.iterdir()):
        if child.name in _LEFT_OUT.get(relpath, ()):
            continue
        if relpath in _ONLY and child.name not in _ONLY[relpath]:
            continue
        _stage(target / child.name, child, f"{relpath}/{child.name}", targets)


def _link(target: Path, source: Path, targets: list[Path]) -> None:
    if source.name == "__pycache__" or source.suffix == ".pyc":
        return
    # Resolved here, so that the digest follows one link and needs to trust no second.
    real = source.resolve(strict=True)
    target.symlink_to(real)
    targets.append(real)
