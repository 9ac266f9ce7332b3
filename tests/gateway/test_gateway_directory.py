"""Directory, evidence and log routes: everything served passes the project's own verifiers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import now, problem, read, seal

from attestation.appraise import appraise
from attestation.binding import parse_binding
from attestation.evidence import evidence_list
from attestation.result import AppraisedEvidence
from evidence.beacon import BeaconProof, verify_beacon
from evidence.checkpoint import open_checkpoint
from evidence.directory import TrustedSnapshot, peek_head, verify_directory
from evidence.entry import Logged, verify_logged
from evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from evidence.record import parse_record
from wire.ids import b64u, bh_of, unb64u
from wire.link import MessageType
from wire.records import RECEIPT

if TYPE_CHECKING:
    from simulators.deployment import Deployment, Fleet, Up


async def document(up: Up) -> bytes:
    response = await up.http.get("/v1/keys")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.anchorhold.keys+json"
    return response.content


async def listed(up: Up, workers: int) -> TrustedSnapshot:
    """The verified directory once it lists so many workers."""
    async with asyncio.timeout(5):
        while True:
            policy = up.deployment.client_policy()
            found = verify_directory(await document(up), policy, now())
            if len(found.workers) == workers:
                return found
            await asyncio.sleep(0.02)


async def test_the_directory_verifies_and_lists_exactly_the_admitted_workers(
    up: Up, fleet: Fleet
) -> None:
    assert (await listed(up, 0)).workers == ()
    workers = await fleet.admit("a", "b")
    snapshot = await listed(up, 2)
    assert {entry.bh for entry in snapshot.workers} == {worker.bh for worker in workers}
    assert {entry.kids for entry in snapshot.workers} == {(worker.kid,) for worker in workers}
    assert snapshot.expires - snapshot.issued <= 600
    assert all(entry.models == ("m",) for entry in snapshot.workers)


async def test_a_worker_that_leaves_is_listed_no_more(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await listed(up, 2)
    await first.drop()
    assert (await listed(up, 1)).workers[0].bh == second.bh
    second.goodbye()
    await listed(up, 0)


async def test_sequence_numbers_of_snapshots_grow(up: Up, fleet: Fleet) -> None:
    before = (await listed(up, 0)).seq
    await fleet.admit("a")
    assert (await listed(up, 1)).seq > before


@pytest.mark.parametrize("settings", [{"directory_refresh_s": 1}])
async def test_a_snapshot_is_renewed_without_any_change(up: Up) -> None:
    before = (await listed(up, 0)).issued
    await asyncio.sleep(1.6)
    assert (await listed(up, 0)).issued > before


async def test_the_model_parameter_does_not_change_the_signed_snapshot(up: Up) -> None:
    whole = await up.http.get("/v1/keys")
    hinted = await up.http.get("/v1/keys", params={"model": "anything"})
    assert whole.json()["payload"] == hinted.json()["payload"]


async def test_a_listed_worker_can_be_appraised_by_anybody(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    snapshot = await listed(up, 1)
    found = (await up.http.get(f"/v1/keys/{b64u(snapshot.workers[0].bh)}")).json()
    binding = unb64u(found["binding"])
    assert bh_of(binding) == worker.bh
    policy = up.deployment.client_policy()
    posture = unb64u(found["posture"])
    origin = policy.log_origin
    assert origin is not None
    named, shown = parse_binding(binding).beacon, BeaconProof.from_json(found["beacon"])
    assert named is not None
    beacon = verify_beacon(named, shown, origin, policy.log_vkeys)
    assert now() - 10 < beacon.time <= now()
    verdict = appraise(
        binding,
        evidence_list(found["evidence"]),
        posture,
        policy,
        now(),
        beacon_time=beacon.time,
    )
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == "software"
    inclusion = Logged.from_json(found["inclusion"])
    assert inclusion.checkpoint == beacon.checkpoint.note
    entry = verify_logged(inclusion, origin, policy.log_vkeys)
    assert entry.index == snapshot.workers[0].leaf
    assert entry.event.body["bh"] == b64u(worker.bh)


async def test_a_binding_without_a_beacon_has_no_proof_of_one(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a", dated=False)
    await worker.admitted()
    found = (await up.http.get(f"/v1/keys/{b64u(worker.bh)}")).json()
    assert found["beacon"] is None


async def test_proofs_of_the_log_routes_verify(up: Up, fleet: Fleet) -> None:
    policy = up.deployment.client_policy()
    assert policy.log_origin is not None
    first = open_checkpoint(
        (await up.http.get("/v1/log/checkpoint")).text, policy.log_origin, policy.log_vkeys
    )
    await fleet.admit("a", "b")
    await listed(up, 2)
    second = open_checkpoint(
        (await up.http.get("/v1/log/checkpoint")).text, policy.log_origin, policy.log_vkeys
    )
    assert second.size > first.size
    sizes = {"first": first.size, "second": second.size}
    proof = (await up.http.get("/v1/log/consistency", params=sizes)).json()["proof"]
    verify_consistency(
        first.size, second.size, first.root, second.root, [unb64u(item) for item in proof]
    )
    entry = await up.gateway.ledger.log.entry(1)
    place = {"index": 1, "size": second.size}
    path = (await up.http.get("/v1/log/inclusion", params=place)).json()["proof"]
    verify_inclusion(
        leaf_hash(entry.leaf), 1, second.size, [unb64u(item) for item in path], second.root
    )


async def test_the_receipt_in_an_answer_is_provable_under_the_pinned_log(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    await worker.answer(await worker.job())
    _, records = read(sealed, (await reply).content)
    (raw,) = [record.data for record in records if record.type == RECEIPT]
    policy = up.deployment.client_policy()
    assert policy.log_origin is not None
    record = parse_record(raw)
    entry = verify_logged(record.logged, policy.log_origin, policy.log_vkeys)
    assert entry.event.type == "infer.receipt"
    assert entry.event.body["rid"] == b64u(sealed.header.rid)


async def test_a_live_challenge_is_relayed_and_answered_with_fresh_evidence(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    nonce = b"n" * 32
    question = {"nonce": b64u(nonce), "bh": b64u(worker.bh), "credential": None}
    asked = asyncio.create_task(
        up.http.post(
            f"/v1/workers/{worker.wid}/challenge",
            content=json.dumps(question),
            headers=up.headers(content_type="application/json"),
        )
    )
    relayed = await worker.answer_challenge()
    assert relayed["nonce"] == b64u(nonce)
    answer = (await asked).json()
    policy = up.deployment.client_policy()
    verdict = appraise(
        unb64u(answer["binding"]),
        evidence_list(answer["evidence"]),
        unb64u(answer["posture"]),
        policy,
        now(),
        nonce=nonce,
    )
    assert isinstance(verdict, AppraisedEvidence)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"nonce": "short"}, (400, "bad_request")),
        ({"credential": 3}, (400, "bad_request")),
        ({"more": 1}, (400, "bad_request")),
        ({"bh": b64u(bytes(32))}, (503, "no_worker")),
    ],
    ids=str,
)
async def test_a_challenge_that_does_not_fit_is_refused(
    up: Up, fleet: Fleet, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    (worker,) = await fleet.admit("a")
    question = {"nonce": b64u(bytes(32)), "bh": b64u(worker.bh), "credential": None, **change}
    response = await up.http.post(
        f"/v1/workers/{worker.wid}/challenge",
        content=json.dumps(question),
        headers=up.headers(content_type="application/json"),
    )
    assert problem(response) == expected
    assert worker.got(MessageType.CHALLENGE_JOB) == 0


async def test_after_a_restart_the_log_continues_and_workers_are_admitted_again(
    deployment: Deployment,
) -> None:
    policy = deployment.client_policy()
    async with deployment.up() as up:
        worker = deployment.worker("a")
        await worker.admitted()
        before = await listed(up, 1)
        head = peek_head(await document(up))
        await worker.drop()
    async with deployment.up() as up:
        second = deployment.worker("a")
        await second.admitted()
        await second.pull(1)
        async with asyncio.timeout(5):
            while len(verify_directory(await document(up), policy, now()).workers) != 1:
                await asyncio.sleep(0.02)
        served = await document(up)
        new = peek_head(served)
        assert new.size > head.size
        sizes = {"first": head.size, "second": new.size}
        proof = (await up.http.get("/v1/log/consistency", params=sizes)).json()["proof"]
        after = verify_directory(
            served,
            policy,
            now(),
            head,
            [unb64u(item) for item in proof],
            last_leaf=before.entry.index,
        )
        assert after.seq > before.seq
        sealed = seal([second])
        reply = asyncio.create_task(up.post(sealed))
        await second.answer(await second.job())
        assert (await reply).status_code == 200
        await second.drop()


@pytest.mark.parametrize("settings", [{"settle_s": 10.0}])
async def test_a_request_sent_before_its_worker_is_back_after_a_restart_is_answered(
    up: Up, fleet: Fleet
) -> None:
    worker = fleet.make("a")
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    async with asyncio.timeout(5):
        while not up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.01)
    await worker.admitted()
    await worker.pull(1)
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200


@pytest.mark.parametrize("settings", [{"settle_s": 0.5}])
async def test_a_request_whose_worker_never_comes_back_is_asked_for_new_wraps(
    up: Up, fleet: Fleet
) -> None:
    worker = fleet.make("a")
    assert problem(await up.post(seal([worker]))) == (409, "rewrap_needed")
