"""The unmodified `openai` package over the sealed transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import openai
import pytest
from simulators.answers import Answer

from client.async_transport import AsyncSealedTransport
from client.transport import SealedTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello there"}]
ECHO = "You said: hello there"


@pytest.fixture
def transport(service: Service, options: Callable[..., Options]) -> SealedTransport:
    return SealedTransport(service.policy(), options=options())


@pytest.fixture
def sync(service: Service, server: Loopback, transport: SealedTransport) -> Iterator[openai.OpenAI]:
    with httpx2.Client(transport=transport) as http:
        yield openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=service.api_key, http_client=http, max_retries=0
        )


@pytest.fixture
async def asynchronous(
    service: Service, server: Loopback, options: Callable[..., Options]
) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = AsyncSealedTransport(service.policy(), options=options())
    async with httpx2.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key=service.api_key, http_client=http, max_retries=0
        )


def test_chat_completion(sync: openai.OpenAI) -> None:
    reply = sync.chat.completions.create(model="m", messages=MESSAGES)
    assert reply.choices[0].message.content == ECHO
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_chat_completion_stream(sync: openai.OpenAI, transport: SealedTransport) -> None:
    chunks = list(sync.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ECHO
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert transport.last_receipt is not None
    assert transport.last_receipt.trust == "software"


def test_stream_usage_is_the_signed_one(sync: openai.OpenAI) -> None:
    chunks = list(
        sync.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 7


def test_completion_whole_and_streamed(sync: openai.OpenAI) -> None:
    assert sync.completions.create(model="m", prompt="hi").choices[0].text == "You wrote: hi"
    pieces = sync.completions.create(model="m", prompt="hi", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "You wrote: hi"


def test_models_come_from_verified_bindings(sync: openai.OpenAI, service: Service) -> None:
    listed = list(sync.models.list())
    assert [model.id for model in listed] == ["m"]
    assert listed[0].model_dump()["trust"] == "software"
    assert sync.models.retrieve("m").id == "m"
    assert all(not seen.path.startswith("/v1/models") for seen in service.seen)


def test_an_unknown_model_is_not_found_here(sync: openai.OpenAI, service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sync.models.retrieve("other")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as refused:
        sync.chat.completions.create(model="other", messages=MESSAGES)
    assert refused.value.code == "model_not_accepted"
    assert all(seen.path != "/v1/sealed" for seen in service.seen)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.images.generate(prompt="secret"),
        lambda c: c.moderations.create(input="secret"),
        lambda c: c.files.list(),
        lambda c: c.chat.completions.list(),
    ],
    ids=["images", "moderations", "files", "stored chats"],
)
def test_what_has_no_sealed_form_is_refused_and_never_sent(
    sync: openai.OpenAI, service: Service, call: Callable[[openai.OpenAI], object]
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        call(sync)
    assert caught.value.code == "unknown_endpoint"
    assert service.seen == []


def test_responses_name_trust_and_receipt(
    service: Service, server: Loopback, options: Callable[..., Options], tmp_path: Path
) -> None:
    transport = SealedTransport(service.policy(), options=options(receipts_dir=tmp_path))
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=service.api_key, http_client=http
        )
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert raw.headers["x-anchorhold-trust"] == "software"
    saved = raw.headers["x-anchorhold-receipt"]
    assert saved == str(tmp_path / f"{raw.headers['x-request-id']}.json")
    assert (tmp_path / saved).is_file()


def test_a_wrong_credential_is_an_authentication_error(
    service: Service, server: Loopback, transport: SealedTransport
) -> None:
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", http_client=http)
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.type == "gateway"


def test_a_refused_deployment_is_not_asked_again(
    service: Service, server: Loopback, transport: SealedTransport
) -> None:
    service.lies.add("swapped_evidence")
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=service.api_key, http_client=http, max_retries=2
        )
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.code == "attestation_failed"
    assert [seen.path for seen in service.seen].count("/v1/keys") == 1


def test_a_sealed_refusal_keeps_its_status_and_code(sync: openai.OpenAI, service: Service) -> None:
    error = {
        "message": "no",
        "type": "invalid_request_error",
        "code": "bad_value",
        "param": "top_p",
    }
    service.answer = lambda body: Answer("", status=400, error=error)
    with pytest.raises(openai.BadRequestError) as caught:
        sync.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert (caught.value.code, caught.value.param) == ("bad_value", "top_p")


async def test_async_chat_completion_whole_and_streamed(asynchronous: openai.AsyncOpenAI) -> None:
    reply = await asynchronous.chat.completions.create(model="m", messages=MESSAGES)
    assert reply.choices[0].message.content == ECHO
    stream = await asynchronous.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == ECHO


async def test_async_completions_and_models(asynchronous: openai.AsyncOpenAI) -> None:
    reply = await asynchronous.completions.create(model="m", prompt="hi")
    assert reply.choices[0].text == "You wrote: hi"
    assert [model.id async for model in asynchronous.models.list()] == ["m"]


async def test_many_async_streams_share_one_verified_directory(
    asynchronous: openai.AsyncOpenAI, service: Service
) -> None:
    import asyncio

    async def one(number: int) -> str:
        stream = await asynchronous.chat.completions.create(
            model="m", messages=[{"role": "user", "content": str(number)}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    texts = await asyncio.gather(*(one(number) for number in range(24)))
    assert texts == [f"You said: {number}" for number in range(24)]
    assert [seen.path for seen in service.seen].count("/v1/keys") == 1
