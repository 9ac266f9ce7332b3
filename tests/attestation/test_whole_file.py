"""A file is replaced whole, durably, and for its owner alone; or it stays what it was."""

import os
from pathlib import Path

import pytest

from attestation.collateral.whole_file import read_whole, write_whole


def test_a_file_is_replaced_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    target = tmp_path / "record"
    target.write_bytes(b"the old record, which is longer")
    target.chmod(0o644)
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "record", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(tmp_path: Path) -> None:
    other, target = tmp_path / "other", tmp_path / "record"
    other.write_bytes(b"somebody else's")
    target.symlink_to(other)
    write_whole(target, b"new")
    assert not target.is_symlink()
    assert (target.read_bytes(), other.read_bytes()) == (b"new", b"somebody else's")


def test_a_file_of_the_greatest_size_is_read_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"four")
    assert read_whole(target, 4) == b"four"
    with pytest.raises(OSError, match="found 4 bytes, expected at most 3"):
        read_whole(target, 3)


def test_a_pipe_that_nobody_writes_to_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="found a pipe, expected a file"):
        read_whole(tmp_path / "pipe", 4)
    assert read_whole(tmp_path / "pipe", 4, pipes=True) == b""


def test_a_pipe_that_gives_more_than_is_taken_is_refused() -> None:
    read, write = os.pipe()
    os.write(write, b"five!")
    with pytest.raises(OSError, match="found more than 4 bytes, expected at most 4"):
        read_whole(Path(f"/dev/fd/{read}"), 4, pipes=True)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
@pytest.mark.parametrize("pipes", [False, True])
def test_a_device_is_no_file(name: str, pipes: bool) -> None:
    with pytest.raises(OSError, match="found a device, expected a file"):
        read_whole(Path(name), 4, pipes=pipes)


def test_a_name_that_no_file_can_have_is_an_error_like_others() -> None:
    with pytest.raises(OSError, match="no name that a file can have"):
        read_whole(Path("a\0b"), 4)
