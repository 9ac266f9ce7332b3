"""The operator's commands refuse as the tenant's do: a sentence, a hint, lines that fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from client import cli
from ops.cli import build_parser

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = [
    "key list --table empty",
    "key list --table none.json",
    "key list --table folder",
    "key create --table made.json --tenant " + "x" * 400,
    "key create --table made.json --tenant acme --env No",
    "key create --table empty/made.json --tenant acme",
    "key revoke --table none.json 7f3a90c1",
    "gateway --config folder",
    "gateway --config none.toml",
    "gateway --config unknown.toml",
    "gateway --config empty",
    "worker --config folder",
    "worker --config unknown.toml",
    "worker --config empty",
    "demo --workers 0",
    "demo --port 99999",
    "model import nothere made",
    "model inspect nothere",
    "model verify nothere",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "unknown.toml").write_text("prot = 1\n")
    return tmp_path


def refused(line: str) -> int:
    words = line.split()
    return cli.execute(build_parser(words[0]), words)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("line", REFUSED)
def test_a_refusal_has_a_hint_and_fits_the_terminal(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    columns: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert refused(line) == 4
    out, err = capsys.readouterr()
    assert out == ""
    said = err[err.index("anchorhold: ") :].splitlines()
    assert sum(line.startswith("hint: ") for line in said) == 1
    for line in said:
        assert len(line) <= columns or len(line.split()) == 1


@pytest.mark.parametrize("line", [line for line in REFUSED if line.startswith("key ")])
def test_a_refusal_as_json_is_a_document_of_the_same_form(
    here: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert refused(f"{line} --json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["exit_code"] == 4
    assert all(document["error"][name] for name in ("code", "message", "hint"))
