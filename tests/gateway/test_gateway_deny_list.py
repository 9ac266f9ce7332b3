"""The operator's deny list is read whole and exactly, or not at all."""

from __future__ import annotations

import pytest

from gateway.deny_list import ENTRIES_MAX, parse_deny_list
from wire.errors import ConfigError
from wire.ids import b64u


def test_lines_name_bindings_and_may_say_why() -> None:
    first, second = bytes(32), bytes(31) + b"\1"
    text = f"# stolen\n\n{b64u(first)}  # a disk\n {b64u(second)}\n{b64u(first)}\n"
    assert parse_deny_list(text) == {first, second}


@pytest.mark.parametrize("line", ["A", "!" * 43, b64u(bytes(31)), b64u(bytes(33)), "A" * 42 + "B"])
def test_a_line_that_names_no_binding_stops_the_list(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        parse_deny_list(f"{b64u(bytes(32))}\n{line}\n")


def test_a_list_ends_at_its_limit() -> None:
    lines = [b64u(number.to_bytes(32, "big")) for number in range(ENTRIES_MAX + 1)]
    assert len(parse_deny_list("\n".join(lines[:ENTRIES_MAX]))) == ENTRIES_MAX
    with pytest.raises(ConfigError, match=f"at most {ENTRIES_MAX}"):
        parse_deny_list("\n".join(lines))
