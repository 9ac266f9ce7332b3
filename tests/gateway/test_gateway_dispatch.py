"""Release and retry: what a request may live through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.deployment import answered, now, problem, read, seal, until

from gateway.clock import Clock
from wire.errors import StreamTruncated
from wire.ids import b64u
from wire.link import MessageType
from wire.notice import verify_notice
from wire.records import HEAD, RECEIPT, TOKENS, TokenDelta

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up
    from simulators.worker_peer import WorkerPeer


async def test_a_sealed_answer_comes_back_byte_for_byte(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = up.begin(sealed)
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
    await up.idle()


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
    reply = up.begin(sealed)
    await answered(sealed, chosen, reply)
    assert other.got(MessageType.JOB) == 0


async def test_nothing_is_released_before_a_worker_pulls(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    sealed = seal([worker])
    reply = up.begin(sealed)
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting == 0:
            await asyncio.sleep(0.01)
    assert worker.got(MessageType.JOB) == 0
    await worker.pull(1)
    await answered(sealed, worker, reply)


async def test_a_worker_gets_no_more_than_it_asked_for(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    first, second = seal([worker]), seal([worker])
    replies = [up.begin(first), up.begin(second)]
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
    reply = up.begin(sealed)
    first.notice(await first.job(), "busy")
    await second.pull(1)
    await answered(sealed, second, reply)
    assert observed.total("anchorhold_retries", anchorhold__cause="busy") == 1


async def test_a_notice_in_another_workers_name_ends_the_link(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = up.begin(sealed)
    first.notice(await first.job(), "busy", kid=b64u(second.kid))
    await first.closed()
    await second.pull(1)
    await answered(sealed, second, reply)


async def test_a_worker_lost_before_the_first_byte_is_replaced(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = up.begin(sealed)
    await first.job()
    await second.pull(1)
    await first.drop()
    await answered(sealed, second, reply)


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
    await up.idle()


async def test_a_request_not_to_be_retried_is_refused_when_its_worker_is_lost(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    reply = up.begin(seal([first, second], retry="never"))
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
    reply = up.begin(sealed)
    first.notice(await first.job(), "busy")
    await second.pull(1)
    await answered(sealed, second, reply)


async def test_a_lease_is_renewed_by_heartbeats(up: Up, fleet: Fleet) -> None:
    roster, at = up.gateway.roster, [1000.0]
    roster.clock = Clock(monotonic=lambda: at[0])
    (worker,) = await fleet.admit("a")
    lease = (await worker.receive(MessageType.LEASE)).json()
    assert set(lease) == {"lease_s", "beacon"}
    assert lease["lease_s"] == 60
    session = up.gateway.registry.sessions[worker.wid]
    at[0] += 40
    await until(lambda: session.lease_until == at[0] + 60)
    at[0] += 40
    roster.end_expired()
    assert not session.ended


async def test_an_expired_lease_moves_the_request_on(up: Up, fleet: Fleet) -> None:
    silent = fleet.make("a", beat_s=None)
    await silent.admitted()
    await silent.pull(1)
    (second,) = await fleet.admit("b")
    sealed = seal([silent, second])
    reply = up.begin(sealed)
    await silent.job()
    await second.pull(1)
    up.gateway.registry.sessions[silent.wid].lease_until = 0.0  # it is over, and not renewed
    await silent.closed()
    await answered(sealed, second, reply)


async def test_a_request_that_waited_too_long_is_refused_as_expired(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    # Clocks may differ by 120 s: this one ends within the next two seconds.
    reply = await up.post(seal([worker], iat=now() - 300, exp=now() - 119))
    assert problem(reply) == (408, "expired")
    await up.idle()


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
    reply = up.begin(sealed)
    first.notice(await first.job(), code)
    response = await reply
    assert problem(response) == expected
    pk = first.tee.sig.public_key().public_bytes_raw()
    notice = response.json()["notice"]
    assert verify_notice(notice, pk, sealed.header.rid, sealed.th, sealed.kids) == code
    assert second.got(MessageType.JOB) == 0


async def test_done_without_a_response_is_retried_elsewhere(up: Up, fleet: Fleet) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    sealed = seal([first, second])
    reply = up.begin(sealed)
    first.done(await first.job(), "error")
    await second.pull(1)
    await answered(sealed, second, reply)


async def test_usage_signed_by_another_key_ends_the_link(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = up.begin(sealed)
    worker.done(await worker.job(), key=Ed25519PrivateKey.generate())
    await worker.closed()
    assert (await reply).status_code == 409


async def test_a_worker_that_says_goodbye_finishes_and_gets_nothing_new(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b", pull=2)
    running = seal([first])
    reply = up.begin(running)
    job = await first.job()
    first.goodbye()
    await asyncio.sleep(0.05)
    sealed = seal([first, second])
    other = up.begin(sealed)
    await answered(sealed, second, other)
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
