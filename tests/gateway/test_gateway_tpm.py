"""Admission of workers with TPM evidence: the gateway makes the TPM prove itself, on this link."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Deployment, problem, seal
from simulators.tpm import TpmTee
from simulators.worker_peer import tpm_secret

from wire.ids import b64u
from wire.link import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.deployment import Fleet, Up


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment(TpmTee)
    yield found
    found.remove()


async def test_a_tpm_that_activates_our_credential_is_admitted(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    await worker.activate()
    await worker.receive(MessageType.ADMITTED)
    (epoch,) = up.gateway.registry.sessions[worker.wid].epochs
    assert epoch.appraised.trust == "simulated"
    await worker.pull(1)
    reply = asyncio.create_task(up.post(seal([worker])))
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200


async def test_a_wrong_secret_is_refused(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    await worker.activate({"secret": b64u(bytes(32))})
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["activation_mismatch"]
    assert len(up.gateway.roster) == 0


async def test_an_answer_that_is_none_is_refused(fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    await worker.activate({})
    refused = (await worker.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["activation_missing"]


async def test_an_answer_to_another_connections_challenge_is_refused(fleet: Fleet) -> None:
    honest, thief = fleet.make("a"), fleet.make("b")
    for worker in (honest, thief):
        await worker.connect()
        await worker.hello()
    question = (await honest.receive(MessageType.ACTIVATE)).json()
    assert isinstance(honest.tee, TpmTee)
    await thief.activate({"secret": b64u(tpm_secret(honest.tee, question["credential"]))})
    refused = (await thief.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["activation_mismatch"]


async def test_every_new_key_set_is_activated_anew(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    first = await worker.activate()
    await worker.receive(MessageType.ADMITTED)
    await worker.new_keys(epoch=1)
    second = await worker.activate()
    await worker.receive(MessageType.ADMITTED)
    assert first["credential"] != second["credential"]
    assert len(up.gateway.registry.sessions[worker.wid].epochs) == 2


async def test_a_worker_that_is_never_admitted_gets_no_request(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    await worker.receive(MessageType.ACTIVATE)
    assert problem(await up.post(seal([worker]))) == (409, "kid_unknown")
