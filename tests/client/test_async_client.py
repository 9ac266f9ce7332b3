"""The asyncio client behaves as its synchronous twin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulators.answers import Answer

from client.async_api import AsyncClient
from wire.errors import WorkerNotice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def client(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(
        server.url, service.api_key, policy=service.policy(), options=options()
    ) as made:
        yield made


async def test_chat_whole_and_streamed(client: AsyncClient) -> None:
    result = await client.chat(MESSAGES, "m")
    assert (result.text, result.trust) == ("You said: hello there", "software")
    stream = await client.chat(MESSAGES, "m", stream=True)
    texts = [delta.text async for delta in stream]
    assert "".join(texts) == stream.text == "You said: hello there"
    assert stream.complete
    assert stream.receipt is client.last_receipt


async def test_verify_models_and_request(client: AsyncClient) -> None:
    assert (await client.verify()).ok
    assert [model["id"] for model in await client.models()] == ["m"]
    reply = await client.request("/v1/completions", {"model": "m", "prompt": "hi"})
    assert reply.json()["choices"][0]["text"] == "You wrote: hi"


async def test_many_at_once_share_one_verification(client: AsyncClient, service: Service) -> None:
    results = await asyncio.gather(*(client.chat(MESSAGES, "m") for _ in range(32)))
    assert {result.text for result in results} == {"You said: hello there"}
    assert len({result.receipt.index for result in results}) == 32
    assert [seen.path for seen in service.seen].count("/v1/keys") == 1


async def test_sealed_refusals_raise(client: AsyncClient, service: Service) -> None:
    service.answer = lambda body: Answer("", status=400, error={"message": "no", "code": "bad"})
    with pytest.raises(WorkerNotice) as caught:
        await client.chat(MESSAGES, "m", stream=True)
    assert caught.value.code == "bad"


async def test_a_cancelled_task_cancels_the_request(client: AsyncClient, service: Service) -> None:
    service.pause_s = 0.05
    service.answer = lambda body: Answer(" ".join(str(n) for n in range(200)))

    async def consume() -> None:
        async for _ in await client.chat(MESSAGES, "m", stream=True):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if service.cancelled:
            break
        await asyncio.sleep(0.02)
    assert service.cancelled


async def test_rotation_heals_for_concurrent_requests(
    client: AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, slept = asyncio.sleep, []

    async def noted(seconds: float, result: object = None) -> object:
        slept.append(seconds)
        return await sleep(seconds, result)

    monkeypatch.setattr(asyncio, "sleep", noted)
    await client.chat(MESSAGES, "m")
    for number, worker in enumerate(list(service.workers)):
        service.rotate(worker, f"restarted-{number}")
    results = await asyncio.gather(*(client.chat(MESSAGES, "m") for _ in range(8)))
    assert len(results) == 8
    # one refresh healed them all: nobody waited five seconds for another
    assert [seen.path for seen in service.seen].count("/v1/keys") == 2
    assert [seconds for seconds in slept if seconds >= 1] == []
