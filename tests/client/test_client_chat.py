"""An honest deployment: what a caller gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.answers import Answer

from wire.errors import RecordError

if TYPE_CHECKING:
    from simulators.service import Service

    from client.api import Client

MESSAGES = [{"role": "user", "content": "hello there, worker"}]
ECHO = "You said: hello there, worker"


def test_a_chat_answer_is_whole_verified_and_names_its_trust(client: Client) -> None:
    result = client.chat(MESSAGES, "m")
    assert result.text == ECHO
    assert result.finish == "stop"
    assert result.trust == "software"
    assert result.receipt.trust == "software"
    assert all(check.ok for check in result.receipt.checks)


def test_a_stream_yields_text_as_it_comes_and_ends_with_its_receipt(client: Client) -> None:
    stream = client.chat(MESSAGES, "m", stream=True)
    deltas = list(stream)
    assert len(deltas) > 1
    assert "".join(delta.text for delta in deltas) == stream.text == ECHO
    assert {delta.trust for delta in deltas} == {"software"}
    assert stream.complete
    assert stream.finish == "stop"
    assert stream.receipt is client.last_receipt


def test_a_worker_that_never_stops_talking_is_cut_off(client: Client, service: Service) -> None:
    word = "x" * 199 + " "
    service.answer = lambda body: Answer(word * 400)  # 64 tokens were asked for
    stream = client.chat(MESSAGES, "m", stream=True, max_tokens=16)
    with pytest.raises(RecordError, match="at most 65536 characters"):
        for _ in stream:
            pass
    service.answer = lambda body: Answer(word * 400)
    stream = client.chat(MESSAGES, "m", stream=True, max_tokens=100)
    assert sum(len(delta.text) for delta in stream) == len(word * 400)
