"""The system's libraries that a worker's own files ask for: measured too, since they are its code.

The staged root holds everything that Python imports, but libc, libstdc++ and the loader come from
the system's folders. Which of them, the files say themselves (DT_NEEDED); this follows the names
until no new one appears. What is loaded by name at run time instead is listed in `ALSO`; the
worker compares what is really mapped with the result (`complete`), so a gap here stops the worker
and never passes unmeasured code.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attestation.measurement import digest_bytes, tree_digest
from wire.errors import ConfigError

from .elf import needed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Loaded by name while a worker runs, so no staged file asks for them; what is not on this machine
# is left out. A driver's libraries are thus part of the measurement wherever they are installed:
# whether a GPU is used must not depend on whether its code was measured.
ALSO: Final = (
    "libgcc_s.so.1",  # by libc itself, when a thread ends
    "libcuda.so.1",  # NVIDIA's driver, by CUDA's runtime, which is staged with torch
    "libnvidia-ml.so.1",  # NVML, by torch's memory management
    "libnvidia-ptxjitcompiler.so.1",  # by libcuda, to compile kernels for this GPU
    "libnvidia-nvvm.so.4",  # by libcuda, likewise
    "libcudadebugger.so.1",  # by libcuda, where it is installed
)
LIBRARIES_MAX: Final = 256  # a worker needs about twenty

# Extension modules of the standard library that no worker imports: what they ask for (an X server's
# libraries, a terminal's) would make the measurement depend on desktops.
NEVER_LOADED: Final = frozenset(
    {"_curses", "_curses_panel", "_dbm", "_gdbm", "_sqlite3", "_tkinter", "nis", "readline"}
)

_LIBRARY = re.compile(r".+\.so(?:\.[0-9.]+)?")


def system_folders() -> tuple[Path, ...]:
    """Where the loader looks without being told: multi-architecture folders first."""
    multiarch = f"{platform.machine()}-linux-gnu"
    names = (
        f"/lib/{multiarch}",
        f"/usr/lib/{multiarch}",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    )
    return tuple(Path(name) for name in names)


def system_libraries(
    folders: Iterable[Path], where: tuple[Path, ...] | None = None
) -> Mapping[str, Path]:
    """Library name to its file in the system's folders.

    Args:
        folders: the staged root's folders; links in them are followed.
        where: the system's folders; `system_folders()` if None.

    Raises:
        ConfigError: a staged library contradicts itself, or there are too many.
        OSError: a file cannot be read.
    """
    places = system_folders() if where is None else where
    staged = list(_libraries(folders))
    own = {path.name for path in staged}
    found: dict[str, Path] = {}
    waiting = [name for path in staged for name in needed(path)] + list(ALSO)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in own:
            continue
        seen.add(name)
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            continue  # optional at run time, or the loader will refuse to start
        found[name] = path.resolve()
        if len(found) > LIBRARIES_MAX:
            raise ConfigError(f"system libraries: found more than {LIBRARIES_MAX}")
        waiting.extend(needed(path))
    return dict(sorted(found.items()))


def library_tags(libraries: Mapping[str, Path]) -> dict[str, str]:
    """Library name to the "sha256:" tag of its file.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: file_tag(path) for name, path in libraries.items()}


def file_tag(path: Path) -> str:
    """The "sha256:" tag of a file's content."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def libraries_digest(tags: Mapping[str, str]) -> str:
    """The part `system`: a tree of the libraries by name. Their folders differ between systems.

    Raises:
        MalformedError: no library, or a name or tag that is none.
    """
    return tree_digest((name, digest_bytes(tag)) for name, tag in tags.items())


def _libraries(folders: Iterable[Path]) -> Iterable[Path]:
    """Shared libraries, and the programs in them (the interpreter), of the staged folders."""
    for folder in folders:
        for place, _, names in os.walk(folder, followlinks=True):
            for name in names:
                if name.partition(".")[0] in NEVER_LOADED:
                    continue
                path = Path(place) / name
                if _LIBRARY.fullmatch(name) or (path.is_symlink() and os.access(path, os.X_OK)):
                    yield path
