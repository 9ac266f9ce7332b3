"""A file is replaced whole, durably, and for its owner alone; or it stays what it was."""

from pathlib import Path

import pytest

from attestation.collateral.whole_file import write_whole


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
