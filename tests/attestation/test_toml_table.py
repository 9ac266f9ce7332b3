"""Settings in TOML: whatever the bytes, a table or one sentence, and no time lost."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.toml_table import LINE_MAX, SETTINGS_MAX, parse_settings
from wire.errors import MalformedError


def test_settings_are_read_with_their_tables() -> None:
    assert parse_settings(b'a = 1\n[b]\nc = "d"\n') == {"a": 1, "b": {"c": "d"}}
    assert parse_settings(b"") == {}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"#" * (SETTINGS_MAX + 1), "found 65537 bytes, expected at most 65536"),
        (b"\xff\xfe", "found bytes that are no text, expected TOML settings"),
        (b"= =", "found text that is not TOML"),
        (b'a = "\0"', "found text that is not TOML"),
        (b"#" * (LINE_MAX + 1), "found a line of 4097 characters"),
        (b"a" + b".a" * LINE_MAX + b" = 1", "found a line of 8197 characters"),
        (b"a = [\n" + b"[\n" * 5000, "found a number too long or values nested too deep"),
        (b"a = " + b"{a=" * 1000, "found a number too long or values nested too deep"),
        (b"a = 1\na = 1", "found text that is not TOML"),
        (b"[a]\n[a]", "found text that is not TOML"),
    ],
)
def test_what_is_no_settings_is_said(raw: bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said) as refused:
        parse_settings(raw)
    assert len(refused.value.message) < 300
    assert refused.value.message.isprintable()


def test_a_number_as_long_as_a_line_is_still_a_number() -> None:
    assert parse_settings(b"a = 1" + b"0" * (LINE_MAX - 5)) == {"a": 10 ** (LINE_MAX - 5)}


def test_the_longest_line_and_file_are_read() -> None:
    line = b"#" * (LINE_MAX - 1) + b"\n"
    lines = SETTINGS_MAX // len(line)
    assert parse_settings(line * lines) == {}


@given(st.binary(max_size=200) | st.text("ab.[]{}=\"'\n1#_-", max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_one_error(raw: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert isinstance(parse_settings(raw), dict)
