"""`--help` of every command: examples, exit codes, and no line a terminal would break."""

import argparse
import re
from collections.abc import Iterator

import pytest

from ops.cli import build_parser

COLUMNS = 80


def parsers(
    parser: argparse.ArgumentParser, path: str = "anchorhold"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and group of commands there is, found in the parser itself."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, f"{path} {name}")


ALL = dict(parsers(build_parser()))


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def test_every_known_command_is_among_those_found() -> None:
    assert {"anchorhold", "anchorhold key create", "anchorhold policy check"} <= set(ALL)
    assert len(ALL) >= 20


@pytest.mark.parametrize("name", ALL)
def test_no_line_of_help_is_wider_than_a_terminal(name: str) -> None:
    wide = [line for line in ALL[name].format_help().splitlines() if len(line) > COLUMNS]
    assert not wide


@pytest.mark.parametrize("name", ALL)
def test_help_ends_with_examples_of_the_command_and_its_exit_codes(name: str) -> None:
    _, _, end = ALL[name].format_help().partition("\nexamples:\n")
    assert re.match(rf"  {name}\s", end)
    codes = re.search(r"^exit codes: 0 ok,.*", end, re.MULTILINE | re.DOTALL)
    assert codes is not None
    assert "4 unreadable or usage" in codes.group()


@pytest.mark.parametrize("name", ALL)
def test_every_option_and_argument_says_what_it_is(name: str) -> None:
    for action in ALL[name]._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, action.dest


@pytest.mark.parametrize("name", ALL)
def test_asking_for_help_is_no_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*name.split()[1:], "--help"])
    assert not stop.value.code
    assert capsys.readouterr().out.startswith("usage: ")
