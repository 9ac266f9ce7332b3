"""What a worker still gets when its link ends: all of it within a while, or nothing at all."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx2
import pytest
from simulators.deployment import problem, read, seal

from gateway.outbound import LINGER_S, Outbound
from wire.link import JOB, MessageType, encode, raw_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from simulators.deployment import Fleet, Up
    from simulators.worker_peer import WorkerPeer

LARGE = raw_message(JOB, bytes(16), os.urandom(4 * 1024 * 1024))  # more than any socket buffers
BODY = b'{"model":"m"}' + b" " * (4 * 1024 * 1024)


async def until(holds: Callable[[], bool], within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Outbound, socket.socket]]:
    """A link's writing half, and the worker's end of it, which reads when told to."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, writer = await asyncio.open_connection(sock=ours)
    try:
        yield Outbound(writer), theirs
    finally:
        theirs.close()
        writer.close()


async def received(theirs: socket.socket) -> int:
    """Bytes that still come, up to the end of the stream."""
    loop, size = asyncio.get_running_loop(), 0
    with suppress(ConnectionError):
        while chunk := await loop.sock_recv(theirs, 1024 * 1024):
            size += len(chunk)
    return size


async def ended(outbound: Outbound) -> None:
    """Wait until the connection is gone, however it went."""
    async with asyncio.timeout(3 * LINGER_S):
        with suppress(ConnectionError):
            await outbound.writer.wait_closed()


async def test_a_worker_that_reads_gets_all_that_was_sent_before_the_end() -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close("lease_expired")
        assert await received(theirs) == len(encode(LARGE))
        await ended(outbound)
        await asyncio.sleep(LINGER_S + 0.5)  # and nothing is left to be done then
    assert failed == []


@pytest.mark.parametrize("cause", ["refused", "denied", "overflow"])
async def test_a_fenced_worker_gets_nothing_of_what_was_not_out_yet(cause: str) -> None:
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close(cause)
        await ended(outbound)
        assert await received(theirs) < len(encode(LARGE))


async def test_a_worker_that_does_not_read_is_waited_for_no_longer_than_the_linger() -> None:
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close("closed")
        assert outbound.writer.transport.get_write_buffer_size() > 0
        await ended(outbound)
        assert await received(theirs) < len(encode(LARGE))


async def test_nothing_is_sent_after_the_end() -> None:
    async with pair() as (outbound, theirs):
        outbound.close("closed")
        outbound.send(LARGE)
        assert await received(theirs) == 0
        await ended(outbound)


# ---------------------------------------------------------------- a fence, seen from a request


def reading(worker: WorkerPeer, *, on: bool) -> None:
    assert worker._writer is not None
    transport = worker._writer.transport
    assert isinstance(transport, asyncio.Transport)
    if on:
        transport.resume_reading()
    else:
        transport.pause_reading()


async def test_a_request_on_its_way_to_a_worker_that_is_fenced_is_answered_by_another(
    up: Up, fleet: Fleet
) -> None:
    (bad,) = await fleet.admit("bad", pull=1)
    (good,) = await fleet.admit("good")
    reading(bad, on=False)
    sealed = seal([bad, good], BODY)
    reply = asyncio.create_task(up.post(sealed))
    await until(lambda: len(up.gateway.dispatcher) == 1 and up.gateway.dispatcher.waiting == 0)
    session = up.gateway.registry.sessions[bad.wid]
    await until(lambda: session.credits == 0)
    (link,) = [one for one in up.gateway.workers._links if one.session is session]
    await until(lambda: link.out.writer.transport.get_write_buffer_size() > 0)
    up.gateway.roster.fence(bad.bh)
    await good.pull(1)
    await good.answer(await good.job())
    assert read(sealed, (await reply).content)[1]
    reading(bad, on=True)
    await bad.closed()
    assert bad.got(MessageType.JOB) == 0  # it never had the whole of it


@pytest.mark.parametrize(
    ("retry", "answer"), [("safe", (409, "rewrap_needed")), ("never", (503, "no_worker"))]
)
async def test_a_request_whose_only_worker_is_fenced_before_it_began_ends_as_documented(
    up: Up, fleet: Fleet, retry: str, answer: tuple[int, str]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker], retry=retry)))
    await worker.job()
    up.gateway.roster.fence(worker.bh)
    await worker.closed()
    assert problem(await reply) == answer


async def test_an_answer_that_had_begun_is_cut_when_its_worker_is_fenced(
    up: Up, fleet: Fleet
) -> None:
    """Part of it was read: another worker's would not go on where this one stopped."""
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    data = bytearray()

    async def receive() -> None:
        async with up.stream(seal([first, second])) as response:
            async for chunk in response.aiter_raw():
                data.extend(chunk)

    receiving = asyncio.create_task(receive())
    first.begin(await first.job())
    await until(lambda: bool(data))
    await second.pull(1)
    up.gateway.roster.fence(first.bh)
    with pytest.raises(httpx2.RemoteProtocolError):
        await receiving
    assert second.got(MessageType.JOB) == 0
