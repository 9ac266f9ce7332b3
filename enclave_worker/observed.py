"""What a worker process finds when it looks at itself: /proc, its arguments, its modules.

The kernel's texts are parsed here and judged in `complete`. Read in one go at the start: Landlock
and the limits close most of /proc to the process itself.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
AT_ONCE: Final = 64  # files mapped anew at a time: each holds a descriptor, of perhaps 256
KERNELS: Final = frozenset({"[vdso]", "[vsyscall]"})  # code that the kernel puts into every process


@dataclass(frozen=True, slots=True)
class Mapping:
    """One file mapped into memory.

    Attributes:
        path: its name, as the kernel shows it.
        code: whether any part of it is executable.
        deleted: whether the kernel says that the name is gone, or may say so.
        elsewhere: whether the name leads to another file now, or to none: in a mount that was taken
            away (`umount -l`, `open_tree`) a file is shown by its path in there.
    """

    path: str
    code: bool
    deleted: bool
    elsewhere: bool = False


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
        mappings=_compared(maps),
        loose=parse_loose(maps),
        tracer=parse_tracer(kernel_text(SELF / "status")),
        null=_is_null(NULL.stat()),
    )


def observe_root(path: Path) -> Staged:
    """Look at a staged root."""
    return Staged(str(path), _targets(path), _targets(path / "interpreter"))


def observe_mappings() -> tuple[Mapping, ...]:
    """The files mapped into this process now."""
    return _compared(kernel_text(SELF / "maps"))


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
    for rights, _, name in _regions(text):
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
        for rights, _, name in _regions(text)
        if "x" in rights and not name.startswith("/") and name not in KERNELS
    )


def parse_tracer(text: str) -> int:
    """The process id behind TracerPid in a status file."""
    return int(next(line.split()[1] for line in text.split("\n") if line.startswith("TracerPid:")))


def _compared(text: str) -> tuple[Mapping, ...]:
    """The mappings of a maps file, each compared with the file that its name leads to now.

    That one is mapped, too, and the kernel asked about both in the same words: what `stat` says of
    a file is something else on file systems such as btrfs and overlay.
    """
    found = parse_mappings(text)
    files = _files(text)
    names = [mapping.path for mapping in found if not mapping.deleted]
    same: set[str] = set()
    for first in range(0, len(names), AT_ONCE):
        with ExitStack() as held:
            plain = [name for name in names[first : first + AT_ONCE] if _map(name, held)]
            anew = _files(kernel_text(SELF / "maps"))
        same.update(name for name in plain if len(files[name] | anew[name]) == 1)
    return tuple(
        replace(mapping, elsewhere=not mapping.deleted and mapping.path not in same)
        for mapping in found
    )


def _map(name: str, held: ExitStack) -> bool:
    """Map the plain file that a name leads to, until `held` ends; False if there is none."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    raw = name.encode("utf-8", "surrogateescape")
    try:
        fd = os.open(raw, flags)
    except OSError:
        return False
    try:
        # Under another name it would be mapped under that one, and say nothing of this.
        here = os.fsencode((SELF / "fd" / str(fd)).readlink())
        if here != raw or not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        held.enter_context(mmap.mmap(fd, 1, mmap.MAP_PRIVATE, mmap.PROT_READ))
    except (OSError, ValueError):  # such as an empty file, of which nobody maps anything
        return False
    finally:
        os.close(fd)
    return True


def _files(text: str) -> dict[str, frozenset[str]]:
    """What a maps file says of the files under each name: device and inode."""
    found: dict[str, set[str]] = {}
    for _, file, name in _regions(text):
        found.setdefault(name, set()).add(file)
    return {name: frozenset(files) for name, files in found.items()}


def _regions(text: str) -> Iterable[tuple[str, str, str]]:
    """Rights, file (device and inode) and name of each line of a maps file.

    Lines end and fields part as the kernel writes them and nowhere else: names are others' choice.
    """
    for line in filter(None, text.split("\n")):
        _, rights, _, device, inode, *name = line.split(" ", 5)
        yield rights, f"{device} {inode}", "".join(name).lstrip(" ")


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
