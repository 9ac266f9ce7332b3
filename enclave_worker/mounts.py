"""Where a path really leads: which file system, and which place in it.

A mount changes what a path means without changing a file, so a digest of files says nothing about
one that came later. What a path leads to is compared instead: the device of its file system and the
path inside it, which stay the same in another mount namespace and behind a bind mount.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TABLE: Final = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes:
        point: where it is mounted.
        kind: the kind of file system.
        number, parent: its own number, and that of the mount its point is in.
        device: "major:minor" of the file system.
        root: the place in the file system that stands at the point.
    """

    point: str
    kind: str
    number: int = 0
    parent: int = 0
    device: str = ""
    root: str = "/"


_OUTSIDE: Final = Mount("/", "", number=-1, device="?")


def kernel_text(path: Path) -> str:
    """A text of /proc, every byte of it: read as text, a carriage return would end lines."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The lines of a mountinfo file; optional fields end with a lone hyphen.

    Only a newline ends a line and only a space a field: the kernel escapes these two in names, and
    no other character that Python knows as one.

    Raises:
        MalformedError: a line that is none.
    """
    return tuple(map(_mount, filter(None, text.split("\n"))))


def observe_mounts() -> tuple[Mount, ...]:
    """This process' mount table."""
    return parse_mounts(kernel_text(TABLE))


def place_of(path: str, mounts: Sequence[Mount]) -> str:
    """ "major:minor path": where an absolute path without links leads.

    Goes down the path and enters every mount on the way, the last of those on top of each other; a
    mount that another one covers is not on the way. What a table does not show (the root's mount,
    in a chroot) has no device.
    """
    numbers = {mount.number for mount in mounts}
    below: dict[tuple[int, str], Mount] = {}
    for mount in mounts:
        # The first file system of all, which an enclave runs from, is its own parent.
        shown = mount.parent in numbers and mount.parent != mount.number
        below[mount.parent if shown else _OUTSIDE.number, mount.point] = mount
    at = _OUTSIDE
    for step in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
        while child := below.get((at.number, str(step))):
            at = child
    inside = PurePosixPath(path).relative_to(at.point).parts
    # Joined as text: "//deleted" behind the root of one that is gone must not become "/deleted".
    return f"{at.device} {'/'.join((at.root.removesuffix('/'), *inside)) or '/'}"


def places_of(paths: Iterable[str], mounts: Sequence[Mount]) -> dict[str, str]:
    """Each path with where it leads now, links on its way followed."""
    return {path: place_of(os.path.realpath(path), mounts) for path in paths}


def _mount(line: str) -> Mount:
    try:
        number, parent, device, root, point, *rest = line.split(" ")
        kind = rest[rest.index("-") + 1]
        return Mount(_plain(point), kind, int(number), int(parent), device, _plain(root))
    except (ValueError, IndexError):
        raise MalformedError(
            f"mount table: found a line of {len(line)} characters that is none, expected "
            "numbers, a root, a point and a kind"
        ) from None


def _plain(text: str) -> str:
    """The kernel writes spaces and the like as octal escapes."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
