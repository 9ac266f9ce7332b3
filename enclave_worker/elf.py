"""Which shared libraries an ELF file asks the loader for: its DT_NEEDED names; 64-bit files only.

Reads the program headers and the dynamic section with `pread`, never the whole file: the largest
library here has 400 MB. A file that is no such ELF file needs nothing.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_HEADER: Final = struct.Struct("<16xHHIQQQIHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<QQ")
_LOAD, _DYNAMIC = 1, 2
_NULL, _NEEDED, _STRTAB, _STRSZ = 0, 1, 5, 10

SEGMENTS_MAX: Final = 256  # linkers make about ten
DYNAMIC_MAX: Final = 64 * 1024
STRINGS_MAX: Final = 64 << 20  # a large C++ library has megabytes of symbol names
NAME_MAX: Final = 255


def needed(path: Path) -> tuple[str, ...]:
    """The names, in the file's order; none if it is no dynamic ELF file.

    Raises:
        ConfigError: an ELF file that contradicts itself.
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, 64, 0)
        if len(head) < 64 or not head.startswith(_MAGIC):
            return ()
        return _Image(fd, path.name).needed(head)
    finally:
        os.close(fd)


class _Image:
    """One open file."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name

    def needed(self, head: bytes) -> tuple[str, ...]:
        fields = _HEADER.unpack_from(head)
        offset, size, count = fields[4], fields[8], fields[9]
        if size != _SEGMENT.size or count > SEGMENTS_MAX:
            raise self._broken("program headers")
        table = self._read(offset, size * count)
        segments = [_SEGMENT.unpack_from(table, at * size) for at in range(count)]
        dynamic = next((item for item in segments if item[0] == _DYNAMIC), None)
        if dynamic is None:
            return ()
        if dynamic[5] > DYNAMIC_MAX:
            raise self._broken("dynamic section")
        raw = self._read(dynamic[2], dynamic[5] - dynamic[5] % _ENTRY.size)
        wanted, tags = [], {}
        for tag, value in _ENTRY.iter_unpack(raw):
            if tag == _NULL:
                break
            if tag == _NEEDED:
                wanted.append(value)
            tags[tag] = value
        if not wanted:
            return ()
        return self._names(segments, tags, wanted)

    def _names(
        self, segments: list[tuple[int, ...]], tags: dict[int, int], wanted: list[int]
    ) -> tuple[str, ...]:
        address, size = tags.get(_STRTAB, 0), tags.get(_STRSZ, 0)
        if not 0 < size <= STRINGS_MAX:
            raise self._broken("string table")
        for kind, _, offset, start, _, length, _, _ in segments:
            if kind == _LOAD and start <= address and address + size <= start + length:
                base = offset + address - start
                return tuple(self._name_at(base, size, at) for at in wanted)
        raise self._broken("string table")

    def _name_at(self, base: int, size: int, at: int) -> str:
        if at >= size:
            raise self._broken("library name")
        raw = self._read(base + at, min(NAME_MAX + 1, size - at))
        name, end, _ = raw.partition(b"\0")
        if not end or not name.isascii() or b"/" in name:
            raise self._broken("library name")
        return name.decode("ascii")

    def _read(self, offset: int, count: int) -> bytes:
        found = os.pread(self._fd, count, offset) if offset < 2**63 else b""
        if len(found) != count:
            raise self._broken("length")
        return found

    def _broken(self, what: str) -> ConfigError:
        return ConfigError(f"ELF: {self._name}: found a {what} that cannot be, expected a library")
