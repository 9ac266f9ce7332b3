"""Identifiers have one spelling."""

from __future__ import annotations

import hashlib

import pytest

from wire.errors import MalformedError
from wire.ids import b64u, bh_of, is_sha256_tag, is_wid, sha256_tag, unb64u


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xff", b"abc", bytes(32)])
def test_base64url_round_trips_without_padding(data):
    assert "=" not in b64u(data)
    assert unb64u(b64u(data), len(data)) == data


@pytest.mark.parametrize(
    "text", ["AA==", "AA=", "A", "AB", "AAB", "A+", "A/", "A A", "AA\n", "é", "AAAAA", None, 5]
)
def test_any_other_spelling_is_refused(text):
    with pytest.raises(MalformedError, match="base64url"):
        unb64u(text)


def test_the_expected_length_is_checked():
    with pytest.raises(MalformedError, match="expected 16 bytes, found 2"):
        unb64u(b64u(b"ab"), 16)


def test_tags_and_hashes():
    assert sha256_tag(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert bh_of(b"x") == hashlib.sha256(b"x").digest()
    assert is_sha256_tag(sha256_tag(b"x"))
    for wrong in (sha256_tag(b"x").upper(), "sha256:", sha256_tag(b"x") + "\n", None, 1):
        assert not is_sha256_tag(wrong)


@pytest.mark.parametrize("text", ["x", "w" * 64, "worker-1", "Worker_1.eu", ".a", "a..b", "0"])
def test_a_worker_may_be_called_what_logs_and_paths_can_hold(text):
    assert is_wid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w" * 65,
        ".",
        "..",
        "." * 64,
        "a b",
        "a/b",
        "a%2e",
        "a?b",
        "w\n",
        "\u00e9",
        "\u0661",
        None,
        5,
    ],
)
def test_a_worker_may_not_be_called_anything_else(text):
    assert not is_wid(text)
