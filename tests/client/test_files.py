"""What a client saves is written whole or not at all."""

from pathlib import Path

import pytest

from client.api import Client
from wire.errors import ConfigError


def test_a_receipt_that_cannot_be_saved_leaves_nothing_behind(
    client: Client, tmp_path: Path
) -> None:
    receipt = client.chat([{"role": "user", "content": "hi"}], "m").receipt
    folder = tmp_path / "receipts"
    (folder / "taken").mkdir(parents=True)
    with pytest.raises(ConfigError, match="receipt file"):
        receipt.save(folder / "taken")
    assert [path.name for path in folder.iterdir()] == ["taken"]
