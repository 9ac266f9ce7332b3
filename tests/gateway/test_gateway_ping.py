"""A ping passes the gateway like any request, is named as what it is, and asks one worker only."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from simulators.deployment import problem, read, seal

from wire.records import HEAD, json_record
from wire.response import ResponseWriter

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up
    from simulators.worker_peer import Job, WorkerPeer

PING = {"op": "ping", "stream": False, "retry": "never", "out": 64}


def pong(worker: WorkerPeer, job: Job) -> None:
    opened = worker.open(job)
    assert opened.body == b""
    writer = ResponseWriter(
        opened.th, opened.kid, job.rid, opened.keys.rs, opened.r_kid, os.urandom
    )
    head = writer.frame([json_record(HEAD, {"s": 200, "h": {}})], 1024)
    worker.bytes(job, writer.prelude() + head + writer.frame([], 8192, final=True))
    worker.done(job)


async def test_a_ping_is_relayed_and_counted_under_its_own_name(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker], b"", **PING)
    reply = asyncio.create_task(up.post(sealed))
    pong(worker, await worker.job())
    response = await reply
    assert response.status_code == 200
    reader, records = read(sealed, response.content)
    reader.finish()
    assert [record.type for record in records] == [HEAD]
    async with asyncio.timeout(5):
        while not any(s.name == "ping m" for s in observed.spans.get_finished_spans()):
            await asyncio.sleep(0.01)
    (root,) = [s for s in observed.spans.get_finished_spans() if s.name == "ping m"]
    attributes = dict(root.attributes or {})
    assert attributes["gen_ai.operation.name"] == "ping"
    assert attributes["anchorhold.outcome"] == "completed"
    ping = {"gen_ai__operation__name": "ping"}
    assert observed.total("gen_ai.server.request.duration", **ping) == 1
    assert observed.total("gen_ai.server.time_to_first_token") == 0


async def test_a_ping_no_worker_can_answer_is_refused_and_never_waits_for_other_keys(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker], b"", **PING)))
    worker.notice(await worker.job(), "busy")
    assert problem(await reply) == (503, "no_worker")
    assert len(up.gateway.dispatcher) == 0
