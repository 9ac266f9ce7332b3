"""Which workers are admitted, and what a connection may do before and after."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.deployment import now, problem, seal

from attestation.binding import Kem
from attestation.posture import CONTAINER_MAX, Control
from evidence.events import parse_event
from wire.ids import b64u, sha256_tag, unb64u
from wire.link import (
    BYTES,
    DONE,
    HEARTBEAT,
    HELLO,
    KEYS,
    NOTICE,
    PULL,
    MessageType,
    hello_bytes,
    json_message,
    raw_message,
)
from wire.suites import HYBRID, SUITES

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up
    from simulators.worker_peer import WorkerPeer


async def test_an_admitted_worker_gets_a_lease_and_the_index_of_its_verdict(
    up: Up, fleet: Fleet
) -> None:
    worker = fleet.make("a")
    admitted = await worker.admitted()
    assert admitted["bh"] == b64u(worker.bh)
    assert admitted["lease_s"] == 60
    verdict = parse_event((await up.gateway.ledger.log.entry(admitted["leaf"])).event)
    assert verdict.type == "attest.verdict"
    assert verdict.body["bh"] == b64u(worker.bh)
    assert verdict.body["ok"] is True
    assert verdict.body["trust"] == "software"


async def test_a_session_is_logged_when_it_opens_and_when_it_ends(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.admitted()
    await worker.drop()
    async with asyncio.timeout(5):
        while len(await up.events("worker.session")) < 2:
            await asyncio.sleep(0.02)
    opened, closed = await up.events("worker.session")
    assert (opened["phase"], opened["bh"], opened["wid"]) == ("open", b64u(worker.bh), worker.wid)
    assert (closed["phase"], closed["reason"]) == ("close", "lost")


REFUSALS = {
    "measurement_not_accepted": lambda w: w.tee.parts.update(first_party=sha256_tag(b"changed")),
    "audience_mismatch": lambda w: w.tee.facts.update(aud="elsewhere"),
    "binding_expired": lambda w: w.tee.facts.update(nbf=now() - 7200, exp=now() - 3600),
    "signature_invalid": lambda w: setattr(w.tee, "signer", Ed25519PrivateKey.generate()),
    "report_data_mismatch": lambda w: w.tee.statement.update(report_data=bytes(64)),
    "posture_below_policy": lambda w: w.tee.controls.update(seccomp=Control("refused")),
    "nonce_unexpected": lambda w: w.tee.facts.update(nonce=bytes(32)),
    "service_policy_not_accepted": lambda w: w.tee.facts.update(policy=sha256_tag(b"other")),
}


@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_worker_is_refused_when_one_fact_is_wrong(
    up: Up, fleet: Fleet, observed: Observed, reason: str
) -> None:
    worker = fleet.make("a")
    REFUSALS[reason](worker)
    if reason == "measurement_not_accepted":
        worker.tee.facts["image"] = worker.tee.measurement()
    worker.binding = worker.tee.binding()
    reasons = await worker.refused()
    assert reasons[0] == reason
    await worker.closed()
    (verdict,) = await up.events("attest.verdict")
    assert verdict["ok"] is False
    assert reason in verdict["reasons"]
    assert not up.gateway.registry.knows(worker.kid)
    assert observed.total("anchorhold_attest_failures", anchorhold__reason=reason) == 1


async def test_a_hello_signed_by_another_key_is_refused_and_counted_and_no_entry(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    worker = fleet.make("a")
    await worker.connect()
    other = Ed25519PrivateKey.generate()
    await worker.hello(sig=b64u(other.sign(hello_bytes(worker.nonce, worker.bh))))
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["hello_signature"]
    # Nobody has shown a key: the log is kept for ever, and must not grow for nothing.
    assert await up.events("attest.verdict") == []
    counted = {"anchorhold__reason": "hello_signature"}
    assert observed.total("anchorhold_attest_failures", **counted) == 1


async def test_a_hello_replayed_from_another_connection_is_refused(up: Up, fleet: Fleet) -> None:
    honest, thief = fleet.make("a"), fleet.make("a")
    await honest.connect()
    recorded = honest.introduction()
    await thief.connect()
    thief.send(json_message(HELLO, recorded))
    refused = (await thief.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["hello_signature"]
    assert len(up.gateway.roster) == 0


async def test_a_name_that_is_not_the_bindings_is_refused(fleet: Fleet) -> None:
    worker = fleet.make("a")
    assert await worker.refused(wid="somebody") == ["wid_malformed"]


def named(fleet: Fleet, wid: str) -> WorkerPeer:
    worker = fleet.make("a")
    worker.tee.facts["wid"] = wid
    worker.binding = worker.tee.binding()
    return worker


@pytest.mark.parametrize("wid", ["w" * 65, "a b", "..", "../..", "a/b", "w~|<>", "a%2e"])
async def test_a_name_that_logs_or_paths_cannot_hold_is_refused(
    up: Up, fleet: Fleet, wid: str
) -> None:
    """No client would ask it for live evidence; other workers are judged without it."""
    assert await named(fleet, wid).refused() == ["wid_malformed"]
    assert not up.gateway.registry.sessions


@pytest.mark.parametrize("wid", ["w" * 64, "x", "Worker_1.eu-2", ".a"])
async def test_a_name_of_names_form_is_taken(up: Up, fleet: Fleet, wid: str) -> None:
    await named(fleet, wid).admitted()
    assert list(up.gateway.registry.sessions) == [wid]


@pytest.mark.parametrize(
    "change",
    [
        {"binding": "not base64!"},
        {"evidence": []},
        {"evidence": "none"},
        {"sig": 7},
        {"extra": 1},
        {"posture": b64u(bytes(CONTAINER_MAX + 1))},
    ],
    ids=str,
)
async def test_a_malformed_hello_ends_the_connection(
    fleet: Fleet, change: dict[str, Any], up: Up
) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello(**change)
    await worker.closed()
    assert up.gateway.ledger.log.size <= 2  # the first directory, and nothing about a stranger


async def test_a_binding_that_does_not_parse_is_refused_and_no_entry(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    assert await worker.refused(binding=b64u(b"{}")) == ["binding_malformed"]
    assert await up.events("attest.verdict") == []


BEFORE_ADMISSION = {
    "pull": json_message(PULL, {"n": 1, "seq": 1, "sig": b64u(bytes(64))}),
    "heartbeat": json_message(HEARTBEAT, {}),
    "bytes": raw_message(BYTES, bytes(16), b"x"),
    "done": json_message(DONE, {}, rid=bytes(16)),
    "notice": json_message(NOTICE, {}, rid=bytes(16)),
    "keys": json_message(KEYS, {}),
}


@pytest.mark.parametrize("kind", BEFORE_ADMISSION)
async def test_an_unadmitted_peer_gets_nothing_and_is_cut_off(
    up: Up, fleet: Fleet, kind: str
) -> None:
    (worker,) = await fleet.admit("a")
    stranger = fleet.make("b")
    await stranger.connect()
    reply = asyncio.create_task(up.post(seal([worker])))
    stranger.send(BEFORE_ADMISSION[kind])
    await stranger.closed()
    assert stranger.got(MessageType.JOB) == 0
    await worker.pull(1)
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200


async def test_garbage_on_the_socket_ends_the_connection(fleet: Fleet) -> None:
    stranger = fleet.make("a")
    await stranger.connect()
    stranger.send_raw(os.urandom(64) + b"\xff" * 64)
    await stranger.closed()


@pytest.mark.parametrize("settings", [{"hello_deadline_s": 0.2}])
async def test_a_peer_that_says_nothing_is_cut_off(fleet: Fleet) -> None:
    stranger = fleet.make("a")
    await stranger.connect()
    await stranger.closed(within_s=3)


@pytest.mark.parametrize("wrong", ["key", "seq", "replay", "count"])
async def test_a_wrong_pull_gets_nothing_and_ends_the_session(
    up: Up, fleet: Fleet, wrong: str
) -> None:
    (worker,) = await fleet.admit("a")
    if wrong == "key":
        await worker.pull(1, key=Ed25519PrivateKey.generate())
    elif wrong == "seq":
        await worker.pull(1, seq=0)
    elif wrong == "replay":
        await worker.pull(1, seq=5)
        await worker.pull(1, seq=5)
    else:
        await worker.pull(5000)
    await worker.closed()
    reply = await up.post(seal([worker]))
    assert problem(reply) == (409, "rewrap_needed")
    assert worker.got(MessageType.JOB) == 0


async def test_a_pull_signed_for_another_connection_is_refused(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    second.nonce = first.nonce
    await second.pull(1)
    await second.closed()
    assert len(up.gateway.roster) == 1


async def test_new_keys_are_admitted_and_old_ones_still_work(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=2)
    old = seal([worker])
    fresh = SUITES[HYBRID].private_key(os.urandom(32))
    before, worker.tee.keys[HYBRID] = worker.tee.keys[HYBRID], fresh
    await worker.new_keys(epoch=1, kems=[Kem(HYBRID, SUITES[HYBRID].public_bytes(fresh))])
    admitted = (await worker.receive(MessageType.ADMITTED)).json()
    assert admitted["bh"] == b64u(worker.bh)
    new = seal([worker])
    replies = [asyncio.create_task(up.post(sealed)) for sealed in (new, old)]
    for _ in range(2):
        job = await worker.job()
        assert job.kids[0] in (*new.kids, *old.kids)
        if job.kids == new.kids:
            await worker.answer(job)
        else:
            worker.tee.keys[HYBRID] = before
            worker.notice(job, "open_failed")
            worker.tee.keys[HYBRID] = fresh
    assert sorted(r.status_code for r in await asyncio.gather(*replies)) == [200, 400]


async def test_new_keys_of_another_process_are_refused(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    worker.tee.posture_boot = bytes(16)
    await worker.new_keys(boot=bytes(16))
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["session_mismatch"]
    assert len(up.gateway.roster) == 1


async def test_new_keys_under_another_name_are_refused(up: Up, fleet: Fleet) -> None:
    """Sessions are counted and cut off by their names."""
    (worker,) = await fleet.admit("a")
    before = worker.wid
    await worker.new_keys(epoch=1, wid="another")
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["session_mismatch"]
    assert list(up.gateway.registry.sessions) == [before]


async def test_new_keys_under_another_signing_key_are_refused(up: Up, fleet: Fleet) -> None:
    """Who has the link, the name and the number of a start has not the key it was admitted with."""
    (worker,) = await fleet.admit("a")
    worker.tee.sig = worker.tee.posture_signer = Ed25519PrivateKey.generate()
    await worker.new_keys(epoch=1, sig_pk=worker.tee.sig.public_key().public_bytes_raw())
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["session_mismatch"]
    assert not up.gateway.registry.epoch(worker.bh)


async def test_new_keys_that_answer_a_challenge_are_refused(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    await worker.new_keys(epoch=1, nonce=os.urandom(32))
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["nonce_unexpected"]
    assert not up.gateway.registry.epoch(worker.bh)


async def test_a_refused_epoch_leaves_the_admitted_one_working(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    good = worker.binding
    await worker.new_keys(epoch=1, policy=sha256_tag(b"other"))
    await worker.receive(MessageType.REFUSED)
    worker.binding = good
    reply = asyncio.create_task(up.post(seal([worker])))
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200


async def test_the_same_process_may_reconnect_and_replaces_its_old_session(
    up: Up, fleet: Fleet
) -> None:
    first = fleet.make("a")
    await first.admitted()
    second = fleet.make("a")
    await second.admitted()
    await first.closed()
    assert len(up.gateway.roster) == 1
    await second.pull(1)
    sealed = seal([second])
    reply = asyncio.create_task(up.post(sealed))
    await second.answer(await second.job())
    assert (await reply).status_code == 200


async def test_another_process_cannot_take_a_live_workers_name(up: Up, fleet: Fleet) -> None:
    (first,) = await fleet.admit("a")
    thief = fleet.make("b")
    thief.tee.facts["wid"] = first.wid
    thief.binding = thief.tee.binding()
    assert await thief.refused() == ["wid_in_use"]
    assert up.gateway.registry.sessions[first.wid].sig_pk == (
        first.tee.sig.public_key().public_bytes_raw()
    )


async def test_of_two_processes_with_one_name_that_come_at_once_one_is_admitted(
    up: Up, fleet: Fleet
) -> None:
    for number in range(4):
        pair = [fleet.make(f"{number}a"), fleet.make(f"{number}b")]
        for peer in pair:
            peer.tee.facts["wid"] = f"worker-{number}"
            await peer.connect()
        await asyncio.gather(*(peer.hello() for peer in pair))
        async with asyncio.timeout(5):
            while sum(p.got(MessageType.ADMITTED) + p.got(MessageType.REFUSED) for p in pair) < 2:
                await asyncio.sleep(0.01)
        (lost,) = [peer for peer in pair if peer.got(MessageType.REFUSED)]
        refused = (await lost.receive(MessageType.REFUSED)).json()
        assert refused["reasons"] == ["wid_in_use"]
        await lost.closed()
        (held,) = [peer for peer in pair if peer is not lost]
        assert up.gateway.registry.sessions[held.wid].newest.bh == held.bh
        assert len(up.gateway.roster) == number + 1
    sessions = await up.events("worker.session")
    assert all(event["reason"] in ("", "wid_in_use") for event in sessions)
    opened = sum(event["phase"] == "open" for event in sessions)
    assert opened - sum(event["phase"] == "close" for event in sessions) == 4


async def test_a_denied_binding_is_cut_off_and_published_as_denied(up: Up, fleet: Fleet) -> None:
    deny = up.gateway.config.deny_file
    assert deny is not None
    (worker,) = await fleet.admit("a")
    await asyncio.to_thread(deny.write_text, f"# found on a stolen disk\n{b64u(worker.bh)}\n")
    await worker.closed()
    assert not up.gateway.registry.knows(worker.kid)
    again = fleet.make("a")
    again.tee, again.binding = worker.tee, worker.binding
    assert await again.refused() == ["denied"]
    async with asyncio.timeout(5):
        while b64u(worker.bh) not in json.dumps(await snapshot(up)):
            await asyncio.sleep(0.05)


async def snapshot(up: Up) -> dict[str, Any]:
    """The payload of the directory as served."""
    document = (await up.http.get("/v1/keys")).json()
    found: dict[str, Any] = json.loads(unb64u(document["payload"]))
    return found
