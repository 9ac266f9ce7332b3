"""What ELF files ask the loader for: real libraries, and files that contradict themselves."""

import contextlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enclave_worker.elf import needed
from enclave_worker.system_libraries import (
    ALSO,
    file_tag,
    libraries_digest,
    system_libraries,
)
from wire.errors import ConfigError, MalformedError

LIBC = next(path for name, path in system_libraries([]).items() if name == "libc.so.6")


def image(
    names: bytes = b"\0liba.so.1\0libb.so\0",
    offsets: tuple[int, ...] = (1, 11),
    *,
    table: int = 0x1000,
    size: int | None = None,
    dynamic: int | None = None,
) -> bytes:
    """A minimal 64-bit library: two segments, a dynamic section, a string table."""
    entries = [(1, offset) for offset in offsets]
    entries += [(5, table), (10, len(names) if size is None else size), (0, 0)]
    section = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    at = 64 + 2 * 56
    length = len(section) if dynamic is None else dynamic
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    text = at + len(section)
    load = struct.pack("<IIQQQQQQ", 1, 4, text, 0x1000, 0, len(names), len(names), 8)
    dyn = struct.pack("<IIQQQQQQ", 2, 4, at, 0x2000, 0, length, length, 8)
    return head + load + dyn + section + names


def asked(path: Path, data: bytes) -> tuple[str, ...]:
    path.write_bytes(data)
    return needed(path)


def test_a_small_library_asks_for_its_two_names(tmp_path: Path) -> None:
    assert asked(tmp_path / "x.so", image()) == ("liba.so.1", "libb.so")


def test_the_c_library_asks_for_the_loader() -> None:
    assert needed(LIBC) == (next(name for name in system_libraries([]) if name.startswith("ld-")),)


def test_the_systems_own_tool_agrees() -> None:
    tool = "/usr/bin/readelf"
    if not Path(tool).exists():
        pytest.skip("binutils is not installed")
    for path in {Path(sys.executable).resolve(), *system_libraries([]).values()}:
        said = subprocess.run([tool, "-d", str(path)], capture_output=True, text=True, check=True)
        lines = [line for line in said.stdout.splitlines() if "(NEEDED)" in line]
        assert needed(path) == tuple(line.rsplit("[", 1)[1].rstrip("]") for line in lines)


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(64), image()[:63]]
)
def test_a_file_that_is_no_such_library_asks_for_nothing(tmp_path: Path, data: bytes) -> None:
    assert asked(tmp_path / "x", data) == ()


@pytest.mark.parametrize(
    "data",
    [
        image(offsets=(99,)),
        image(names=b"\0unterminated", offsets=(1,)),
        image(names=b"\0a/b.so\0", offsets=(1,)),
        image(names=b"\0\xff.so\0", offsets=(1,)),
        image(table=0x9000),
        image(size=1 << 40),
        image(size=0),
        image(dynamic=1 << 30),
        image()[:200],
        image()[:54] + b"\1\0" + image()[56:],
        image()[:56] + b"\xff\xff" + image()[58:],
        image()[:32] + b"\xff" * 8 + image()[40:],
    ],
    ids=[
        "name-offset", "no-end", "a-path", "no-ascii", "table-elsewhere", "table-huge",
        "table-empty", "dynamic-huge", "cut", "entry-size", "segments", "offset-huge",
    ],
)  # fmt: skip
def test_a_library_that_contradicts_itself_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"ELF: x\.so"):
        asked(tmp_path / "x.so", data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(6, len(image()) - 1), byte=st.integers(0, 255))
def test_one_changed_byte_raises_nothing_else(tmp_path: Path, at: int, byte: int) -> None:
    data = bytearray(image())
    data[at] = byte
    with contextlib.suppress(ConfigError):
        asked(tmp_path / "x.so", bytes(data))


def test_libraries_are_found_by_following_names_and_their_own_are_not(tmp_path: Path) -> None:
    staged, system = tmp_path / "staged", tmp_path / "system"
    staged.mkdir()
    system.mkdir()
    (staged / "top.so").write_bytes(image())
    (staged / "libb.so").write_bytes(b"bundled")
    (staged / "_tkinter.cpython-311.so").write_bytes(image(b"\0libX.so\0", (1,)))
    (system / "liba.so.1").write_bytes(image(b"\0libc.so.9\0", (1,)))
    (system / "libc.so.9").write_bytes(b"")
    (system / "libX.so").write_bytes(b"")
    found = system_libraries([staged], (system,))
    assert list(found) == ["liba.so.1", "libc.so.9"]


@pytest.mark.parametrize("name", ["libgcc_s.so.1", "libcuda.so.1", "libnvidia-ml.so.1"])
def test_a_library_that_is_loaded_by_name_is_measured_where_it_is_installed(
    tmp_path: Path, name: str
) -> None:
    assert name in ALSO
    assert system_libraries([], (tmp_path,)) == {}
    (tmp_path / name).write_bytes(image(b"\0libdriver.so.9\0", (1,)))
    (tmp_path / "libdriver.so.9").write_bytes(b"")
    assert set(system_libraries([], (tmp_path,))) == {name, "libdriver.so.9"}


def test_no_library_at_all_has_no_digest() -> None:
    with pytest.raises(MalformedError):
        libraries_digest({})
    assert libraries_digest({"libc.so.6": file_tag(LIBC)}).startswith("sha256:")
