"""Which workers are admitted, and what a connection may do before and after."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.deployment import now, problem, read, seal

from attestation.binding import Beacon, Kem, parse_beacon
from attestation.posture import Control
from evidence.events import parse_event
from gateway.runtime import Gateway
from wire.canonical import encode
from wire.errors import ConfigError
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
    from simulators.deployment import Deployment, Fleet, Observed, Up


async def events(up: Up, kind: str) -> list[dict[str, Any]]:
    """Bodies of all logged events of a type."""
    log = up.gateway.ledger.log
    parsed = [parse_event((await log.entry(i)).event) for i in range(log.size)]
    return [dict(event.body) for event in parsed if event.type == kind]


async def test_an_admitted_worker_gets_a_lease_and_the_index_of_its_verdict(
    up: Up, fleet: Fleet
) -> None:
    worker = fleet.make("a")
    admitted = await worker.admitted()
    assert admitted["bh"] == b64u(worker.bh)
    assert admitted["lease_s"] == 2
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
        while len(await events(up, "worker.session")) < 2:
            await asyncio.sleep(0.02)
    opened, closed = await events(up, "worker.session")
    assert (opened["phase"], opened["bh"], opened["wid"]) == ("open", b64u(worker.bh), worker.wid)
    assert (closed["phase"], closed["reason"]) == ("close", "lost")


REFUSALS = {
    "measurement_not_accepted": lambda w: w.tee.parts.update(first_party=sha256_tag(b"changed")),
    "audience_mismatch": lambda w: w.tee.facts.update(aud="elsewhere"),
    "binding_expired": lambda w: w.tee.facts.update(nbf=now() - 7200, exp=now() - 3600),
    "signature_invalid": lambda w: setattr(w.tee, "signer", Ed25519PrivateKey.generate()),
    "report_data_mismatch": lambda w: w.tee.statement.update(report_data=bytes(64)),
    "posture_below_policy": lambda w: w.tee.controls.update(seccomp=Control("refused")),
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
    (verdict,) = await events(up, "attest.verdict")
    assert verdict["ok"] is False
    assert reason in verdict["reasons"]
    assert not up.gateway.registry.knows(worker.kid)
    assert observed.total("anchorhold_attest_failures", anchorhold__reason=reason) == 1


async def test_a_hello_signed_by_another_key_is_refused(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    other = Ed25519PrivateKey.generate()
    await worker.hello(sig=b64u(other.sign(hello_bytes(worker.nonce, worker.bh))))
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["hello_signature"]
    assert (await events(up, "attest.verdict"))[0]["reasons"] == ["hello_signature"]


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


@pytest.mark.parametrize(
    "change",
    [
        {"binding": "not base64!"},
        {"evidence": []},
        {"evidence": "none"},
        {"sig": 7},
        {"extra": 1},
        {"posture": b64u(bytes(70_000))},
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


async def test_a_binding_that_does_not_parse_is_refused_and_logged(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    assert await worker.refused(binding=b64u(b"{}")) == ["binding_malformed"]
    assert (await events(up, "attest.verdict"))[0]["ok"] is False


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


async def test_a_lease_is_renewed_by_heartbeats(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    lease = (await worker.receive(MessageType.LEASE)).json()
    assert set(lease) == {"lease_s", "beacon"}
    assert lease["lease_s"] == 2
    await asyncio.sleep(2.3)
    assert len(up.gateway.roster) == 1


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


async def test_a_receipt_about_another_request_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    job = await worker.job()
    writer = worker.begin(job)
    _, _, event = worker.receipt(job, writer, "")
    worker.send(
        json_message(
            MessageType.RECEIPT,
            {"event": b64u(encode({**event, "rid": b64u(bytes(16))}))},
            rid=job.rid,
        )
    )
    await worker.closed()
    with pytest.raises(httpx2.RemoteProtocolError):
        await reply
    assert not await events(up, "infer.receipt")


async def test_a_second_receipt_for_one_answer_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker])))
    job = await worker.job()
    writer = worker.begin(job)
    _, _, event = worker.receipt(job, writer, "")
    await worker.log(job, event)
    worker.send(json_message(MessageType.RECEIPT, {"event": b64u(encode(event))}, rid=job.rid))
    await worker.closed()
    reply.cancel()
    assert len(await events(up, "infer.receipt")) == 1


async def test_a_receipt_is_logged_before_it_is_confirmed(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    logged = await worker.answer(await worker.job())
    read(sealed, (await reply).content)[0].finish()
    (event,) = await events(up, "infer.receipt")
    assert event["rid"] == b64u(sealed.header.rid)
    assert event["use"] == {"in": 64, "out": 64}
    assert logged["index"] < up.gateway.ledger.log.size


async def test_the_first_worker_is_told_of_a_snapshot_and_a_binding_that_names_it_is_admitted(
    up: Up, fleet: Fleet
) -> None:
    worker, log = fleet.make("a"), up.gateway.ledger.log
    assert (await worker.admitted())["bh"] == b64u(worker.bh)
    beacon = worker.beacon
    assert beacon is not None
    assert worker.tee.facts["beacon"] == beacon
    assert (beacon.log, beacon.root) == (log.origin, log.root(beacon.size))
    last = parse_event((await log.entry(beacon.size - 1)).event)
    assert last.type == "directory.snapshot"


async def test_a_lease_names_the_newest_snapshot(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    assert worker.beacon is not None
    async with asyncio.timeout(5):  # its own admission makes a new one
        newer = worker.beacon
        while newer == worker.beacon:
            lease = (await worker.receive(MessageType.LEASE)).json()
            found = parse_beacon(lease["beacon"], "lease")
            assert found is not None
            newer = found
    assert newer.size > worker.beacon.size
    await worker.new_keys(epoch=1, beacon=newer)
    assert (await worker.receive(MessageType.ADMITTED)).json()["bh"] == b64u(worker.bh)


@pytest.mark.parametrize("lie", ["root", "size", "log", "entry"])
async def test_a_beacon_our_log_never_published_is_refused(up: Up, fleet: Fleet, lie: str) -> None:
    await fleet.admit("b")
    log, honest = up.gateway.ledger.log, up.gateway.directory.beacon
    assert honest is not None
    size = log.size + 1000 if lie == "size" else honest.size
    if lie == "entry":  # the verdict on the other worker: in the log, but no snapshot
        (bh,) = up.gateway.registry.admitted()
        admitted = up.gateway.registry.epoch(bh)
        assert admitted is not None
        size = admitted.verdict.index + 1
    root = log.root(min(size, log.size))
    worker = fleet.make("a")
    worker.tee.facts["beacon"] = Beacon(
        "another log" if lie == "log" else honest.log, size, bytes(32) if lie == "root" else root
    )
    worker.binding = worker.tee.binding()
    assert await worker.refused() == ["beacon_unverified"]


async def test_a_beacon_older_than_the_policy_allows_is_refused(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    worker.tee.facts |= {"nbf": now() + 601, "exp": now() + 3600}
    assert "beacon_stale" in await worker.refused()


async def test_a_policy_that_demands_a_beacon_refuses_a_binding_without_one(
    deployment: Deployment,
) -> None:
    path = deployment.config.admission_policy_file
    path.write_text(json.dumps({**deployment.tee.demands, "freshness": {"require_beacon": True}}))
    async with deployment.up():
        bare, dated = deployment.worker("a", dated=False), deployment.worker("b")
        assert await bare.refused() == ["beacon_missing"]
        await dated.admitted()
        await bare.drop()
        await dated.drop()


def test_a_policy_that_wants_younger_beacons_than_are_published_is_refused_at_the_start(
    deployment: Deployment,
) -> None:
    path = deployment.config.admission_policy_file
    path.write_text(json.dumps({**deployment.tee.demands, "freshness": {"beacon_max_age_s": 180}}))
    with pytest.raises(ConfigError, match=r"beacon_max_age_s \(180 s\) expected, found 180"):
        Gateway.open(deployment.config)
