"""docs/operate/cli.md says what the parser does, command by command and flag by flag."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ops.cli import build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "cli.md"


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ("anchorhold",)
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not any(action.required for action in below):
        yield " ".join(path), parser
    for action in below:
        for name, child in action.choices.items():
            yield from commands(child, (*path, name))


COMMANDS = dict(commands(build_parser()))
SECTIONS = {
    part.partition("\n")[0].strip(): part
    for part in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)
}


def flags(parser: argparse.ArgumentParser) -> set[str]:
    named = {word for a in parser._actions for word in a.option_strings if word.startswith("--")}
    return named - {"--help"}


def test_every_command_has_its_section_and_every_section_its_command() -> None:
    written = {title for title in SECTIONS if title.startswith("anchorhold ")}
    assert written == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_described_and_every_described_flag_exists(name: str) -> None:
    table = "\n".join(line for line in SECTIONS[name].splitlines() if line.startswith("|"))
    assert set(re.findall(r"--[a-z][a-z-]*(?=[ `])", table)) == flags(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_described(name: str) -> None:
    for action in COMMANDS[name]._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            assert f"| `{(action.metavar or action.dest).upper()}`" in SECTIONS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[name], flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert lines
    for line in lines:
        assert f"{line} ".startswith(f"{name} "), line
        words = shlex.split(line)[1:]
        build_parser().parse_args(words)
