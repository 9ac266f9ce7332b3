"""A gateway that comes back after a stop trusts nothing of before: every key is proved again.

What it keeps on disk is a log and its own keys. Nonces, verdicts and sessions die with the process,
and what was made for the old ones is worth nothing to the new.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Deployment
from simulators.tpm import TpmTee
from simulators.worker_peer import tpm_secret

from attestation.evidence import Evidence
from evidence.events import ATTEST_VERDICT
from wire.ids import b64u, sha256_tag
from wire.link import HELLO, MessageType, json_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.deployment import Up
    from simulators.worker_peer import WorkerPeer


async def verdicts(up: Up, worker: WorkerPeer) -> list[bool]:
    bodies = await up.events(ATTEST_VERDICT)
    return [body["ok"] for body in bodies if body["bh"] == b64u(worker.bh)]


async def test_a_hello_of_before_a_restart_is_refused_after_it(deployment: Deployment) -> None:
    async with deployment.up():
        worker = deployment.worker("a")
        await worker.admitted()
        recorded = worker.introduction()
        await worker.drop()
    async with deployment.up() as up:
        thief = deployment.worker("a")
        await thief.connect()
        thief.send(json_message(HELLO, recorded))
        refused = (await thief.receive(MessageType.REFUSED)).json()
        assert refused["reasons"] == ["hello_signature"]
        assert len(up.gateway.roster) == 0
        await thief.drop()


@pytest.fixture
def with_tpms() -> Iterator[Deployment]:
    found = Deployment(TpmTee)
    yield found
    found.remove()


async def test_an_activation_of_before_a_restart_answers_no_challenge_after_it(
    with_tpms: Deployment,
) -> None:
    async with with_tpms.up():
        worker = with_tpms.worker("a")
        await worker.connect()
        await worker.hello()
        question = await worker.activate()
        await worker.receive(MessageType.ADMITTED)
        assert isinstance(worker.tee, TpmTee)
        recorded = {"secret": b64u(tpm_secret(worker.tee, question["credential"]))}
        await worker.drop()
    async with with_tpms.up() as up:
        again = with_tpms.worker("a")
        await again.connect()
        await again.hello()
        await again.activate(recorded)
        refused = (await again.receive(MessageType.REFUSED)).json()
        assert refused["reasons"] == ["activation_mismatch"]
        assert len(up.gateway.roster) == 0
        await again.drop()


async def test_a_worker_is_nobody_after_a_restart_until_it_was_judged_again(
    deployment: Deployment,
) -> None:
    async with deployment.up() as up:
        worker = deployment.worker("a")
        await worker.admitted()
        assert await verdicts(up, worker) == [True]
        await worker.drop()
    async with deployment.up() as up:
        assert not up.gateway.registry.knows(worker.kid)
        assert up.gateway.registry.epoch(worker.bh) is None
        assert (await up.http.get(f"/v1/keys/{b64u(worker.bh)}")).status_code == 404
        again = deployment.worker("a", dated=False)
        again.tee.facts, again.binding = worker.tee.facts, worker.binding  # the same keys
        await again.admitted()
        assert await verdicts(up, worker) == [True, True]
        await again.drop()


async def test_what_the_policy_refuses_by_now_was_never_admitted_after_a_restart(
    deployment: Deployment,
) -> None:
    async with deployment.up():
        worker = deployment.worker("a")
        await worker.admitted()
        await worker.drop()
    rule = {**deployment.tee.rule, "measurements": [sha256_tag(b"the next release")]}
    newer = {**deployment.tee.demands, "seq": 2, "accept": [rule]}
    deployment.config.admission_policy_file.write_text(json.dumps(newer))
    async with deployment.up() as up:
        again = deployment.worker("a")
        assert await again.refused() == ["measurement_not_accepted"]
        assert len(up.gateway.roster) == 0
        await again.drop()


@pytest.mark.parametrize("carried", ["binding and evidence", "evidence"])
async def test_whoever_took_a_workers_evidence_is_not_that_worker_after_a_restart(
    deployment: Deployment, carried: str
) -> None:
    """The impostor knows all that was public before: binding, evidence, posture, name."""
    async with deployment.up():
        worker = deployment.worker("a")
        await worker.admitted()
        recorded = worker.introduction()
        await worker.drop()
    async with deployment.up() as up:
        impostor = deployment.worker("impostor", dated=False)
        impostor.tee.facts["wid"] = worker.wid
        impostor.binding = impostor.tee.binding()
        changes = {"evidence": recorded["evidence"]}
        if carried == "binding and evidence":
            changes |= {"binding": recorded["binding"], "posture": recorded["posture"]}
        assert Evidence.from_json(recorded["evidence"][0]).kind == "software"
        reasons = await impostor.refused(**changes)
        wanted = "hello_signature" if "binding" in changes else "report_data_mismatch"
        assert reasons == [wanted]
        assert len(up.gateway.roster) == 0
        await impostor.drop()
