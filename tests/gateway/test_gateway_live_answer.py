"""A live answer has a form, read where it holds nobody up; what it says is the asker's to judge."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import problem
from simulators.held_log import HeldLog
from simulators.worker_peer import WorkerPeer

from attestation.posture import CONTAINER_MAX
from evidence.events import WORKER_SESSION
from gateway.turns import Turns
from wire.ids import b64u
from wire.limits import BINDING_MAX
from wire.link import CHALLENGE_ANSWER, MessageType, json_message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import httpx2
    from simulators.deployment import Fleet, Up

    from gateway.asker import Asker

NONCE = bytes(32)


class Counted(Turns):
    """Turns that are counted."""

    taken = 0

    async def run(self, asker: Asker, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        self.taken += 1
        return await super().run(asker, work)


def asked(up: Up, worker: WorkerPeer) -> asyncio.Task[httpx2.Response]:
    question = {"nonce": b64u(NONCE), "bh": b64u(worker.bh), "credential": None}
    return asyncio.create_task(
        up.http.post(
            f"/v1/workers/{worker.wid}/challenge",
            content=json.dumps(question),
            headers=up.headers(content_type="application/json"),
        )
    )


async def answered(worker: WorkerPeer, **changes: object) -> None:
    question = (await worker.receive(MessageType.CHALLENGE_JOB)).json()
    honest = worker.introduction()
    names = ("binding", "evidence", "posture")
    answer = {"id": question["id"], **{name: honest[name] for name in names}, **changes}
    said = {name: value for name, value in answer.items() if value != "missing"}
    worker.send(json_message(CHALLENGE_ANSWER, said))


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "attester"},
        {"binding": "missing"},
        {"binding": 7},
        {"binding": "A"},
        {"binding": "A" * (BINDING_MAX * 2)},
        {"evidence": "missing"},
        {"evidence": []},
        {"evidence": [{"kind": "any"}]},
        {"posture": {}},
        {"posture": "A" * (CONTAINER_MAX * 2)},
    ],
    ids=lambda changes: ",".join(f"{name}={str(value)[:9]}" for name, value in changes.items()),
)
async def test_a_live_answer_of_another_form_is_no_answer(
    up: Up, fleet: Fleet, changes: dict[str, Any]
) -> None:
    (worker,) = await fleet.admit("a")
    waiting = asked(up, worker)
    await answered(worker, **changes)
    assert problem(await waiting) == (503, "no_worker")
    waiting = asked(up, worker)  # nobody else's affair: the link goes on
    await answered(worker)
    assert (await waiting).status_code == 200


async def test_what_is_in_a_live_answer_reaches_the_asker_as_it_came(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    waiting = asked(up, worker)
    evidence = [{"kind": "of-no-kind", "body": b64u(b"anything")}]
    await answered(worker, binding=b64u(b"{}"), evidence=evidence, posture=None, answer={"a": 1})
    assert (await waiting).json() == {
        "binding": b64u(b"{}"), "evidence": evidence, "posture": None, "answer": {"a": 1},
    }  # fmt: skip


async def test_what_is_in_a_live_answer_is_read_in_turns_as_well_as_its_json(
    up: Up, fleet: Fleet
) -> None:
    turns = up.gateway.workers._reading = Counted(2)
    (worker,) = await fleet.admit("a")
    waiting = asked(up, worker)
    await answered(worker)
    assert (await waiting).status_code == 200
    assert turns.taken == 2


async def test_a_worker_that_came_back_is_asked_while_the_end_of_its_old_link_is_written(
    up: Up, fleet: Fleet
) -> None:
    log = up.gateway.ledger.log
    for name in "abcde":  # links are looked at in no order
        (first,) = await fleet.admit(name)
        held = up.gateway.ledger.log = HeldLog(log, WORKER_SESSION)
        again = WorkerPeer(first.tee, first.path)
        fleet.workers.append(again)
        await again.connect()
        await again.hello()
        await held.reached.wait()
        held.gate.set()
        held.gate.clear()  # its beginning is written, the end of the other will not be
        await again.receive(MessageType.ADMITTED)
        await first.closed()
        reply = asked(up, again)
        await answered(again)
        assert (await reply).status_code == 200
        held.gate.set()
        up.gateway.ledger.log = log
