"""Release, retry, re-wrap and cancel: what a request may live through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.deployment import now, problem, read, seal

from wire.errors import StreamTruncated
from wire.ids import b64u
from wire.link import MessageType
from wire.notice import verify_notice
from wire.records import HEAD, RECEIPT, TOKENS, TokenDelta

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up
    from simulators.worker_peer import WorkerPeer

    from wire.envelope import SealedRequest


async def answered(
    up: Up, sealed: SealedRequest, worker: WorkerPeer, reply: asyncio.Task[httpx2.Response]
) -> None:
    """The worker answers and the client can read it to its end."""
    await worker.answer(await worker.job())
    response = await reply
    assert response.status_code == 200
    reader, _ = read(sealed, response.content)
    reader.finish()
    assert reader.kid == worker.kid
    del up


def post(up: Up, sealed: SealedRequest, tenant: str = "tenant-a") -> asyncio.Task[httpx2.Response]:
    return asyncio.create_task(up.post(sealed, tenant))


async def idle(up: Up) -> None:
    """Wait until nothing is in flight and nothing is spooled."""
    async with asyncio.timeout(5):
        while len(up.gateway.dispatcher) or up.gateway.spool.held:
            await asyncio.sleep(0.01)


async def test_a_sealed_answer_comes_back_byte_for_byte(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = post(up, sealed)
    job = await worker.job()
    assert job.envelope == sealed.envelope
    await worker.answer(job, "An anchor holds.")
    response = await reply
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.anchorhold.response"
    assert response.headers["cache-control"] == "no-store, no-transform"
    assert "content-encoding" not in response.headers
    reader, records = read(sealed, response.content)
    reader.finish()
    assert reader.kid == worker.kid
    assert [record.type for record in records] == [HEAD, TOKENS, RECEIPT]
    assert TokenDelta.decode(records[1].data).text == "An anchor holds."
    await idle(up)


async def test_first_bytes_reach_the_client_before_the_answer_is_complete(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])

    async def work() -> Any:
        job = await worker.job()
        return job, worker.begin(job)

    working = asyncio.create_task(work())
    async with up.stream(sealed) as response:
        stream = response.aiter_raw()
        data = await anext(stream)
        _, records = read(sealed, data)
        assert records[0].type == HEAD
        job, writer = await working
        await worker.finish(job, writer, "")
        async for chunk in stream:
            data += chunk
    read(sealed, data)[0].finish()


async def test_a_request_is_released_only_to_one_of_its_candidates(up: Up, fleet: Fleet) -> None:
    chosen, other = await fleet.admit("a", "b", pull=4)
    sealed = seal([chosen])
    reply = post(up, sealed)
    await answered(up, sealed, chosen, reply)
    assert other.got(MessageType.JOB) == 0


async def test_nothing_is_released_before_a_worker_pulls(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    sealed = seal([worker])
    reply = post(up, sealed)
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting == 0:
            await asyncio.sleep(0.01)
    assert worker.got(MessageType.JOB) == 0
    await worker.pull(1)
    await answered(up, sealed, worker, reply)


async def test_a_worker_gets_no_more_than_it_asked_for(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    first, second = seal([worker]), seal([worker])
    replies = [post(up, first), post(up, second)]
    job = await worker.job()
    await asyncio.sleep(0.05)
    assert worker.got(MessageType.JOB) == 0
    await worker.pull(1)
    await worker.answer(await worker.job())
    await worker.answer(job)
    assert [reply.status_code for reply in await asyncio.gather(*replies)] == [200, 200]


async def test_a_busy_worker_hands_the_request_to_the_next_candidate(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = post(up, sealed)
    first.notice(await first.job(), "busy")
    await second.pull(1)
    await answered(up, sealed, second, reply)
    assert observed.total("anchorhold_retries", anchorhold__cause="busy") == 1


async def test_a_notice_in_another_workers_name_ends_the_link(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = post(up, sealed)
    first.notice(await first.job(), "busy", kid=b64u(second.kid))
    await first.closed()
    await second.pull(1)
    await answered(up, sealed, second, reply)


async def test_a_worker_lost_before_the_first_byte_is_replaced(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = post(up, sealed)
    await first.job()
    await second.pull(1)
    await first.drop()
    await answered(up, sealed, second, reply)


async def test_a_worker_lost_after_the_first_byte_cuts_the_stream(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    second_jobs = second.got(MessageType.JOB)
    sealed = seal([first])
    data = b""

    async def work() -> None:
        first.begin(await first.job())
        await asyncio.sleep(0.05)
        await first.drop()

    async def receive() -> None:
        nonlocal data
        async with up.stream(sealed) as response:
            async for chunk in response.aiter_raw():
                data += chunk

    working = asyncio.create_task(work())
    with pytest.raises(httpx2.RemoteProtocolError):
        await receive()
    await working
    reader, _ = read(sealed, data)
    with pytest.raises(StreamTruncated):
        reader.finish()
    assert second.got(MessageType.JOB) == second_jobs
    assert observed.total("gen_ai.server.request.duration", error__type="truncated") == 1
    await idle(up)


async def test_a_request_not_to_be_retried_is_refused_when_its_worker_is_lost(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    reply = post(up, seal([first, second], retry="never"))
    await first.job()
    await second.pull(1)
    await first.drop()
    assert problem(await reply) == (503, "no_worker")
    assert second.got(MessageType.JOB) == 0


async def test_a_busy_notice_moves_on_even_a_request_not_to_be_retried(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second], retry="never")
    reply = post(up, sealed)
    first.notice(await first.job(), "busy")
    await second.pull(1)
    await answered(up, sealed, second, reply)


@pytest.mark.parametrize("settings", [{"lease_s": 1}])
async def test_an_expired_lease_moves_the_request_on(up: Up, fleet: Fleet) -> None:
    silent = fleet.make("a", beat_s=None)
    await silent.admitted()
    await silent.pull(1)
    (second,) = await fleet.admit("b")
    sealed = seal([silent, second])
    reply = post(up, sealed)
    await silent.job()
    await second.pull(1)
    await silent.closed()
    await answered(up, sealed, second, reply)


async def test_all_candidates_lost_asks_for_wraps_and_a_rewrap_works(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = post(up, sealed)
    await first.job()
    await first.drop()
    assert problem(await reply) == (409, "rewrap_needed")
    again = asyncio.create_task(up.post_wraps(sealed, sealed.rewrap([second.candidate()])))
    await answered(up, sealed, second, again)
    assert observed.total("anchorhold_rewraps") == 1
    await idle(up)


async def test_a_rewrap_reaches_the_worker_with_the_new_wraps_only(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first], body=b'{"model":"m"}' + b" " * 200_000)
    reply = post(up, sealed)
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
    reply = post(up, sealed)
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
    reply = post(up, sealed)
    await first.job()
    await first.drop()
    await reply
    wraps = sealed.rewrap([second.candidate()])
    theirs = await up.post_wraps(sealed, wraps, tenant="tenant-b")
    unknown = await up.post_wraps(seal([second]), wraps, tenant="tenant-b")
    assert problem(theirs) == (404, "not_found")
    assert theirs.content == unknown.content
    again = asyncio.create_task(up.post_wraps(sealed, wraps))
    await answered(up, sealed, second, again)


async def test_a_rewrap_of_a_request_that_runs_is_refused(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = post(up, sealed)
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
    reply = post(up, sealed)
    await first.job()
    await first.drop()
    await reply
    assert problem(await up.post_wraps(sealed, wraps)) == expected
    again = asyncio.create_task(up.post_wraps(sealed, sealed.rewrap([second.candidate()])))
    await answered(up, sealed, second, again)


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
    await idle(up)
    assert observed.total("gen_ai.server.request.duration", error__type="cancelled") == 1


async def test_a_client_that_leaves_before_the_first_byte_cancels_too(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = post(up, seal([worker]))
    job = await worker.job()
    reply.cancel()
    assert (await worker.receive(MessageType.CANCEL)).rid == job.rid
    worker.done(job, "cancelled")
    await idle(up)


async def test_a_client_that_leaves_the_queue_is_forgotten(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    reply = post(up, seal([worker]))
    async with asyncio.timeout(5):
        while not up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.01)
    reply.cancel()
    await idle(up)
    await worker.pull(1)
    await asyncio.sleep(0.05)
    assert worker.got(MessageType.JOB) == 0


async def test_the_receipt_of_a_cancelled_request_is_still_logged(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    working = asyncio.create_task(worker.job())
    reply = post(up, sealed)
    job = await working
    writer = worker.begin(job)
    await asyncio.sleep(0.05)
    reply.cancel()
    await worker.receive(MessageType.CANCEL)
    _, _, event = worker.receipt(job, writer, "")
    logged = await worker.log(job, event)
    assert logged["index"] == up.gateway.ledger.log.size - 1
    worker.done(job, "cancelled")
    await idle(up)


async def test_a_request_that_waited_too_long_is_refused_as_expired(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    # Clocks may differ by 120 s: this one ends within the next two seconds.
    reply = await up.post(seal([worker], iat=now() - 300, exp=now() - 119))
    assert problem(reply) == (408, "expired")
    await idle(up)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open_failed", (400, "bad_envelope")),
        ("replay", (409, "bad_envelope")),
        ("expired", (408, "expired")),
        ("class_exceeded", (413, "too_large")),
    ],
)
async def test_a_signed_notice_is_relayed_with_its_signature(
    up: Up, fleet: Fleet, code: str, expected: tuple[int, str]
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = post(up, sealed)
    first.notice(await first.job(), code)
    response = await reply
    assert problem(response) == expected
    pk = first.tee.sig.public_key().public_bytes_raw()
    notice = response.json()["notice"]
    assert verify_notice(notice, pk, sealed.header.rid, sealed.th, sealed.kids) == code
    assert second.got(MessageType.JOB) == 0


async def test_all_candidates_busy_asks_for_wraps(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = post(up, seal([worker]))
    worker.notice(await worker.job(), "busy")
    assert problem(await reply) == (409, "rewrap_needed")


async def test_done_without_a_response_is_retried_elsewhere(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = post(up, sealed)
    first.done(await first.job(), "error")
    await second.pull(1)
    await answered(up, sealed, second, reply)


async def test_usage_signed_by_another_key_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = post(up, sealed)
    worker.done(await worker.job(), key=Ed25519PrivateKey.generate())
    await worker.closed()
    assert (await reply).status_code == 409


async def test_a_worker_that_says_goodbye_finishes_and_gets_nothing_new(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b", pull=2)
    running = seal([first])
    reply = post(up, running)
    job = await first.job()
    first.goodbye()
    await asyncio.sleep(0.05)
    sealed = seal([first, second])
    other = post(up, sealed)
    await answered(up, sealed, second, other)
    await first.answer(job)
    assert (await reply).status_code == 200


@pytest.mark.parametrize("settings", [{"response_buffer_bytes": 65_536}])
async def test_a_reader_that_does_not_read_is_cut_and_its_worker_told(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(worker.job())
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(up.running.url).port)
    headers = up.headers(idempotency_key=b64u(sealed.header.rid))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/sealed HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(sealed.envelope)}"
    writer.write(head.encode() + b"\r\n\r\n" + sealed.envelope)
    job = await reply
    worker.begin(job)
    for _ in range(400):
        worker.bytes(job, bytes(60_000))
    cancel = await worker.receive(MessageType.CANCEL)
    assert cancel.rid == job.rid
    writer.close()
    del reader


async def test_sixty_four_requests_at_once_all_complete(up: Up, fleet: Fleet) -> None:
    workers = await fleet.admit("a", "b", pull=40)

    async def serve(worker: WorkerPeer) -> None:
        while True:
            await worker.answer(await worker.job(within_s=30))

    serving = [asyncio.create_task(serve(worker)) for worker in workers]
    requests = [seal(workers) for _ in range(64)]
    replies = await asyncio.gather(*(up.post(sealed) for sealed in requests))
    for sealed, response in zip(requests, replies, strict=True):
        assert response.status_code == 200
        read(sealed, response.content)[0].finish()
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


async def test_a_cancelled_request_is_forgotten_when_its_worker_never_confirms(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = post(up, seal([worker]))
    job = await worker.job()
    reply.cancel()
    await worker.receive(MessageType.CANCEL)
    exchange = next(iter(up.gateway.dispatcher._exchanges.values()))
    assert exchange.rid == job.rid
    exchange.forget_at = 0.0
    await idle(up)
    worker.done(job, "cancelled")  # too late, and harmless
    await asyncio.sleep(0.02)
    assert len(up.gateway.roster) == 1
