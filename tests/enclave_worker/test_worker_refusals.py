"""Refusals: by a notice the worker signs, or sealed to the caller; never in the clear."""

import os
from typing import Any

import pytest
from simulators.caller import ask, caller, notice_code

from enclave_worker.clock import Clock
from wire.envelope import Candidate
from wire.ids import kid_of
from wire.notice import verify_notice
from wire.suites import HYBRID, SUITES

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.xdist_group("worker")]


# ---------------------------------------------------------------- refusals by signed notice


async def test_the_same_envelope_twice_is_refused_as_a_replay(worker: Any) -> None:
    who = caller(worker)
    sealed = who.seal(who.chat("once"))
    first = await worker.peer.exchange(sealed.header.rid, sealed.envelope)
    assert who.read(sealed, bytes(first.data)).status == 200
    second = await worker.peer.exchange(sealed.header.rid, sealed.envelope)
    assert notice_code(worker, sealed, second) == "replay"


async def test_an_expired_request_is_refused(worker: Any) -> None:
    now = Clock().s()
    _, sealed, answer = await ask(worker, caller(worker).chat("late"), iat=now - 600, exp=now - 200)
    assert notice_code(worker, sealed, answer) == "expired"


async def test_a_request_dated_in_the_future_is_refused(worker: Any) -> None:
    now = Clock().s()
    _, sealed, answer = await ask(
        worker, caller(worker).chat("early"), iat=now + 200, exp=now + 500
    )
    assert notice_code(worker, sealed, answer) == "expired"


async def test_within_two_minutes_of_clock_difference_a_request_is_answered(worker: Any) -> None:
    now = Clock().s()
    who, sealed, answer = await ask(
        worker, caller(worker).chat("skewed"), iat=now - 400, exp=now - 60
    )
    assert who.read(sealed, bytes(answer.data)).status == 200


async def test_more_tokens_than_the_declared_class_are_refused(worker: Any) -> None:
    _, sealed, answer = await ask(worker, caller(worker).chat("x", max_tokens=100), out=64)
    assert notice_code(worker, sealed, answer) == "class_exceeded"


async def test_a_key_this_worker_never_had_is_answered_with_a_signed_notice(worker: Any) -> None:
    who = caller(worker)
    sk = SUITES[HYBRID].generate(os.urandom)
    pk = SUITES[HYBRID].public_bytes(sk)
    foreign = Candidate(kid_of(HYBRID, pk), HYBRID, pk)
    sealed = who.seal(who.chat("to nobody"), candidates=[foreign])
    answer = await worker.peer.exchange(sealed.header.rid, sealed.envelope)
    kids = worker.peer.newest.binding.kids().values()
    pk = worker.peer.newest.binding.sig_pk
    code = verify_notice(answer.notice, pk, sealed.header.rid, sealed.th, kids)
    assert code == "kid_unknown"


@pytest.mark.parametrize("where", [0.3, 0.6, 0.99])
async def test_a_flipped_bit_anywhere_after_the_header_is_one_and_the_same_refusal(
    worker: Any, where: float
) -> None:
    who = caller(worker)
    sealed = who.seal(who.chat("tampered"))
    start = 8 + len(sealed.header.raw)
    damaged = bytearray(sealed.envelope)
    # commitment, wrap and frames in turn; a wrap's kid would make the key unknown instead
    at = start if where < 0.5 else int(start + (len(damaged) - start) * where)
    damaged[at] ^= 1
    answer = await worker.peer.exchange(sealed.header.rid, bytes(damaged))
    assert notice_code(worker, sealed, answer) == "open_failed"


async def test_an_altered_header_does_not_open(worker: Any) -> None:
    who = caller(worker)
    sealed = who.seal(who.chat("charged"))
    altered = sealed.envelope.replace(b'"pri":0', b'"pri":9')
    answer = await worker.peer.exchange(sealed.header.rid, altered)
    assert answer.notice["code"] == "open_failed"


async def test_garbage_is_refused_with_the_same_code(worker: Any) -> None:
    rid = os.urandom(16)
    answer = await worker.peer.exchange(rid, b"AHQ1 nothing of the kind")
    assert answer.notice["code"] == "open_failed"


async def test_a_gateway_that_mislabels_a_request_gets_no_answer_for_it(worker: Any) -> None:
    who = caller(worker)
    sealed = who.seal(who.chat("whose?"))
    answer = await worker.peer.exchange(os.urandom(16), sealed.envelope)
    assert answer.notice["code"] == "open_failed"


# ---------------------------------------------------------------- refusals sealed to the caller


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"policy": "sha256:" + "1" * 64}, 412, "policy_mismatch"),
        ({"aud": "elsewhere"}, 421, "audience_mismatch"),
        ({"model": "other"}, 404, "model_not_found"),
        ({"op": "embed"}, 400, "header_mismatch"),
        ({"op": "admin"}, 404, "unsupported_operation"),
        ({"op": "completion"}, 400, "header_mismatch"),
        ({"stream": True}, 400, "header_mismatch"),
    ],
)
async def test_a_header_that_does_not_fit_is_answered_inside_the_ciphertext(
    worker: Any, changes: dict[str, Any], status: int, code: str
) -> None:
    who, sealed, answer = await ask(worker, caller(worker).chat("misfit"), **changes)
    reply = who.read(sealed, bytes(answer.data))
    assert reply.status == status
    assert reply.json["error"]["code"] == code
    assert answer.receipts == 0


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"n": 9}, "invalid_value"),
        ({"modalities": ["audio"]}, "unsupported_value"),
        ({"mystery": 1}, "unknown_parameter"),
        ({"temperature": 3}, "invalid_value"),
        ({"messages": []}, "invalid_value"),
        ({"max_tokens": 2000}, "context_length_exceeded"),
        ({"model": "other"}, "header_mismatch"),
    ],
)
async def test_a_bad_body_is_an_openai_error_inside_the_ciphertext(
    worker: Any, members: dict[str, Any], code: str
) -> None:
    body = caller(worker).chat("bad", **members)
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    assert reply.status in (400, 404)
    assert reply.json["error"]["code"] == code


async def test_a_body_that_is_no_json_is_an_openai_error(worker: Any) -> None:
    who, sealed, answer = await ask(worker, b"{not json", stream=False)
    assert who.read(sealed, bytes(answer.data)).json["error"]["code"] == "invalid_json"


async def test_an_unknown_endpoint_is_named_inside_the_ciphertext(worker: Any) -> None:
    who, sealed, answer = await ask(worker, caller(worker).chat("x"), path="/v1/images")
    assert who.read(sealed, bytes(answer.data)).status == 404


async def test_a_long_body_is_read_beside_the_loop_with_the_same_result(worker: Any) -> None:
    body = caller(worker).chat("short prompt", metadata={"note": "x" * 50_000})
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    text = reply.json["choices"][0]["message"]["content"]
    who.verify(sealed, body, reply, text, worker.peer.log)
    body = caller(worker).chat("long prompt " * 5000)
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    assert reply.json["error"]["code"] == "context_length_exceeded"


async def test_stop_strings_end_the_answer_before_they_appear(worker: Any) -> None:
    body = caller(worker).chat("stop", temperature=0, max_tokens=48, ignore_eos=True)
    who, sealed, answer = await ask(worker, body)
    text = who.read(sealed, bytes(answer.data)).json["choices"][0]["message"]["content"]
    mark = text[len(text) // 2 : len(text) // 2 + 3]
    who, sealed, answer = await ask(worker, {**body, "stop": [mark]})
    choice = who.read(sealed, bytes(answer.data)).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == text[: text.index(mark)]
