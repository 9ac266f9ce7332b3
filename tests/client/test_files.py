"""Files of a client are written whole or not at all."""

from pathlib import Path

import pytest

from client.api import Client
from client.files import write_whole
from wire.errors import ConfigError


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


def test_a_receipt_that_cannot_be_saved_leaves_nothing_behind(
    client: Client, tmp_path: Path
) -> None:
    receipt = client.chat([{"role": "user", "content": "hi"}], "m").receipt
    folder = tmp_path / "receipts"
    (folder / "taken").mkdir(parents=True)
    with pytest.raises(ConfigError, match="receipt file"):
        receipt.save(folder / "taken")
    assert [path.name for path in folder.iterdir()] == ["taken"]
