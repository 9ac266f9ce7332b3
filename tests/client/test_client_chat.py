"""An honest deployment: what a caller gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
