"""Re-wraps: new keys for a request whose candidates are all gone, and for no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import answered, problem, seal

from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up


async def test_all_candidates_lost_asks_for_wraps_and_a_rewrap_works(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = up.begin(sealed)
    await first.job()
    await first.drop()
    assert problem(await reply) == (409, "rewrap_needed")
    again = asyncio.create_task(up.post_wraps(sealed, sealed.rewrap([second.candidate()])))
    await answered(sealed, second, again)
    assert observed.total("anchorhold_rewraps") == 1
    await up.idle()


async def test_a_rewrap_reaches_the_worker_with_the_new_wraps_only(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first], body=b'{"model":"m"}' + b" " * 200_000)
    reply = up.begin(sealed)
    await first.job()
    await first.drop()
    await reply
    again = asyncio.create_task(up.post_wraps(sealed, sealed.rewrap([second.candidate()])))
    job = await second.job()
    assert job.kids == (second.kid,)
    assert second.open(job).body == b'{"model":"m"}' + b" " * 200_000
    await second.answer(job)
    assert (await again).status_code == 200


async def test_a_third_rewrap_is_refused(up: Up, fleet: Fleet) -> None:
    workers = await fleet.admit("a", "b", "c", "d")
    sealed = seal([workers[0]])
    reply = up.begin(sealed)
    for number, worker in enumerate(workers[:3]):
        await worker.pull(1)
        await worker.job()
        await worker.drop()
        if number < 2:
            assert problem(await reply) == (409, "rewrap_needed")
            wraps = sealed.rewrap([workers[number + 1].candidate()])
            reply = asyncio.create_task(up.post_wraps(sealed, wraps))
    assert problem(await reply) == (503, "no_worker")
    # The client's own count stops it as well; a client that ignores it is refused here.
    refused = await up.post_wraps(sealed, wraps)
    assert problem(refused) == (404, "not_found")
    assert workers[3].got(MessageType.JOB) == 0


async def test_another_tenants_rewrap_is_refused_and_learns_nothing(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = up.begin(sealed)
    await first.job()
    await first.drop()
    await reply
    wraps = sealed.rewrap([second.candidate()])
    theirs = await up.post_wraps(sealed, wraps, tenant="tenant-b")
    unknown = await up.post_wraps(seal([second]), wraps, tenant="tenant-b")
    assert problem(theirs) == (404, "not_found")
    assert theirs.content == unknown.content
    again = asyncio.create_task(up.post_wraps(sealed, wraps))
    await answered(sealed, second, again)


async def test_a_rewrap_of_a_request_that_runs_is_refused(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = up.begin(sealed)
    job = await first.job()
    refused = await up.post_wraps(sealed, sealed.rewrap([second.candidate()]))
    assert problem(refused) == (409, "bad_envelope")
    await first.answer(job)
    assert (await reply).status_code == 200


@pytest.mark.parametrize(
    ("wraps", "expected"),
    [
        (b"", (400, "bad_envelope")),
        (b"\x09", (400, "bad_envelope")),
        (b"\x01" + bytes(34), (400, "bad_envelope")),
        (b"\x01" + b"k" * 32 + (1200).to_bytes(2, "big") + bytes(1200), (409, "kid_unknown")),
    ],
    ids=["empty", "nine wraps", "no wrap", "unknown key"],
)
async def test_bad_wraps_are_refused_and_the_request_goes_on_waiting(
    up: Up, fleet: Fleet, wraps: bytes, expected: tuple[int, str]
) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = up.begin(sealed)
    await first.job()
    await first.drop()
    await reply
    assert problem(await up.post_wraps(sealed, wraps)) == expected
    again = asyncio.create_task(up.post_wraps(sealed, sealed.rewrap([second.candidate()])))
    await answered(sealed, second, again)


async def test_all_candidates_busy_asks_for_wraps(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = up.begin(seal([worker]))
    worker.notice(await worker.job(), "busy")
    assert problem(await reply) == (409, "rewrap_needed")
