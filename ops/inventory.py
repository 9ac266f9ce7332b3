"""What a worker can import: distributions, packages, shared objects, and our own lines.

Staged as the launcher stages it (`enclave_worker.stage`), looked at, and thrown away: nothing is
started, loaded or hashed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import io
import os
import re
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enclave_worker.stage import WORKER_DISTRIBUTIONS, stage_worker_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Area of first-party code by the folder it lies in, the longest first.
AREAS: Final[Mapping[str, str]] = {
    "enclave_worker/engine/ops/native": "engine: native C++",
    "enclave_worker/engine/models": "engine: models",
    "enclave_worker/engine/ops": "engine: ops",
    "enclave_worker/engine/sampling": "engine: sampling",
    "enclave_worker/engine": "engine: loop and text",
    "enclave_worker/api": "worker: API",
    "enclave_worker/sandbox": "worker: sandbox",
    "enclave_worker": "worker: rest",
    "attestation": "attestation",
    "evidence": "evidence",
    "wire": "wire",
}
ENGINE: Final = "engine: "
PYTHON: Final = ".py"
SOURCES: Final = frozenset({PYTHON, ".cpp", ".h"})
_SHARED: Final = re.compile(r"\.so(\.[0-9.]+)?$")
# What tells builds of one library apart in its name: interpreter, platform, digest of a wheel.
_ABI: Final = re.compile(r"\.(cpython-\d+[\w-]*|abi3)(?=\.so)")
_WHEEL_DIGEST: Final = re.compile(r"-[0-9a-f]{8,}(?=[.]so|[.-])")
_NO_CODE: Final = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)


@dataclass(frozen=True, slots=True)
class Area:
    """One area of first-party code: files, lines in all, and lines that are code."""

    name: str
    modules: tuple[str, ...]
    lines: int
    code: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything a worker can import.

    Attributes:
        distributions: version by name.
        packages: top-level packages and modules of the distributions.
        shared_objects: of distributions and our own, by path, without what names a build.
        stdlib_objects: of the interpreter's standard library; they differ between builds of it.
        system_libraries: what all of these ask the system's folders for.
        areas: first-party code.
    """

    distributions: Mapping[str, str]
    packages: tuple[str, ...]
    shared_objects: tuple[str, ...]
    stdlib_objects: tuple[str, ...]
    system_libraries: tuple[str, ...]
    areas: tuple[Area, ...]

    def to_json(self) -> dict[str, Any]:
        """The `--json` form."""
        return {
            "distributions": dict(self.distributions),
            "packages": list(self.packages),
            "shared_objects": list(self.shared_objects),
            "stdlib_shared_objects": list(self.stdlib_objects),
            "system_libraries": list(self.system_libraries),
            "first_party": [
                {"area": a.name, "lines": a.lines, "code": a.code, "modules": list(a.modules)}
                for a in self.areas
            ],
        }

    def names(self) -> list[str]:
        """Lines of the golden file: what is the same on every machine with these requirements."""
        return [
            "# What a worker can import: see ops/inventory.py. Names only.",
            *_section("distributions", self.distributions),
            *_section("packages", self.packages),
            *_section("shared objects", self.shared_objects),
            *_section("first-party areas", (area.name for area in self.areas)),
        ]

    def lines(self) -> list[str]:
        """The report, as printed."""
        versions = [f"{name} {version}" for name, version in self.distributions.items()]
        return [
            *_section("distributions", versions),
            *_section("packages", self.packages),
            *_section("shared objects", self.shared_objects),
            *_section("shared objects of the standard library", self.stdlib_objects),
            *_section("system libraries", self.system_libraries),
            "",
            f"{'first-party code':<28}{'files':>7}{'lines':>9}{'code':>9}",
            *(_row(area.name, len(area.modules), area.lines, area.code) for area in self.areas),
            self._total("engine", ENGINE),
            self._total("all", ""),
        ]

    def _total(self, name: str, prefix: str) -> str:
        areas = [area for area in self.areas if area.name.startswith(prefix)]
        files, lines = sum(len(a.modules) for a in areas), sum(a.lines for a in areas)
        return _row(f"total, {name}", files, lines, sum(a.code for a in areas))


def take_inventory() -> Inventory:
    """Stage a worker's root beside everything, and list it.

    Raises:
        ConfigError: a distribution or package is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="anchorhold-inventory-") as place:
        root = stage_worker_root(Path(place) / "root")
        site, ours = root.parts["site"], root.parts["first_party"]
        return Inventory(
            {name: importlib.metadata.version(name) for name in WORKER_DISTRIBUTIONS},
            tuple(sorted(_packages(site))),
            tuple(sorted({plain(name) for part in (site, ours) for name in _shared(part)})),
            tuple(sorted({plain(name) for name in _shared(root.parts["stdlib"])})),
            tuple(root.system),
            tuple(_areas(ours)),
        )


def plain(name: str) -> str:
    """A shared object's name without what tells builds of it apart."""
    return _WHEEL_DIGEST.sub("", _ABI.sub("", name))


def code_lines(path: Path) -> int:
    """Lines of a source file that are neither blank nor comment nor docstring."""
    text = path.read_text(encoding="utf-8")
    return _python_code(text) if path.suffix == PYTHON else _c_code(text)


def _packages(site: Path) -> Iterator[str]:
    for entry in site.iterdir():
        if entry.suffix == PYTHON or (entry / "__init__.py").is_file():
            yield entry.stem
        elif entry.suffix == ".so":
            yield entry.name.partition(".")[0]


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place) / name
            yield path.relative_to(folder).as_posix(), path


def _shared(folder: Path) -> Iterator[str]:
    return (name for name, _ in _files(folder) if _SHARED.search(name))


def _areas(folder: Path) -> Iterator[Area]:
    found: dict[str, list[tuple[str, Path]]] = {area: [] for area in AREAS.values()}
    for name, path in _files(folder):
        if path.suffix in SOURCES:
            where = next(place for place in AREAS if name.startswith(f"{place}/"))
            found[AREAS[where]].append((name, path))
    for area, files in found.items():
        lines = sum(path.read_bytes().count(b"\n") for _, path in files)
        code = sum(code_lines(path) for _, path in files)
        yield Area(area, tuple(sorted(name for name, _ in files)), lines, code)


def _python_code(text: str) -> int:
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def _c_code(text: str) -> int:
    bare = re.sub(
        r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.DOTALL
    )
    return sum(1 for line in bare.splitlines() if line.partition("//")[0].strip())


def _section(title: str, items: Any) -> list[str]:
    return ["", title, *(f"  {item}" for item in items)]


def _row(name: str, files: int, lines: int, code: int) -> str:
    return f"  {name:<26}{files:>7}{lines:>9}{code:>9}"


if __name__ == "__main__":
    print("\n".join(take_inventory().names()))
