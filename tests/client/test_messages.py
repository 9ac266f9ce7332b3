"""What a caller is told: found and expected, and what to do; never content, never a secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attestation.collateral.services import parse_services
from attestation.collateral_key import parse_key
from attestation.evidence import evidence_list
from client.calls import parse_call
from client.http import endpoint
from client.proxy import SOCKET_PATH_MAX, listen_tcp, listen_unix
from client.workers import parse_binding_document
from wire.canonical import parse_strict
from wire.conformance import run_vectors
from wire.errors import ConfigError, MalformedError, ProtocolFailure

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "my-secret-prompt"
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"max_tokens": 0}, "max_tokens: found 0, expected an integer from 1 to 65536"),
        ({"max_tokens": 2.5}, "found 2.5, expected an integer"),
        ({"max_tokens": True}, "found true, expected an integer"),
        ({"max_tokens": SECRET}, "found a string, expected an integer"),
        ({"max_completion_tokens": [1]}, "max_completion_tokens: found an array"),
        ({"stream": SECRET}, "stream: found a string, expected true or false"),
        ({"model": 7}, "model: found a number, expected a name of 1 to 256 characters"),
        ({"model": "m" * 300}, "model: found 300 characters"),
    ],
)
def test_a_refused_parameter_names_found_and_expected(members: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_call(CHAT, json.dumps({"model": "m", "messages": [], **members}).encode())
    assert said in str(refused.value)
    assert SECRET not in refused.value.diagnostics()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://gateway.example", "found scheme 'ftp', host 'gateway.example', expected http://"),
        ("gateway.example", "found no scheme, no host, expected http://"),
        ("https://", "no host"),
        (f"https://me:{SECRET}@gateway.example", "and a user name, expected"),
        (f"https://gateway.example/?key={SECRET}", "found a query, expected neither"),
        (f"https://gateway.example/#{SECRET}", "found a fragment, expected neither"),
    ],
)
def test_a_refused_url_names_its_parts_and_no_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        endpoint(url, None, 300)
    assert said in str(refused.value)
    assert "for example" in refused.value.hint
    assert SECRET not in refused.value.diagnostics()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "found 0 characters, expected 1 to 512"),
        ("k" * 513, "found 513 characters, expected 1 to 512"),
        (SECRET + "\n", "found 17 characters, some not printable ASCII, expected 1 to 512"),
    ],
)
def test_a_refused_key_is_told_by_its_length_alone(key: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        endpoint("http://127.0.0.1:9", key, 300)
    assert said in str(refused.value)
    assert SECRET not in refused.value.diagnostics()


def test_a_socket_in_a_missing_folder_says_to_make_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as refused:
        listen_unix(tmp_path / "none" / "proxy.sock")
    assert "make the folder first" in refused.value.hint
    assert "left-over" not in refused.value.hint


def test_a_socket_path_that_is_too_long_is_told_by_its_length(tmp_path: Path) -> None:
    path = tmp_path / ("s" * SOCKET_PATH_MAX)
    length = len(str(path))
    with pytest.raises(ConfigError, match=f"{length} bytes, expected at most 107") as refused:
        listen_unix(path)
    assert "shorter path" in refused.value.hint


def test_a_socket_path_in_use_says_what_may_be_left_over(tmp_path: Path) -> None:
    listener = listen_unix(tmp_path / "proxy.sock")
    with pytest.raises(ConfigError, match="in use") as refused:
        listen_unix(tmp_path / "proxy.sock")
    assert "left-over" in refused.value.hint
    listener.close()


def test_a_port_in_use_says_what_to_stop() -> None:
    listener = listen_tcp("127.0.0.1", 0)
    port = listener.sock.getsockname()[1]
    with pytest.raises(ConfigError, match="in use") as refused:
        listen_tcp("127.0.0.1", port)
    assert "stop what listens there" in refused.value.hint
    listener.close()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "found an array, expected schema anchorhold-wire-vectors/1"),
        ({}, "found an object without a schema, expected schema"),
        ({"schema": 7}, "found schema a number, expected"),
        ({"schema": "other/1"}, "found schema 'other/1', expected"),
        (
            {"schema": "anchorhold-wire-vectors/1", "vectors": {}},
            "found an object under `vectors` and an array under `reject`, expected two arrays",
        ),
    ],
)
def test_a_file_that_holds_no_vectors_is_told_what_it_is(document: Any, said: str) -> None:
    with pytest.raises(MalformedError) as refused:
        run_vectors(document)
    assert said in str(refused.value)


def test_a_port_beyond_the_last_is_named() -> None:
    with pytest.raises(ConfigError, match="found port 99999, expected 1 to 65535"):
        endpoint("http://127.0.0.1:99999", None, 300)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("qe", "collateral key: found 'qe', expected <source>:<key>"),
        ("intel:qe/tdx", "collateral source: found 'intel', expected one of intel-pcs, amd-kds"),
        (
            "intel-pcs:qe/tdz",
            "collateral key: found 'qe/tdz', expected a form that intel-pcs has",
        ),
    ],
)
def test_a_refused_collateral_key_is_told_from_others(text: str, said: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_key(text)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://kds.example/x", "found http, host 'kds.example', expected https://"),
        ("ftp://127.0.0.1", "found ftp, host '127.0.0.1', expected https://"),
        ("kds.example", "found no host, expected a URL with a host"),
        (f"https://me:{SECRET}@kds.example", "found a user name, expected a URL"),
        (f"https://kds.example/?key={SECRET}", "found a query, expected"),
        (f"https://kds.example/#{SECRET}", "found a fragment, expected"),
        ("https://kds.example/a b", "found spaces, other signs than ASCII, or too many, expected"),
        ("https://[::1", "found no URL, expected one"),
    ],
)
def test_a_refused_service_says_what_is_wrong_and_no_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_services({"amd_kds": url})
    assert f"services.amd_kds: {said}" in refused.value.message
    assert SECRET not in refused.value.diagnostics()


def test_a_refused_issuer_is_named() -> None:
    with pytest.raises(ConfigError, match="found an issuer 'No Name', expected 1 to 64 of a-z"):
        parse_services({"jwks": {"No Name": "https://keys.example"}})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "found an array, expected an object"),
        (b"null", "found null, expected an object"),
        (b"{}", "binding: found null, expected base64url of at most"),
        (b'{"binding":"AA"}', "evidence: found null, expected an array of 1 to 4 items"),
    ],
)
def test_a_refused_worker_document_says_what_was_found(body: bytes, said: str) -> None:
    with pytest.raises(ProtocolFailure) as refused:
        parse_binding_document(body)
    assert f"worker document: {said}" in refused.value.message


def test_refused_evidence_says_how_many_items_there_were() -> None:
    with pytest.raises(MalformedError, match="found an array of 5, expected an array of 1 to 4"):
        evidence_list([{}] * 5)


def test_text_that_is_not_utf_8_says_where_and_what_was_expected() -> None:
    with pytest.raises(MalformedError, match="not valid UTF-8 near byte 1, expected UTF-8 text"):
        parse_strict(b'"\xff"')
