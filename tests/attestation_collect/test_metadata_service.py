"""Azure's metadata service: one address, bounded time and size, and nothing that is not a quote."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from simulators.hardware_tee import AzureTdxTee
from simulators.hcl import td_report

from attestation.collect.metadata import ADDRESS, ANSWER_MAX, PAUSES_S, MetadataService
from wire.errors import UnavailableError
from wire.ids import b64u

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from simulators.tpm_machine import QuotingService

REPORT = td_report(bytes(range(64)), b"\1" * 48)
QUOTE = b64u(b"a quote")


def client(service: QuotingService, timeout_s: float = 5.0) -> MetadataService:
    return MetadataService(service.address, timeout_s=timeout_s, sleep=lambda _: None)


def test_the_address_is_the_clouds_own_and_no_setting() -> None:
    assert ADDRESS == ("169.254.169.254", 80)


def test_a_report_is_answered_with_its_quote(quoting_service: QuotingService) -> None:
    tee = AzureTdxTee()
    quoting_service.tee = tee
    quote = client(quoting_service).td_quote(REPORT)
    assert REPORT[128:192] in quote
    ((path, headers),) = quoting_service.asked
    assert path == "/acc/tdquote"
    assert headers["content-type"] == "application/json"
    assert headers["metadata"] == "true"


@pytest.mark.parametrize("text", [QUOTE, QUOTE + "="])
def test_base64url_counts_with_and_without_padding(
    quoting_service: QuotingService, text: str
) -> None:
    quoting_service.answers = [(200, json.dumps({"quote": text}).encode())]
    assert client(quoting_service).td_quote(REPORT) == b"a quote"


def test_no_proxy_of_the_environment_is_asked(
    quoting_service: QuotingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    quoting_service.answers = [(200, json.dumps({"quote": QUOTE}).encode())]
    assert client(quoting_service).td_quote(REPORT) == b"a quote"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_is_busy_for_a_while_is_asked_again(
    quoting_service: QuotingService, status: int
) -> None:
    quoting_service.answers = [(status, b"")] * 2
    quoting_service.answers.append((200, json.dumps({"quote": QUOTE}).encode()))
    assert client(quoting_service).td_quote(REPORT) == b"a quote"


def test_a_service_that_stays_busy_is_given_up(quoting_service: QuotingService) -> None:
    quoting_service.answers = [(503, b"")] * 9
    paused: list[float] = []
    service = MetadataService(quoting_service.address, sleep=paused.append)
    with pytest.raises(UnavailableError, match="status 503, 3 times") as caught:
        service.td_quote(REPORT)
    assert paused == list(PAUSES_S)
    assert "169.254.169.254" in caught.value.hint
    assert len(quoting_service.asked) == 3


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 405])
def test_any_other_status_is_final_and_no_redirect_is_followed(
    quoting_service: QuotingService, status: int
) -> None:
    quoting_service.answers = [(status, b"")]
    with pytest.raises(UnavailableError, match=f"status {status}, expected a TD quote"):
        client(quoting_service).td_quote(REPORT)
    assert len(quoting_service.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"quote":7}',
        b'{"quote":""}',
        b'{"quote":"*"}',
        b'{"quote":"YQ","quote":"Yg"}',
    ],
)
def test_an_answer_that_is_no_quote_is_refused(
    quoting_service: QuotingService, answer: bytes
) -> None:
    quoting_service.answers = [(200, answer)]
    with pytest.raises(UnavailableError, match="metadata service: found"):
        client(quoting_service).td_quote(REPORT)


def test_an_answer_may_be_as_long_as_the_limit_and_no_longer(
    quoting_service: QuotingService,
) -> None:
    answer = json.dumps({"quote": QUOTE}).encode()
    quoting_service.answers = [
        (200, answer.ljust(length)) for length in (ANSWER_MAX, ANSWER_MAX + 1)
    ]
    assert client(quoting_service).td_quote(REPORT) == b"a quote"
    with pytest.raises(UnavailableError, match="more than"):
        client(quoting_service).td_quote(REPORT)


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A good answer whose bytes come in time each, and the last one far too late."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(300):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.01)
        handler.wfile.write(json.dumps({"quote": QUOTE}).encode())
    except OSError:
        return


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "100")
    handler.end_headers()
    handler.wfile.write(b"{")


@pytest.mark.parametrize("body", [drips, breaks_off])
def test_an_answer_without_an_end_is_given_up(quoting_service: QuotingService, body: Any) -> None:
    quoting_service.answers = [(200, body)] * 3
    with pytest.raises(UnavailableError, match="metadata service: found"):
        client(quoting_service, timeout_s=0.2).td_quote(REPORT)


def test_nobody_there_is_said() -> None:
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        MetadataService(("127.0.0.1", 9), sleep=lambda _: None).td_quote(REPORT)
