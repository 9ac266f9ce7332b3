"""What a worker process finds when it looks at itself: /proc, its arguments, its modules.

The kernel's texts are parsed here and judged in `complete`. Read in one go at the start: Landlock
and the limits close most of /proc to the process itself.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .mounts import kernel_text, observe_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .mounts import Mount

SELF: Final = Path("/proc/self")
NULL: Final = Path("/dev/null")
DELETED: Final = " (deleted)"
NEWLINE: Final = r"\012"  # how maps writes one in a name, and how it writes these four characters
KERNELS: Final = frozenset({"[vdso]", "[vsyscall]"})  # code that the kernel puts into every process


@dataclass(frozen=True, slots=True)
class Mapping:
    """One file mapped into memory; `deleted` if its name does not lead to it, or may not."""

    path: str
    code: bool
    deleted: bool


@dataclass(frozen=True, slots=True)
class Start:
    """What the process was started with.

    Attributes:
        program: the executable's path.
        name: what it was started as, argument 0: the interpreter finds its library by it.
        arguments: everything behind it.
        variables: the environment as the kernel has it, "name=value" each.
        descriptors: numbers of the open descriptors.
        mounts: the mount table.
        mappings: the files mapped.
        loose: executable memory that no file stands behind, by the kernel's name for it.
        tracer: process id of a debugger; 0 without one, or with one outside the namespace.
        null: whether /dev/null is the device of that name.
    """

    program: str
    name: str
    arguments: tuple[str, ...]
    variables: tuple[str, ...]
    descriptors: tuple[int, ...]
    mounts: tuple[Mount, ...]
    mappings: tuple[Mapping, ...]
    loose: tuple[str, ...]
    tracer: int
    null: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged root as it is now.

    Attributes:
        path: the folder.
        targets: where its links lead.
        interpreters: those of them that are programs to start.
    """

    path: str
    targets: frozenset[str]
    interpreters: frozenset[str]


def observe_start() -> Start:
    """Look at this process. Call before anything opens a descriptor."""
    maps = kernel_text(SELF / "maps")
    return Start(
        program=str((SELF / "exe").readlink()),
        name=sys.orig_argv[0],
        arguments=tuple(sys.orig_argv[1:]),
        variables=_variables((SELF / "environ").read_bytes()),
        descriptors=_descriptors(),
        mounts=observe_mounts(),
        mappings=parse_mappings(maps),
        loose=parse_loose(maps),
        tracer=parse_tracer(kernel_text(SELF / "status")),
        null=_is_null(NULL.stat()),
    )


def observe_root(path: Path) -> Staged:
    """Look at a staged root."""
    return Staged(str(path), _targets(path), _targets(path / "interpreter"))


def observe_mappings() -> tuple[Mapping, ...]:
    """The files mapped into this process now."""
    return parse_mappings(kernel_text(SELF / "maps"))


def module_files() -> tuple[str, ...]:
    """The files that the modules imported so far were loaded from.

    By their import records: modules made at run time have none, and name what they like as file.
    """
    specs = (getattr(module, "__spec__", None) for module in list(sys.modules.values()))
    origins = (spec.origin for spec in specs if spec is not None and spec.has_location)
    return tuple(sorted({origin for origin in origins if isinstance(origin, str)}))


def parse_mappings(text: str) -> tuple[Mapping, ...]:
    """The file mappings of a maps file, each path once; code if any part of it is executable."""
    code: dict[str, bool] = {}
    for rights, name in _regions(text):
        if name.startswith("/"):
            code[name] = code.get(name, False) or "x" in rights
    return tuple(
        Mapping(path.removesuffix(DELETED), executable, path.endswith(DELETED) or NEWLINE in path)
        for path, executable in sorted(code.items())
    )


def parse_loose(text: str) -> tuple[str, ...]:
    """Names of a maps file's executable memory without a file, but for the kernel's own."""
    return tuple(
        name or "anonymous memory"
        for rights, name in _regions(text)
        if "x" in rights and not name.startswith("/") and name not in KERNELS
    )


def parse_tracer(text: str) -> int:
    """The process id behind TracerPid in a status file."""
    return int(next(line.split()[1] for line in text.split("\n") if line.startswith("TracerPid:")))


def _regions(text: str) -> Iterable[tuple[str, str]]:
    """Rights and name of each line of a maps file.

    Lines end and fields part as the kernel writes them and nowhere else: names are others' choice.
    """
    for line in filter(None, text.split("\n")):
        _, rights, _, _, _, *name = line.split(" ", 5)
        yield rights, "".join(name).lstrip(" ")


def _is_null(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def _variables(raw: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(item) for item in raw.split(b"\0") if item)


def _descriptors() -> tuple[int, ...]:
    listed = [int(path.name) for path in (SELF / "fd").iterdir()]
    return tuple(sorted(filter(_is_open, listed)))


def _is_open(number: int) -> bool:
    """Whether it is still open: the descriptor that listed the folder is among those listed."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _targets(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for place, folders, files in os.walk(path):
        found.update(_links(place, (*folders, *files)))
    return frozenset(found)


def _links(place: str, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        path = Path(place) / name
        if path.is_symlink():
            yield str(path.readlink())
