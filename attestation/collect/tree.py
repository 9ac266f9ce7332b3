"""Reads a folder tree and digests it: the I/O half of `attestation.measurement`.

Every file is read through the descriptor by which it was found: folders are walked by descriptor,
names are opened without following links, so what is hashed is what lay under that name at that
moment, and nobody can swap a path component in between. What this cannot see is a change made
after the walk; only a read-only image (dm-verity, fs-verity) closes that gap.
"""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from attestation.measurement import measured, tree_digest
from wire.errors import ConfigError

__all__ = ("Progress", "digest_tree", "file_digests")

# Told the number of bytes just hashed, always from the calling thread.
Progress = Callable[[int], None]

_CHUNK: Final = 1 << 20  # large enough that system calls and the interpreter lock do not show
# Files waiting for a thread keep a descriptor each: far below the usual limit of 1024.
_OPEN_MAX: Final = 64
_DEPTH_MAX: Final = 64  # a tree nested deeper is a loop or an attack, not a package

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# NONBLOCK so that a named pipe put in the tree is refused instead of waited for.
_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def digest_tree(
    root: Path, *, staged: bool = False, progress: Progress | None = None, threads: int = 2
) -> str:
    """The "sha256:" tree digest of the measured files under `root`.

    Args:
        root: the folder; may itself be reached through a link.
        staged: `root` is a folder of links made by `enclave_worker.stage`: follow the links found
            in its own folders, once. Links inside what they point to are refused as everywhere.
        progress: called with bytes hashed since the last call.
        threads: hashing threads; the digest does not depend on it.

    Raises:
        ConfigError: a link (not staged, dangling, or behind another), a device, pipe or socket, a
            file that changed while it was read, a loop, or a folder that cannot be read.
        MalformedError: no measured file at all (from `tree_digest`).
    """
    return tree_digest(
        file_digests(root, staged=staged, progress=progress, threads=threads).items()
    )


def file_digests(
    root: Path, *, staged: bool = False, progress: Progress | None = None, threads: int = 2
) -> dict[str, bytes]:
    """SHA-256 (32 bytes) of each measured file by its relative path; see `digest_tree`."""
    found: dict[str, bytes] = {}
    waiting: deque[tuple[str, Future[tuple[bytes, int]]]] = deque()

    def settle() -> None:
        relpath, future = waiting.popleft()
        found[relpath], size = future.result()
        if progress is not None:
            progress(size)

    # After an error the pool still runs every submitted job: each closes its own descriptor.
    with (
        ThreadPoolExecutor(max_workers=max(1, threads)) as pool,
        closing(_files(root, staged=staged)) as files,
    ):
        for relpath, fd in files:
            waiting.append((relpath, pool.submit(_hash_and_close, relpath, fd)))
            if len(waiting) >= _OPEN_MAX:
                settle()
        while waiting:
            settle()
    return found


def _hash_and_close(relpath: str, fd: int) -> tuple[bytes, int]:
    try:
        before = os.fstat(fd)
        state = hashlib.sha256()
        buffer = memoryview(bytearray(min(_CHUNK, before.st_size + 1)))
        total = 0
        # Bounded by the size at the start: a file that is appended to for ever must not hold us.
        while total <= before.st_size and (count := os.readv(fd, [buffer])):
            state.update(buffer[:count])
            total += count
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if total != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise ConfigError(f"tree: {relpath}: the file changed while it was read")
    return state.digest(), total


def _files(root: Path, *, staged: bool) -> Generator[tuple[str, int], None, None]:
    """Every measured file as (relative path, open descriptor); the receiver closes it."""
    try:
        fd = os.open(root, _FOLDER)
    except OSError as error:
        raise ConfigError(f"tree: {root.name}: {os.strerror(error.errno or 0)}") from None
    try:
        yield from _walk(fd, "", 0, follow=staged)
    finally:
        os.close(fd)


def _walk(
    folder: int, prefix: str, depth: int, *, follow: bool
) -> Generator[tuple[str, int], None, None]:
    if depth > _DEPTH_MAX:
        raise ConfigError(f"tree: {prefix}: found more than {_DEPTH_MAX} nested folders")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        relpath = prefix + name
        if not measured(relpath):
            continue
        fd, behind_link = _open(folder, name, relpath, follow=follow)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            yield relpath, fd
            continue
        try:
            if not stat.S_ISDIR(mode):
                raise ConfigError(f"tree: {relpath}: found a special file, expected plain files")
            # One link deep: behind it nothing may lead anywhere else.
            yield from _walk(fd, relpath + "/", depth + 1, follow=follow and not behind_link)
        finally:
            os.close(fd)


def _open(folder: int, name: str, relpath: str, *, follow: bool) -> tuple[int, bool]:
    """Open one entry without following links, except a staged root's own; True if it was one."""
    try:
        return os.open(name, _FILE, dir_fd=folder), False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise ConfigError(f"tree: {relpath}: {os.strerror(error.errno or 0)}") from None
    if not follow:
        raise ConfigError(
            f"tree: {relpath}: found a symbolic link, expected plain files and folders",
            hint="Copy the folder so that it holds the files themselves.",
        )
    try:
        # The stage resolves its links before it makes them, so the target must be no link either.
        target = os.readlink(name, dir_fd=folder)
        return os.open(target, _FILE, dir_fd=folder), True
    except OSError as error:
        raise ConfigError(
            f"tree: {relpath}: the link leads to no plain file or folder"
            f" ({os.strerror(error.errno or 0)})"
        ) from None
