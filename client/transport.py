"""An httpx2 transport that seals: the unmodified `openai` package works through it.

    OpenAI(base_url="https://gateway.example/v1", api_key=key,
           http_client=httpx2.Client(transport=SealedTransport("policy.json")))

Chat completions, completions, responses, embeddings, Anthropic's messages and the model list have a
sealed form. Any other request is answered with a 404 made here and never sent: a pass-through would
be a plaintext fallback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2

from wire.errors import AnchorholdError, MalformedError

from .api import Client
from .calls import Call, parse_call
from .events import Body
from .openai_shape import (
    MODELS,
    answer_headers,
    base_of,
    error_response,
    json_response,
    sealed_path,
    unknown_endpoint,
)
from .rendering import Renderer, renderer
from .served import HTTP_OK
from .session import Options, PolicySource, load_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .receipts import Receipt
    from .stream import SealedStream


class SealedTransport(httpx2.BaseTransport):
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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._policy = load_policy(policy)
        self._base_url, self._api_key = base_url, api_key
        self._options = options or Options()
        self._transport = transport
        self._clients: dict[tuple[str, str | None], Client] = {}
        self.last_receipt: Receipt | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:  # type: ignore[explicit-override]  # typing.override needs 3.12
        """Answer one request; refusals are error responses of the API used, never exceptions."""
        path = sealed_path(request.url.path)
        try:
            client = self._client(request)
            if path == MODELS or path.startswith(MODELS + "/"):
                return self._models(client, request, path)
            if request.method != "POST":
                raise unknown_endpoint(request.method, path)
            return self._answer(client, parse_call(path, request.read()))
        except AnchorholdError as error:
            return response(*error_response(error, path))

    def close(self) -> None:  # type: ignore[explicit-override]  # typing.override needs 3.12
        """Close every client."""
        for client in self._clients.values():
            client.close()

    def _client(self, request: httpx2.Request) -> Client:
        where = target(request, self._base_url, self._api_key)
        client = self._clients.get(where)
        if client is None:
            client = Client(
                *where, policy=self._policy, options=self._options, transport=self._transport
            )
            # Two threads may get here at once: the first one's client is everybody's.
            client = self._clients.setdefault(where, client)
        return client

    def _models(self, client: Client, request: httpx2.Request, path: str) -> httpx2.Response:
        if request.method != "GET":
            raise unknown_endpoint(request.method, path)
        return response(*json_response(models_document(client.models(), path)))

    def _answer(self, client: Client, call: Call) -> httpx2.Response:
        stream = client.open(call)
        saved = client.receipt_path(stream.answered.rid)
        if call.stream and stream.answered.status == HTTP_OK:
            headers = answer_headers(stream.answered, saved, "text/event-stream; charset=utf-8")
            body = _SseBody(renderer(call, stream.answered), stream, self)
            return httpx2.Response(HTTP_OK, headers=headers, stream=body)
        content = b"".join(item.data for item in stream if isinstance(item, Body))
        self.last_receipt = stream.receipt or self.last_receipt
        headers = answer_headers(stream.answered, saved, "application/json")
        return response(stream.answered.status, headers, content)


class _SseBody(httpx2.SyncByteStream):
    """The rebuilt event stream of one answer."""

    def __init__(
        self, renderer: Renderer, stream: SealedStream, transport: SealedTransport
    ) -> None:
        self._renderer, self._stream, self._transport = renderer, stream, transport

    def __iter__(self) -> Iterator[bytes]:  # type: ignore[explicit-override]  # typing.override needs 3.12
        yield self._renderer.begin()
        try:
            for item in self._stream:
                yield self._renderer.delta(item)
        except AnchorholdError as error:
            yield self._renderer.failure(error)
            return
        self._transport.last_receipt = self._stream.receipt
        yield self._renderer.end(self._stream.receipt)

    def close(self) -> None:  # type: ignore[explicit-override]  # typing.override needs 3.12
        self._stream.close()


def target(
    request: httpx2.Request, base_url: str | None, api_key: str | None
) -> tuple[str, str | None]:
    """Gateway and credential of one request."""
    url = request.url
    if base_url is None:
        base_url = str(url.copy_with(path=base_of(url.path) or "/", query=None, fragment=None))
    if api_key is None:
        api_key = bearer(request.headers) or None
    return base_url, api_key


def bearer(headers: Mapping[str, str]) -> str:
    """The credential of a request, as OpenAI's clients show it or as Anthropic's; else empty."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else headers.get("x-api-key", "")


def models_document(cards: list[dict[str, Any]], path: str) -> dict[str, Any]:
    """The model list, or the one model a path names."""
    if path == MODELS:
        return {"object": "list", "data": cards}
    name = path.removeprefix(MODELS + "/")
    for card in cards:
        if card["id"] == name:
            return card
    known = ", ".join(card["id"] for card in cards)
    raise MalformedError(
        f"model: found {name[:64]!r}, expected one of {known}", code="model_not_found"
    )


def response(status: int, headers: dict[str, str], content: bytes) -> httpx2.Response:
    """A response whose whole body is known."""
    return httpx2.Response(status, headers=headers, content=content)
