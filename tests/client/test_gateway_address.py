"""A gateway's address as typed: what is asked is what was named, or nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from client.http import endpoint
from client.state import Seen, TrustState
from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a b", "found ' ' in it, expected only characters that a URL has"),
        ("http://a\u00a0b", r"found '\\xa0' in it, expected only"),
        ("http://a\nb", r"found '\\n' in it"),
        ("http://a\u202eb", r"found '\\u202e' in it"),
        ("http://a/b\\c", r"found '\\\\' in it"),
        ("http://a%20b", "found host 'a%20b', expected a name or an address"),
        ("http://a;b", "found host 'a;b', expected a name or an address"),
        ("http://a,b:1", "found host 'a,b', expected a name or an address"),
        (" http://a", "found ' ' in it"),
    ],
)
def test_an_address_that_would_be_escaped_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        endpoint(url, None, 60)
    assert "https://gateway.example" in refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "https://gateway.example",
        "http://127.0.0.1:8010",
        "http://[::1]:8010",
        "http://[fe80::1%25eth0]:8010",
        "https://gate_way-1.example/base",
        "https://xn--mnchen-3ya.example",
        "https://münchen.example",
        "http://localhost",
    ],
)
def test_an_address_of_any_usual_form_is_taken(url: str) -> None:
    assert endpoint(url, None, 60).url


@pytest.mark.parametrize("below", ["", "more"])
def test_a_state_folder_that_is_a_file_says_which_option_names_another(
    tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    state = TrustState(tmp_path / "file" / below)
    with pytest.raises(ConfigError, match="Not a directory") as refused:
        state.read("a/log")
    assert "--state-dir" in refused.value.hint
    with pytest.raises(ConfigError) as refused:
        state.advance("a/log", None, Seen("note", 0))
    assert "--state-dir" in refused.value.hint


def test_an_address_is_refused_before_anything_is_asked(run: Any, tmp_path: Path) -> None:
    code, out, err = run("verify", "http://a b", "--policy", tmp_path / "none.json")
    assert (code, out) == (4, "")
    assert "hint: " in err
