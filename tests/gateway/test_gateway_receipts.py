"""Which receipts are logged, and what one that is not costs: its own answer, nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.deployment import read, seal

from evidence.events import infer_receipt_event
from gateway.receipts import ITEMS_MAX
from wire.canonical import encode
from wire.ids import b64u
from wire.limits import LINK_ITEMS_MAX
from wire.link import RECEIPT, MessageType, json_message

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up

OTHERS: dict[str, Any] = {
    "rid": b64u(bytes(16)),
    "th": b64u(bytes(32)),
    "kid": b64u(bytes(32)),
    "wid": "worker-b",
}


@pytest.mark.parametrize("name", OTHERS)
async def test_a_receipt_about_something_else_cuts_that_answer_alone(
    up: Up, fleet: Fleet, name: str
) -> None:
    (worker,) = await fleet.admit("a", pull=2)
    reply, other = (asyncio.create_task(up.post(seal([worker]))) for _ in range(2))
    job, untouched = await worker.job(), await worker.job()
    _, _, event = worker.receipt(job, worker.begin(job), "")
    found = await worker.log(job, event | {name: OTHERS[name]})
    assert found == {"error": "receipt_mismatch"}
    assert (await worker.receive(MessageType.CANCEL)).rid == job.rid
    await worker.answer(untouched)
    ends = await asyncio.gather(reply, other, return_exceptions=True)
    assert sorted(isinstance(end, httpx2.RemoteProtocolError) for end in ends) == [False, True]
    assert len(await up.events("infer.receipt")) == 1
    assert len(up.gateway.roster) == 1


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"event": 7},
        {"event": "e30x"},
        {"event": b64u(b"[]")},
        # Of many small items: neither is parsed, which would hold up all that is released.
        {"event": b64u(encode({"a": [0] * ITEMS_MAX}))},
        {"event": b64u(encode({"a": 0})), "more": [0] * LINK_ITEMS_MAX},
    ],
    ids=lambda document: str(document)[:24],
)
async def test_a_receipt_that_is_no_event_ends_the_link(
    up: Up, fleet: Fleet, document: dict[str, Any]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker])))
    job = await worker.job()
    worker.begin(job)
    worker.send(json_message(RECEIPT, document, rid=job.rid))
    await worker.closed()
    with pytest.raises(httpx2.RemoteProtocolError):
        await reply
    assert not await up.events("infer.receipt")


async def test_a_second_receipt_for_one_answer_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker])))
    job = await worker.job()
    _, _, event = worker.receipt(job, worker.begin(job), "")
    await worker.log(job, event)
    worker.send(json_message(RECEIPT, {"event": b64u(encode(event))}, rid=job.rid))
    await worker.closed()
    reply.cancel()
    assert len(await up.events("infer.receipt")) == 1


async def test_a_receipt_of_a_worker_that_was_lost_does_not_stand_in_for_the_next_ones(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = asyncio.create_task(up.post(sealed))
    job = await first.job()
    event = infer_receipt_event(
        rid=job.rid,
        th=sealed.th,
        kid=first.kid,
        wid=first.wid,
        wseq=1,
        model="m",
        tokens_in=1,
        tokens_out=1,
        status="stop",
        sc=bytes(32),
    )
    assert "index" in await first.log(job, event)
    await second.pull(1)
    await first.drop()
    await second.answer(await second.job())
    assert (await reply).status_code == 200
    assert [event["wid"] for event in await up.events("infer.receipt")] == [first.wid, second.wid]


async def test_a_receipt_is_logged_before_it_is_confirmed(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    logged = await worker.answer(await worker.job())
    read(sealed, (await reply).content)[0].finish()
    (event,) = await up.events("infer.receipt")
    assert event["rid"] == b64u(sealed.header.rid)
    assert event["use"] == {"in": 64, "out": 64}
    assert logged["index"] < up.gateway.ledger.log.size
