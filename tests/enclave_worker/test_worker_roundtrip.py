"""Sealed requests answered by a real sandboxed worker process over the real link."""

import asyncio
import json
import os
import time
from typing import Any

import pytest
from simulators.caller import ask, caller, notice_code
from simulators.link_peer import verify_done

from attestation.appraise import appraise
from attestation.binding import parse_binding
from attestation.policy import Policy, parse_policy
from attestation.posture import parse_posture
from attestation.result import AppraisedEvidence, Refused
from enclave_worker.clock import Clock
from wire.errors import OpenError
from wire.ids import unb64u
from wire.suites import X25519

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.xdist_group("worker")]


def software_policy(worker: Any, measurement: str) -> Policy:
    """A policy that pins this worker's root, measurement, model and posture."""
    now = Clock().s()
    rule = {
        "kind": "software",
        "roots": [worker.launcher.trust_anchor],
        "measurements": [measurement],
        "posture": {"seccomp": "applied", "landlock_fs": "applied"},
    }
    document = {
        "v": 1,
        "id": "tests",
        "seq": 1,
        "not_before": now - 60,
        "expires": now + 3600,
        "aud": "tests",
        "require_pq": True,
        "min_workers": 1,
        "allow_software": True,
        "accept": [rule],
        "models": [{"name": "tiny", "digest": worker.launcher.parts["model"]}],
        "service_policies": [worker.peer.newest.binding.policy],
    }
    return parse_policy(json.dumps(document).encode())


async def test_a_sealed_stream_comes_back_with_a_verified_receipt(worker: Any) -> None:
    body = caller(worker).chat("the quick brown fox", stream=True, temperature=0)
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    assert reply.status == 200
    assert reply.head["id"].startswith("chatcmpl-")
    assert reply.head["model"] == "tiny"
    assert reply.finish in ("stop", "length")
    assert reply.usage["completion_tokens"] <= 8
    assert reply.usage["total_tokens"] == sum(
        reply.usage[key] for key in ("prompt_tokens", "completion_tokens")
    )
    verified = who.verify(sealed, body, reply, reply.text, worker.peer.log)
    assert verified.claims["use"]["out"] == reply.usage["completion_tokens"]
    assert verified.claims["att"]["trust"] == "software"
    assert verified.claims["att"]["measurement"] == worker.launcher.measurement
    assert verified.claims["par"]["temperature"] == "0.0"


async def test_a_plain_request_returns_whole_openai_json_and_a_receipt(worker: Any) -> None:
    body = caller(worker).chat("a sealed prompt", temperature=0, seed=7)
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    document = reply.json
    assert document["object"] == "chat.completion"
    text = document["choices"][0]["message"]["content"]
    assert document["choices"][0]["finish_reason"] in ("stop", "length")
    who.verify(sealed, body, reply, text, worker.peer.log)


