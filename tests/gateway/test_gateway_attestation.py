"""The routes that speak others' words: `aci/1` reports and EAR result tokens."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Fleet, Up, now, problem

from attestation.aci import keyset_digest, keyset_of, report_data_of
from attestation.binding import parse_binding
from attestation.ear_token import verify_result
from wire.ids import b64u, unb64u
from wire.link import CHALLENGE_ANSWER, MessageType, json_message

if TYPE_CHECKING:
    import httpx2


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
