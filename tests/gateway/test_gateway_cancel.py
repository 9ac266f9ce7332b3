"""Clients that leave: their workers are told, and nothing is kept of what they asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from simulators.deployment import seal

from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up


async def test_a_leaving_client_cancels_the_worker(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])

    async def work() -> Any:
        job = await worker.job()
        worker.begin(job)
        return job

    working = asyncio.create_task(work())
    async with up.stream(sealed) as response:
        await anext(response.aiter_raw())
    job = await working
    cancel = await worker.receive(MessageType.CANCEL)
    assert cancel.rid == job.rid
    worker.done(job, "cancelled")
    await up.idle()
    assert observed.total("gen_ai.server.request.duration", error__type="cancelled") == 1


async def test_a_client_that_leaves_before_the_first_byte_cancels_too(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = up.begin(seal([worker]))
    job = await worker.job()
    reply.cancel()
    assert (await worker.receive(MessageType.CANCEL)).rid == job.rid
    worker.done(job, "cancelled")
    await up.idle()


async def test_a_client_that_leaves_the_queue_is_forgotten(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    reply = up.begin(seal([worker]))
    async with asyncio.timeout(5):
        while not up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.01)
    reply.cancel()
    await up.idle()
    await worker.pull(1)
    await asyncio.sleep(0.05)
    assert worker.got(MessageType.JOB) == 0


async def test_the_receipt_of_a_cancelled_request_is_still_logged(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    working = asyncio.create_task(worker.job())
    reply = up.begin(sealed)
    job = await working
    writer = worker.begin(job)
    await asyncio.sleep(0.05)
    reply.cancel()
    await worker.receive(MessageType.CANCEL)
    _, _, event = worker.receipt(job, writer, "")
    logged = await worker.log(job, event)
    assert logged["index"] == up.gateway.ledger.log.size - 1
    worker.done(job, "cancelled")
    await up.idle()


async def test_a_cancelled_request_is_forgotten_when_its_worker_never_confirms(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = up.begin(seal([worker]))
    job = await worker.job()
    reply.cancel()
    await worker.receive(MessageType.CANCEL)
    exchange = next(iter(up.gateway.dispatcher._exchanges.values()))
    assert exchange.rid == job.rid
    exchange.forget_at = 0.0
    await up.idle()
    worker.done(job, "cancelled")  # too late, and harmless
    await asyncio.sleep(0.02)
    assert len(up.gateway.roster) == 1
