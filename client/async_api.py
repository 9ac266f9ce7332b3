"""The asyncio client: the same surface as `api.Client`, awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from .api import CHAT
from .async_driver import AsyncDriver
from .async_stream import AsyncChatStream, AsyncSealedStream
from .calls import Call, make_call, parse_call
from .exchange import exchange
from .results import ChatResult, SealedResponse, chat_result
from .served import HTTP_OK
from .session import (
    Options,
    PolicySource,
    Session,
    in_state_dir,
    model_list,
    open_session,
    verification,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import httpx2

    from attestation.policy import Policy

    from .receipts import Receipt
    from .report import Verification


class AsyncClient:
    """Sealed inference under a tenant's policy.

    Nothing is sent before the deployment was verified; every answer is verified to its end and to
    its receipt, or an error of `wire.errors` is raised. There is no unsealed mode.

    Args:
        base_url: the gateway, with or without `/v1`.
        api_key: tenant credential for the gateway.
        policy: the tenant's policy: a file, its bytes, or a parsed `Policy`.
        state_dir: where log heads are remembered; shorthand for the option of that name.
        options: see `Options`.
        transport: httpx2 transport to the gateway, for a proxy, own certificates or a Unix socket.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        policy: PolicySource,
        state_dir: Path | str | None = None,
        options: Options | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._session: Session = open_session(
            base_url, api_key, policy, in_state_dir(options or Options(), state_dir)
        )
        self._driver = AsyncDriver(self._session.where, self._session.state, transport)
        self.last_receipt: Receipt | None = None

    @property
    def policy(self) -> Policy:
        """The policy every worker and receipt is judged by."""
        return self._session.verifier.policy

    async def report(self, model: str | None = None) -> Verification:
        """Verify the deployment afresh: every check, and the error if there is one."""
        return await self._driver.exclusive(verification(self._session, model))

    async def verify(self, model: str | None = None) -> Verification:
        """Verify the deployment afresh.

        Raises:
            AnchorholdError: it does not pass; `report` would have listed every check.
        """
        return (await self.report(model)).require()

    async def models(self) -> list[dict[str, Any]]:
        """OpenAI model objects from verified bindings, with `trust` and `digest`."""
        workers = await self._driver.exclusive(self._session.verifier.models())
        return model_list(workers)

    @overload
    async def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: Literal[False] = False,
        **parameters: Any,
    ) -> ChatResult: ...
    @overload
    async def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: Literal[True],
        **parameters: Any,
    ) -> AsyncChatStream: ...
    async def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: bool = False,
        **parameters: Any,
    ) -> ChatResult | AsyncChatStream:
        """One chat answer.

        Args:
            messages: OpenAI messages.
            model: a model the policy accepts.
            stream: return a `AsyncChatStream` of deltas instead of the whole answer.
            parameters: further members of the OpenAI request, such as `max_tokens`.
        """
        members = {"model": model, "messages": list(messages), "stream": stream, **parameters}
        opened = await self.open(make_call(CHAT, members))
        if not stream:
            return chat_result(await opened.read())
        if opened.answered.status != HTTP_OK:
            (await opened.read()).require()
        return AsyncChatStream(opened)

    async def request(self, path: str, body: Mapping[str, Any] | bytes) -> SealedResponse:
        """One request to a sealed endpoint, not streamed; a sealed refusal is returned, not raised.

        Args:
            path: of an endpoint in `client.calls.ENDPOINTS`, such as `/v1/embeddings`.
            body: members of that API's request, or its JSON bytes.
        """
        call = parse_call(path, body) if isinstance(body, bytes) else make_call(path, body)
        if call.stream:
            raise ValueError("request: stream is for chat(stream=True) or open()")
        return await (await self.open(call)).read()

    async def open(self, call: Call) -> AsyncSealedStream:
        """Begin one exchange: returns once the worker's authenticated head was read."""
        events = self._driver.run(exchange(self._session.terms, call))
        return await AsyncSealedStream.begin(events, self._keep)

    def receipt_path(self, rid: str) -> str | None:
        """Where the receipt of a request is saved, or None when none are."""
        path = self._session.receipt_path(rid)
        return None if path is None else str(path)

    async def close(self) -> None:
        """Remember the newest log head and close the connections."""
        try:
            await self._driver.exclusive(self._session.verifier.directory.persist())
        finally:
            await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _keep(self, receipt: Receipt) -> None:
        self.last_receipt = receipt
        path = self._session.receipt_path(receipt.rid)
        if path is not None:
            await asyncio.to_thread(receipt.save, path)
