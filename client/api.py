"""The synchronous client. Threads may share one; each call is its own sealed exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, overload

from .calls import Call, make_call, parse_call
from .driver import Driver
from .exchange import exchange
from .results import ChatResult, SealedResponse, chat_result
from .session import (
    Options,
    PolicySource,
    Session,
    in_state_dir,
    model_list,
    open_session,
    verification,
)
from .stream import ChatStream, SealedStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import httpx2

    from attestation.policy import Policy

    from .receipts import Receipt
    from .report import Verification

CHAT: str = "/v1/chat/completions"


class Client:
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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._session: Session = open_session(
            base_url, api_key, policy, in_state_dir(options or Options(), state_dir)
        )
        self._driver = Driver(self._session.where, self._session.state, transport)
        self.last_receipt: Receipt | None = None

    @property
    def policy(self) -> Policy:
        """The policy every worker and receipt is judged by."""
        return self._session.verifier.policy

    def report(self, model: str | None = None) -> Verification:
        """Verify the deployment afresh: every check, and the error if there is one."""
        return self._driver.exclusive(verification(self._session, model))

    def verify(self, model: str | None = None) -> Verification:
        """Verify the deployment afresh.

        Raises:
            AnchorholdError: it does not pass; `report` would have listed every check.
        """
        return self.report(model).require()

    def models(self) -> list[dict[str, Any]]:
        """OpenAI model objects from verified bindings, with `trust` and `digest`."""
        workers = self._driver.exclusive(self._session.verifier.models())
        return model_list(workers)

    @overload
    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: Literal[False] = False,
        **parameters: Any,
    ) -> ChatResult: ...
    @overload
    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: Literal[True],
        **parameters: Any,
    ) -> ChatStream: ...
    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        stream: bool = False,
        **parameters: Any,
    ) -> ChatResult | ChatStream:
        """One chat answer.

        Args:
            messages: OpenAI messages.
            model: a model the policy accepts.
            stream: return a `ChatStream` of deltas instead of the whole answer.
            parameters: further members of the OpenAI request, such as `max_tokens`.
        """
        members = {"model": model, "messages": list(messages), "stream": stream, **parameters}
        opened = self.open(make_call(CHAT, members))
        return ChatStream(opened) if stream else chat_result(opened.read())

    def request(self, path: str, body: Mapping[str, Any] | bytes) -> SealedResponse:
        """One request to a sealed endpoint, not streamed; a sealed refusal is returned, not raised.

        Args:
            path: of an endpoint in `client.calls.ENDPOINTS`, such as `/v1/embeddings`.
            body: members of that API's request, or its JSON bytes.
        """
        call = parse_call(path, body) if isinstance(body, bytes) else make_call(path, body)
        if call.stream:
            raise ValueError("request: stream is for chat(stream=True) or open()")
        return self.open(call).read()

    def open(self, call: Call) -> SealedStream:
        """Begin one exchange: returns once the worker's authenticated head was read."""
        return SealedStream(self._driver.run(exchange(self._session.terms, call)), self._keep)

    def receipt_path(self, rid: str) -> str | None:
        """Where the receipt of a request is saved, or None when none are."""
        path = self._session.receipt_path(rid)
        return None if path is None else str(path)

    def close(self) -> None:
        """Remember the newest log head and close the connections."""
        try:
            self._driver.exclusive(self._session.verifier.directory.persist())
        finally:
            self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, receipt: Receipt) -> None:
        self.last_receipt = receipt
        path = self._session.receipt_path(receipt.rid)
        if path is not None:
            receipt.save(path)
