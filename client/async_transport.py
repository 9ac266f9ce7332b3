"""The asyncio twin of `transport`, for `openai.AsyncOpenAI`.

AsyncOpenAI(base_url="https://gateway.example/v1", api_key=key,
            http_client=httpx2.AsyncClient(transport=AsyncSealedTransport("policy.json")))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from wire.errors import AnchorholdError

from .async_api import AsyncClient
from .calls import Call, parse_call
from .events import Body
from .openai_shape import (
    MODELS,
    answer_headers,
    error_response,
    json_response,
    sealed_path,
    unknown_endpoint,
)
from .rendering import Renderer, renderer
from .served import HTTP_OK
from .session import Options, PolicySource, load_policy
from .transport import models_document, response, target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .async_stream import AsyncSealedStream
    from .receipts import Receipt


class AsyncSealedTransport(httpx2.AsyncBaseTransport):
    """Sends OpenAI requests sealed.

    Args:
        policy: the tenant's policy: a file, its bytes, or a parsed `Policy`.
        base_url: the gateway; None takes it from each request's URL.
        api_key: tenant credential; None takes it from each request's Authorization header.
        options: see `Options`.
        transport: httpx2 transport to the gateway.
    """

    def __init__(
        self,
        policy: PolicySource,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        options: Options | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._policy = load_policy(policy)
        self._base_url, self._api_key = base_url, api_key
        self._options = options or Options()
        self._transport = transport
        self._clients: dict[tuple[str, str | None], AsyncClient] = {}
        self.last_receipt: Receipt | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # type: ignore[explicit-override]  # typing.override needs 3.12
        """Answer one request; refusals are error responses of the API used, never exceptions."""
        path = sealed_path(request.url.path)
        try:
            client = self._client(request)
            if path == MODELS or path.startswith(MODELS + "/"):
                return await self._models(client, request, path)
            if request.method != "POST":
                raise unknown_endpoint(request.method, path)
            return await self._answer(client, parse_call(path, await request.aread()))
        except AnchorholdError as error:
            return response(*error_response(error, path))

    async def aclose(self) -> None:  # type: ignore[explicit-override]  # typing.override needs 3.12
        """Close every client."""
        for client in self._clients.values():
            await client.close()

    def _client(self, request: httpx2.Request) -> AsyncClient:
        where = target(request, self._base_url, self._api_key)
        client = self._clients.get(where)
        if client is None:
            client = AsyncClient(
                *where, policy=self._policy, options=self._options, transport=self._transport
            )
            self._clients[where] = client
        return client

    async def _models(
        self, client: AsyncClient, request: httpx2.Request, path: str
    ) -> httpx2.Response:
        if request.method != "GET":
            raise unknown_endpoint(request.method, path)
        return response(*json_response(models_document(await client.models(), path)))

    async def _answer(self, client: AsyncClient, call: Call) -> httpx2.Response:
        stream = await client.open(call)
        saved = client.receipt_path(stream.answered.rid)
        if call.stream and stream.answered.status == HTTP_OK:
            headers = answer_headers(stream.answered, saved, "text/event-stream; charset=utf-8")
            body = _SseBody(renderer(call, stream.answered), stream, self)
            return httpx2.Response(HTTP_OK, headers=headers, stream=body)
        content = b"".join([item.data async for item in stream if isinstance(item, Body)])
        self.last_receipt = stream.receipt or self.last_receipt
        headers = answer_headers(stream.answered, saved, "application/json")
        return response(stream.answered.status, headers, content)


class _SseBody(httpx2.AsyncByteStream):
    """The rebuilt event stream of one answer."""

    def __init__(
        self, renderer: Renderer, stream: AsyncSealedStream, transport: AsyncSealedTransport
    ) -> None:
        self._renderer, self._stream, self._transport = renderer, stream, transport

    async def __aiter__(self) -> AsyncIterator[bytes]:  # type: ignore[explicit-override]  # typing.override needs 3.12
        yield self._renderer.begin()
        try:
            async for item in self._stream:
                yield self._renderer.delta(item)
        except AnchorholdError as error:
            yield self._renderer.failure(error)
            return
        self._transport.last_receipt = self._stream.receipt
        yield self._renderer.end(self._stream.receipt)

    async def aclose(self) -> None:  # type: ignore[explicit-override]  # typing.override needs 3.12
        await self._stream.close()
