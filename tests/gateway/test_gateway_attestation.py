"""The routes that speak others' words: `aci/1` reports and EAR result tokens."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Fleet, Up, now, problem

from attestation.aci import keyset_digest, keyset_of, report_data_of
from attestation.binding import parse_binding
from attestation.ear_token import verify_result
from gateway.link import CHALLENGES_MAX
from gateway.live_reports import TRIES_MAX, LiveReports
from wire.errors import UnavailableError
from wire.ids import b64u, unb64u
from wire.link import CHALLENGE_ANSWER, MessageType, json_message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import httpx2
    from simulators.worker_peer import WorkerPeer


async def asked(up: Up, path: str, tenant: str | None = "tenant-a") -> httpx2.Response:
    headers = {} if tenant is None else {"authorization": up.headers(tenant)["authorization"]}
    return await up.http.get(path, headers=headers)


async def test_an_aci_report_is_fresh_over_the_callers_nonce(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    nonce = os.urandom(32)
    waiting = asyncio.create_task(asked(up, f"/v1/aci/attestation?nonce={nonce.hex()}"))
    await worker.answer_challenge()
    answer = await waiting
    assert answer.status_code == 200, answer.text
    report = answer.json()
    binding = parse_binding(unb64u(report["attestation"]["evidence"]["binding"]))
    assert binding.nonce == nonce
    digest = keyset_digest(keyset_of(binding))
    assert report["workload_keyset_digest"] == digest
    assert report["attestation"]["report_data"] == report_data_of(digest, nonce).hex()
    assert answer.headers["x-aci-version"] == "aci/1"
    assert answer.headers["x-aci-keyset-digest"] == digest


async def test_an_aci_report_without_a_nonce_is_the_listed_evidence(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    report = (await asked(up, "/v1/aci/attestation", tenant=None)).json()
    assert unb64u(report["attestation"]["evidence"]["binding"]) == worker.binding


async def live(up: Up, tenant: str = "tenant-a") -> httpx2.Response:
    return await asked(up, f"/v1/aci/attestation?nonce={os.urandom(32).hex()}", tenant)


async def shows_nothing(worker: WorkerPeer) -> None:
    """Answers, but with nothing that can be used."""
    question = (await worker.receive(MessageType.CHALLENGE_JOB)).json()
    answer = {"id": question["id"], "binding": b64u(worker.binding), "evidence": []}
    worker.send(json_message(CHALLENGE_ANSWER, answer))


async def shows_its_listed_binding(worker: WorkerPeer) -> None:
    question = (await worker.receive(MessageType.CHALLENGE_JOB)).json()
    evidence = [item.to_json() for item in worker.tee.presented(worker.binding)]
    answer = {"id": question["id"], "binding": b64u(worker.binding), "evidence": evidence}
    worker.send(json_message(CHALLENGE_ANSWER, answer))


async def leaves(worker: WorkerPeer) -> None:
    await worker.receive(MessageType.CHALLENGE_JOB)
    await worker.drop()


@pytest.mark.parametrize("bad", [shows_nothing, shows_its_listed_binding, leaves])
async def test_where_one_worker_shows_nothing_of_use_another_answers(
    up: Up, fleet: Fleet, bad: Callable[[WorkerPeer], Coroutine[Any, Any, None]]
) -> None:
    first, second = await fleet.admit("a", "b")
    tasks = [asyncio.create_task(bad(first)), asyncio.create_task(second.answer_challenge())]
    answer = await live(up)
    if not tasks[0].done():  # the good one was the first to be asked
        tasks.append(asyncio.create_task(second.answer_challenge()))
        answer = await live(up)
    await asyncio.gather(*tasks)
    assert answer.status_code == 200, answer.text
    report = answer.json()["attestation"]["workload_keyset"]
    assert report["subject"].endswith(second.wid)


async def test_a_silent_worker_does_not_stand_for_the_others(up: Up, fleet: Fleet) -> None:
    """One that is admitted and says nothing took the answer from every tenant."""
    silent, good = await fleet.admit("a", "b")

    async def answers() -> None:
        while True:
            await good.answer_challenge()

    answering = asyncio.create_task(answers())
    waiting: list[asyncio.Task[httpx2.Response]] = []
    async with asyncio.timeout(10):
        while silent.got(MessageType.CHALLENGE_JOB) < CHALLENGES_MAX:
            waiting.append(asyncio.create_task(live(up)))
            await asyncio.sleep(0.02)
        for tenant in ("tenant-b",) * 3:
            assert (await live(up, tenant)).status_code == 200
    await silent.drop()  # who waited for it is answered by the other
    answers_had = await asyncio.gather(*waiting)
    answering.cancel()
    assert {answer.status_code for answer in answers_had} == {200}


async def test_a_worker_that_says_nothing_has_no_more_than_its_part_of_the_time(
    up: Up, fleet: Fleet
) -> None:
    silent, good = await fleet.admit("a", "b")
    offered = [up.gateway.registry.epoch(worker.bh) for worker in (silent, good)]
    reports = LiveReports(up.gateway.workers, within_s=4.0)
    answering = asyncio.create_task(good.answer_challenge())
    kept = [epoch for epoch in offered if epoch is not None]
    shown = await reports.ask(kept, bytes(32), lambda shown: {"binding": shown.binding})
    assert parse_binding(shown["binding"]).wid == good.wid
    assert silent.got(MessageType.CHALLENGE_JOB) == 1
    await answering


async def test_three_workers_are_asked_at_most_and_each_question_begins_with_another(
    up: Up, fleet: Fleet
) -> None:
    workers = await fleet.admit("a", "b", "c", "d", "e")
    reports = LiveReports(up.gateway.workers, within_s=0.3)
    offered = list(up.gateway.registry.offered(now()))
    for _ in workers:
        with pytest.raises(UnavailableError, match="in time"):
            await reports.ask(offered, bytes(32), dict)  # type: ignore[arg-type]
    counts = [worker.got(MessageType.CHALLENGE_JOB) for worker in workers]
    assert counts == [TRIES_MAX] * 5


async def test_only_a_tenant_makes_a_worker_attest_anew(up: Up, fleet: Fleet) -> None:
    await fleet.admit("a")
    path = f"/v1/aci/attestation?nonce={bytes(32).hex()}"
    assert problem(await asked(up, path, tenant=None)) == (401, "auth")


async def test_an_answer_to_one_tenants_nonce_is_no_report_for_another_tenants(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    bindings = []
    for tenant in ("tenant-a", "tenant-b"):
        nonce = os.urandom(32)
        path = f"/v1/aci/attestation?nonce={nonce.hex()}"
        waiting = asyncio.create_task(asked(up, path, tenant))
        question = (await worker.receive(MessageType.CHALLENGE_JOB)).json()
        assert unb64u(question["nonce"]) == nonce
        honest = worker.tee.facts
        worker.tee.facts = {**honest, "nonce": nonce}
        bindings.append(worker.tee.binding())
        worker.tee.facts = honest
        shown = bindings[0]  # to both
        evidence = [item.to_json() for item in worker.tee.presented(shown)]
        answer = {"binding": b64u(shown), "evidence": evidence, "id": question["id"]}
        posture = b64u(worker.tee.posture())
        worker.send(json_message(CHALLENGE_ANSWER, {**answer, "posture": posture}))
        reply = await waiting
        if tenant == "tenant-a":
            assert reply.status_code == 200
        else:
            assert problem(reply)[1] == "no_worker"


async def test_a_nonce_of_another_form_is_refused(up: Up, fleet: Fleet) -> None:
    await fleet.admit("a")
    for text in ("", "00", "AB" * 32, "0" * 63, "g" * 64):
        answer = problem(await asked(up, f"/v1/aci/attestation?nonce={text}"))
        assert answer == (400, "bad_request"), text


async def test_a_parameter_given_twice_is_refused(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    nonce, result = bytes(32).hex(), f"/v1/attestation/results/{b64u(worker.bh)}"
    for path in (
        f"/v1/aci/attestation?nonce={nonce}&nonce={'01' * 32}",
        "/v1/aci/attestation?model=m&model=other",
        f"{result}?nonce={nonce}&nonce={nonce}",
        f"{result}?aud=us&aud=them",
    ):
        assert problem(await asked(up, path)) == (400, "bad_request"), path


async def test_without_a_worker_there_is_no_report(up: Up) -> None:
    assert problem(await asked(up, "/v1/aci/attestation"))[1] == "no_worker"


async def test_a_model_nobody_serves_has_no_report(up: Up, fleet: Fleet) -> None:
    await fleet.admit("a")
    assert problem(await asked(up, "/v1/aci/attestation?model=other"))[1] == "no_worker"


@pytest.mark.parametrize("text", ["", "m" * 257, "m%00", "%0a", "%e2%80%ae"])
async def test_a_name_that_nothing_can_have_is_no_question(up: Up, fleet: Fleet, text: str) -> None:
    (worker,) = await fleet.admit("a")
    for path in (
        f"/v1/aci/attestation?model={text}",
        f"/v1/attestation/results/{b64u(worker.bh)}?aud={text}",
        f"/v1/keys?model={text}",
    ):
        assert problem(await asked(up, path)) == (400, "bad_request"), path


async def test_a_result_token_states_the_verdict_and_verifies(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    nonce = os.urandom(32)
    path = f"/v1/attestation/results/{b64u(worker.bh)}?nonce={nonce.hex()}&aud=them"
    answer = await asked(up, path, tenant=None)
    assert answer.headers["content-type"] == "application/eat+jwt"
    keys = (await asked(up, "/v1/attestation/keys", tenant=None)).content
    examined = verify_result(answer.text, keys, now(), nonce)
    assert (examined.authentic, examined.bound) == (True, True)
    said = json.loads(unb64u(answer.text.split(".")[1]))
    appraisal = said["submods"]["worker"]
    assert appraisal["anchorhold.binding"] == f"sha256:{worker.bh.hex()}"
    assert appraisal["anchorhold.trust"] == "software"
    # Software vouches for nothing: no relying party may read it as good.
    assert appraisal["ear.status"] == "contraindicated"


async def test_no_token_speaks_of_a_worker_that_is_not_admitted(up: Up) -> None:
    answer = await asked(up, f"/v1/attestation/results/{b64u(bytes(32))}", tenant=None)
    assert problem(answer) == (404, "not_found")