async def test_streamed_and_plain_greedy_answers_are_the_same_text(worker: Any) -> None:
    texts = []
    for stream in (True, False):
        body = caller(worker).chat("numbers 1 2 3", stream=stream, temperature=0, max_tokens=24)
        who, sealed, answer = await ask(worker, body)
        reply = who.read(sealed, bytes(answer.data))
        texts.append(reply.text if stream else reply.json["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]


async def test_completions_take_text_and_token_ids(worker: Any) -> None:
    for prompt in ("the lazy dog", [5, 6, 7]):
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "temperature": 0}
        who, sealed, answer = await ask(worker, body, path="/v1/completions")
        reply = who.read(sealed, bytes(answer.data))
        document = reply.json
        assert document["object"] == "text_completion"
        who.verify(sealed, body, reply, document["choices"][0]["text"], worker.peer.log)


async def test_an_x25519_key_opens_when_the_binding_offers_one(worker: Any) -> None:
    body = caller(worker).chat("hello")
    who, sealed, answer = await ask(worker, body, suite=X25519)
    assert who.read(sealed, bytes(answer.data)).status == 200


async def test_cadence_sends_one_fixed_frame_a_tick_and_ends_on_a_padme_count(
    worker: Any,
) -> None:
    body = caller(worker).chat("cadence", stream=True, max_tokens=4)
    started = time.monotonic()
    who, sealed, answer = await ask(worker, body, pad="cadence")
    reply = who.read(sealed, bytes(answer.data))
    assert reply.reader is not None
    frames = reply.reader.frames + 1
    assert time.monotonic() - started >= (frames - 1) * 0.1 - 0.05
    # prelude + frames of 256 bytes + the fixed final frame
    prelude = int.from_bytes(answer.data[4:8], "big") + 8
    assert len(answer.data) == prelude + (frames - 1) * 276 + 8192 + 20
    who.verify(sealed, body, reply, reply.text, worker.peer.log)


async def test_a_ping_is_answered_empty_and_without_a_receipt(worker: Any) -> None:
    who, sealed, answer = await ask(worker, b"", op="ping")
    reply = who.read(sealed, bytes(answer.data))
    assert reply.status == 200
    assert reply.receipt is None
    assert answer.receipts == 0


async def test_the_end_report_is_signed_and_rounded_to_64_tokens(worker: Any) -> None:
    _, sealed, answer = await ask(worker, caller(worker).chat("count me"))
    assert answer.done["usage"]["in"] % 64 == answer.done["usage"]["out"] % 64 == 0
    assert answer.done["finish"] in ("stop", "length")
    verify_done(answer.done, sealed.header.rid, worker.peer.newest.binding.sig_pk)


async def test_the_posture_record_is_signed_and_named_by_the_binding(worker: Any) -> None:
    newest = worker.peer.newest
    posture = parse_posture(newest.posture, newest.binding.sig_pk)
    assert posture.boot == newest.binding.boot
    for control in ("seccomp", "landlock_fs", "netns", "no_new_privs", "dumpable"):
        assert posture.fields[control].state == "applied", control


async def test_the_evidence_is_accepted_under_a_policy_that_names_what_was_measured(
    worker: Any,
) -> None:
    newest = worker.peer.newest
    policy = software_policy(worker, measurement=worker.launcher.measurement)
    verdict = appraise(
        newest.binding.raw,
        newest.evidence,
        newest.posture,
        policy,
        Clock().s(),
        beacon_time=await worker.peer.dated(newest.binding),
    )
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert verdict.trust == "software"
    other = software_policy(worker, measurement="sha256:" + "0" * 64)
    verdict = appraise(newest.binding.raw, newest.evidence, newest.posture, other, Clock().s())
    assert isinstance(verdict, Refused)
    assert "measurement_not_accepted" in verdict.codes


# ---------------------------------------------------------------- load, cancel, evidence


async def test_a_gateway_that_sends_more_than_the_credits_is_told_busy(worker: Any) -> None:
    who = caller(worker)
    body = who.chat("flood", stream=True, max_tokens=900, ignore_eos=True)
    sealed = [who.seal(body) for _ in range(worker.config.slots + 1)]
    answers = [await worker.peer.send_job(s.header.rid, s.envelope) for s in sealed]
    last = answers[-1]
    await asyncio.wait_for(last.ended.wait(), 30)
    assert notice_code(worker, sealed[-1], last) == "busy"
    for request in sealed[:-1]:
        await worker.peer.cancel(request.header.rid)
    for answer in answers:
        await asyncio.wait_for(answer.ended.wait(), 30)


async def test_two_requests_of_sixteen_streams_each_all_complete_with_receipts(
    worker: Any,
) -> None:
    async def one(number: int) -> None:
        body = caller(worker).chat(f"stream {number}", stream=True, max_tokens=12)
        who, sealed, answer = await ask(worker, body)
        reply = who.read(sealed, bytes(answer.data))
        who.verify(sealed, body, reply, reply.text, worker.peer.log)

    await asyncio.gather(*(one(number) for number in range(32)))
    await worker.peer.until(lambda: worker.peer.credits == worker.config.slots)


async def test_a_cancel_stops_within_a_step_and_is_reported_signed(worker: Any) -> None:
    who = caller(worker)
    body = who.chat("never mind", stream=True, max_tokens=900, ignore_eos=True)
    sealed = who.seal(body)
    answer = await worker.peer.send_job(sealed.header.rid, sealed.envelope)
    await answer.first.wait()
    # The first frame may hold the head alone; at the next tick the engine has begun.
    begun = len(answer.data)
    await worker.peer.until(lambda: len(answer.data) > begun)
    await worker.peer.cancel(sealed.header.rid)
    await asyncio.wait_for(answer.ended.wait(), 10)
    assert answer.done["finish"] == "cancelled"
    assert 0 < answer.done["usage"]["out"] < 896
    verify_done(answer.done, sealed.header.rid, worker.peer.newest.binding.sig_pk)
    assert answer.receipts == 0


async def test_without_a_durable_log_entry_a_stream_has_no_receipt(worker: Any) -> None:
    worker.peer.mute_log = True
    try:
        body = caller(worker).chat("unlogged", stream=True)
        who, sealed, answer = await ask(worker, body)
        reply = who.read(sealed, bytes(answer.data))
        assert reply.receipt is None
        assert reply.error is not None
        assert reply.error["code"] == "evidence_unavailable"
    finally:
        worker.peer.mute_log = False


async def test_without_a_durable_log_entry_a_plain_reply_is_withheld(worker: Any) -> None:
    worker.peer.mute_log = True
    try:
        who, sealed, answer = await ask(worker, caller(worker).chat("unlogged"))
        reply = who.read(sealed, bytes(answer.data))
        assert reply.status == 503
        assert reply.json["error"]["code"] == "evidence_unavailable"
        assert "choices" not in reply.json
    finally:
        worker.peer.mute_log = False


async def test_a_live_challenge_is_answered_with_fresh_evidence_over_the_nonce(
    worker: Any,
) -> None:
    nonce = os.urandom(32)
    answer = await worker.peer.challenge(nonce)
    binding = parse_binding(unb64u(answer["binding"]))
    assert binding.nonce == nonce
    assert binding.kids() == worker.peer.newest.binding.kids()
    assert binding.sig_pk == worker.peer.newest.binding.sig_pk


async def test_another_candidate_cannot_read_the_answer(worker: Any) -> None:
    who, sealed, answer = await ask(worker, caller(worker).chat("mine alone"))
    other = who.seal(who.chat("mine alone"))
    sealed.R = other.R
    with pytest.raises(OpenError):
        who.read(sealed, bytes(answer.data))
