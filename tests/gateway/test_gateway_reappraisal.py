"""An admitted worker is judged again: what the policy demands now is what counts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.deployment import Deployment, Fleet, Observed, Up, problem, read, seal, until
from simulators.tee import SoftwareTee

from attestation.signed_policy import sign_policy
from evidence.events import ATTEST_VERDICT
from gateway.appraiser import Appraiser, Presented
from gateway.found import Collected
from gateway.runtime import Gateway
from wire.errors import ConfigError, PolicyError
from wire.ids import b64u

if TYPE_CHECKING:
    from simulators.worker_peer import WorkerPeer

    from attestation.result import AppraisedEvidence, Refused

OTHER = "sha256:" + "ab" * 32
SOON: dict[str, Any] = {"reappraise_s": 0.1}


async def last_verdict(up: Up, worker: WorkerPeer) -> dict[str, Any]:
    found = [body for body in await up.events(ATTEST_VERDICT) if body["bh"] == b64u(worker.bh)]
    return found[-1]


async def test_a_policy_that_no_longer_accepts_a_worker_fences_it(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    rule = {**up.deployment.tee.rule, "measurements": [OTHER]}
    await up.write_policy(accept=[rule])  # nobody tells the gateway
    await worker.closed()
    assert not up.gateway.registry.knows(worker.kid)
    async with asyncio.timeout(5):
        while (verdict := await last_verdict(up, worker))["ok"]:
            await asyncio.sleep(0.02)
    assert verdict["reasons"] == ["measurement_not_accepted"]
    assert verdict["policy"] == up.gateway.policies.value.digest


async def test_a_fenced_worker_gets_no_request_that_was_waiting(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")  # it asks for nothing, so the request waits
    sealed = seal([worker])
    waiting = asyncio.create_task(up.post(sealed))
    await until(lambda: up.gateway.dispatcher.waiting == 1)
    await up.demand(deny={"measurements": [worker.tee.measurement()]})
    answer = await waiting
    assert problem(answer)[1] == "rewrap_needed"


@pytest.mark.parametrize("settings", [SOON])
async def test_a_policy_that_still_accepts_a_worker_changes_nothing_for_it(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    before = up.gateway.reappraisal.appraiser.policy.digest
    await up.demand(min_workers=2)
    assert up.gateway.reappraisal.appraiser.policy.digest != before
    await asyncio.sleep(0.3)  # several sweeps
    sealed = seal([worker])
    answer = asyncio.create_task(up.post(sealed))
    await worker.answer(await worker.job())
    assert read(sealed, (await answer).content)[1]


async def test_an_older_policy_put_back_is_not_taken(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    await up.demand(seq=5)
    assert up.gateway.reappraisal.appraiser.policy.seq == 5
    rule = {**up.deployment.tee.rule, "measurements": [OTHER]}
    await up.demand(seq=4, accept=[rule])
    assert up.gateway.reappraisal.appraiser.policy.seq == 5
    assert up.gateway.registry.knows(worker.kid)


def test_an_older_policy_is_not_taken_after_a_restart_either() -> None:
    deployment = Deployment()
    try:
        path = deployment.config.admission_policy_file
        path.write_text(json.dumps({**deployment.tee.demands, "seq": 7}))
        Gateway.open(deployment.config).ledger.log.close()
        path.write_text(json.dumps({**deployment.tee.demands, "seq": 6}))
        with pytest.raises(PolicyError, match="found seq 6, expected at least 7"):
            Gateway.open(deployment.config)
        path.write_text(json.dumps({**deployment.tee.demands, "seq": 7, "k": 1}))
        with pytest.raises(PolicyError, match="found other demands under seq 7"):
            Gateway.open(deployment.config)
        path.write_text(json.dumps({**deployment.tee.demands, "seq": 8, "k": 1}))
        Gateway.open(deployment.config).ledger.log.close()
    finally:
        deployment.remove()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"id":"tests","seq":"7","digest":""}'])
def test_a_damaged_memory_is_not_taken_for_none(damage: bytes) -> None:
    deployment = Deployment()
    try:
        (deployment.config.state_dir / "policy.seen").write_bytes(damage)
        with pytest.raises(ConfigError, match="policy memory"):
            Gateway.open(deployment.config)
    finally:
        deployment.remove()


async def test_a_policy_file_that_is_none_leaves_the_one_in_force(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    path = up.deployment.config.admission_policy_file
    await asyncio.to_thread(path.write_text, "{")
    await up.gateway.look()
    assert up.gateway.registry.knows(worker.kid)
    assert not up.gateway.failed.is_set()


@pytest.mark.parametrize("settings", [SOON])
async def test_a_policy_that_expires_fences_its_workers_by_itself(
    deployment: Deployment, observed: Observed
) -> None:
    tee = deployment.tee
    tee.demands["expires"] = tee.now + 300
    deployment.config.admission_policy_file.write_text(json.dumps(tee.demands))
    async with deployment.up(observed.telemetry) as up:
        fleet = Fleet(deployment)
        (worker,) = await fleet.admit("a")
        deployment.ahead = 300
        await worker.closed()
        assert not up.gateway.registry.knows(worker.kid)
        reason = {"anchorhold__reason": "policy_expired"}
        assert observed.total("anchorhold_attest_failures", **reason) == 1


def test_a_gateway_with_a_policy_key_takes_no_unsigned_policy() -> None:
    key = Ed25519PrivateKey.generate()
    public = b64u(key.public_key().public_bytes_raw())
    deployment = Deployment(policy_key=public)
    try:
        with pytest.raises(PolicyError, match="found no signature"):
            Gateway.open(deployment.config)
        path = deployment.config.admission_policy_file
        path.write_bytes(sign_policy(path.read_bytes(), "ops", key))
        gateway = Gateway.open(deployment.config)
        assert gateway.policies.value.seq == 1
        gateway.ledger.log.close()
        other = Ed25519PrivateKey.generate()
        plain = json.dumps(deployment.tee.demands).encode()
        path.write_bytes(sign_policy(plain, "ops", other))
        with pytest.raises(PolicyError, match="expected one by a configured policy key"):
            Gateway.open(deployment.config)
    finally:
        deployment.remove()


async def test_a_verdict_is_remembered_for_exactly_what_was_judged() -> None:
    tee = SoftwareTee()
    binding = tee.binding()
    shown = Presented(binding, (tee.evidence(binding),), tee.posture())
    appraiser = Appraiser(tee.policy())

    async def judged(what: Presented, now: int, **more: Any) -> AppraisedEvidence | Refused:
        return (await appraiser.judge(what, now, **more))[0]

    first = await judged(shown, tee.now)
    assert await judged(shown, tee.now + 5) is first
    other = Presented(binding, shown.evidence, shown.posture, beacon_time=tee.now)
    assert await judged(other, tee.now) is not first
    changed = {"software": {"crl": b"\x01"}}
    assert await judged(shown, tee.now, collateral=Collected.of(changed)) is not first
    assert await judged(shown, tee.now + 4000) is not first  # its time is over
    tee.demands["seq"] = 2
    appraiser.policy = tee.policy()
    assert await judged(shown, tee.now) is not first


async def test_a_verdict_under_a_policy_replaced_meanwhile_no_longer_stands(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    admission, appraiser = up.gateway.roster.admission, up.gateway.reappraisal.appraiser
    assert admission.stands(epoch)
    up.deployment.tee.demands["seq"] = 2
    appraiser.policy = up.deployment.tee.policy()
    assert not admission.stands(epoch)


async def test_a_worker_denied_while_it_was_judged_does_not_stand(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    up.gateway.deny.value = frozenset({worker.bh})
    assert not up.gateway.roster.admission.stands(epoch)
