"""One claim of the receipt is changed before it is signed; the client refuses the answer."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.answers import Answer, echo

from evidence.bundle import verify_bundle
from wire.errors import ReceiptError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.service import Service

    from client.api import Client
    from evidence.receipt import ReceiptClaims

MESSAGES = [{"role": "user", "content": "hello"}]
OTHER32 = b"\x01" * 32
CHANGES: dict[str, dict[str, Any]] = {
    "2 names this request and worker": {"th": OTHER32},
    "another key": {"kid": OTHER32},
    "another worker": {"wid": "worker-x"},
    "another process start": {"boot": b"\x02" * 16},
    "3 made in this request's time": {"t0": 1, "t1": 2},
    "4 names what was asked": {"op": "completion"},
    "another model": {"model": "other"},
    "other files of that model": {"model_digest": sha256_tag(b"other")},
    "an adapter that nobody asked for": {"par": {"adapter": "other"}},
    "another service policy": {"service_policy": sha256_tag(b"other")},
    "5 names the appraised evidence": {"att_evidence": sha256_tag(b"other")},
    "another measurement": {"measurement": sha256_tag(b"other")},
    "a better trust": {"trust": "hardware"},
    "8 ended as told": {"finish": "length"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_receipt_about_something_else_is_refused(
    client: Client, service: Service, change: dict[str, Any]
) -> None:
    service.answer = lambda body: Answer(echo(body), claim_changes=change)
    with pytest.raises(ReceiptError):
        client.chat(MESSAGES, "m")


def test_the_adapter_asked_for_is_the_receipts(client: Client, service: Service) -> None:
    service.answer = lambda body: Answer(echo(body), claim_changes={"par": {"adapter": "legal"}})
    assert client.chat(MESSAGES, "m:legal").text
    for name in ("m:other", "m"):
        with pytest.raises(ReceiptError, match="the adapter that was asked for"):
            client.chat(MESSAGES, name)


def test_a_receipt_for_another_text_is_refused(client: Client, service: Service) -> None:
    service.answer = lambda body: Answer(echo(body), committed_text="You said: yes")
    with pytest.raises(ReceiptError, match="commitments"):
        client.chat(MESSAGES, "m")


@pytest.mark.parametrize("side", ["req", "resp"])
@pytest.mark.parametrize(("member", "value"), [("c", OTHER32), ("ct", OTHER32), ("n", 7)])
def test_a_receipt_with_another_commitment_or_ciphertext_is_refused(
    client: Client, service: Service, side: str, member: str, value: Any
) -> None:
    def edit(claims: ReceiptClaims) -> ReceiptClaims:
        return replace(claims, **{side: replace(getattr(claims, side), **{member: value})})

    service.answer = lambda body: Answer(echo(body), edit=edit)
    with pytest.raises(ReceiptError, match="of this exchange expected"):
        client.chat(MESSAGES, "m")


@pytest.mark.parametrize("stream", [False, True])
def test_the_hash_of_no_frames_is_not_the_answers_ciphertext(
    client: Client, service: Service, stream: bool
) -> None:
    def edit(claims: ReceiptClaims) -> ReceiptClaims:
        return replace(claims, resp=replace(claims.resp, ct=hashlib.sha256().digest()))

    service.answer = lambda body: Answer(echo(body), edit=edit)
    with pytest.raises(ReceiptError, match="hash of the ciphertext"):
        list(client.chat(MESSAGES, "m", stream=True)) if stream else client.chat(MESSAGES, "m")


def test_a_whole_answer_must_be_named_whole(client: Client, service: Service) -> None:
    service.answer = lambda body: Answer(echo(body), stated_early=True)
    with pytest.raises(ReceiptError, match="hash of the ciphertext"):
        client.chat(MESSAGES, "m")


def test_an_answer_without_a_receipt_is_refused(client: Client, service: Service) -> None:
    service.answer = lambda body: replace(Answer(echo(body)), receipt=False)
    with pytest.raises(ReceiptError, match="receipt expected"):
        client.chat(MESSAGES, "m")
    stream = client.chat(MESSAGES, "m", stream=True)
    with pytest.raises(ReceiptError, match="receipt expected"):
        list(stream)
    assert not stream.complete


def test_every_step_is_listed_and_passed(client: Client) -> None:
    checks = client.chat(MESSAGES, "m").receipt.checks
    assert [check.step.split(" ", 1)[0] for check in checks] == list("123456789")
    assert all(check.ok is True for check in checks)


def test_the_saved_bundle_verifies_offline_under_the_same_policy(
    client: Client, service: Service, tmp_path: Path
) -> None:
    receipt = client.chat(MESSAGES, "m").receipt
    saved = receipt.save(tmp_path / "receipt.json")
    assert saved.stat().st_mode & 0o777 == 0o600
    report = verify_bundle(saved.read_bytes(), client.policy, service.now)
    assert [check.id for check in report.checks if not check.ok] == []
    assert report.exit_code == 0
    assert report.trust == "software"


def test_a_bundle_holds_neither_prompt_nor_answer(client: Client) -> None:
    text = "the canary sings at dawn"
    receipt = client.chat([{"role": "user", "content": text}], "m").receipt
    assert text.encode() not in receipt.bundle
    assert b"canary" not in receipt.bundle


def test_receipts_are_saved_by_request_id(
    service: Service, server: Any, options: Any, tmp_path: Path
) -> None:
    from client.api import Client as Made

    with Made(
        server.url,
        service.api_key,
        policy=service.policy(),
        options=options(receipts_dir=tmp_path),
    ) as client:
        receipt = client.chat(MESSAGES, "m").receipt
    assert (tmp_path / f"{receipt.rid}.json").read_bytes() == receipt.bundle


def test_usage_comes_from_the_signed_statement(client: Client) -> None:
    result = client.chat(MESSAGES, "m")
    assert (
        result.usage
        == result.receipt.usage
        == {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
        }
    )


def test_a_receipt_cannot_be_read_before_the_end(client: Client) -> None:
    with client.chat(MESSAGES, "m", stream=True) as stream, pytest.raises(RuntimeError):
        _ = stream.receipt
