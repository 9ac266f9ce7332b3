"""What may stand where a program expects a file of its own: no file at all, or other contents.

Each entry makes one at a path: `NO_FILES["a pipe"](path)`. Nobody writes into the pipe, and the GiB
takes no room on the disk. All are their owner's alone, as files with secrets must be.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def content(raw: bytes) -> Callable[[Path], None]:
    """A file with these bytes."""

    def make(path: Path) -> None:
        path.write_bytes(raw)
        path.chmod(0o600)

    return make


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)
    path.chmod(0o600)


def _folder(path: Path) -> None:
    path.mkdir()


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a device": _device,
    "a GiB of nothing": _sparse,
    "a folder": _folder,
    "a circle": _circle,
}
NESTED_TOML = content(b"a = [\n" * 3000)
OTHERS: dict[str, Callable[[Path], None]] = {
    "nested JSON": content(b"[" * 30_000),
    "a long number": content(b'{"v":' + b"9" * 5000 + b"}"),
    "no text": content(b"\xff\xfe\x00"),
}
