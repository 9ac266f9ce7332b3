"""An answer being read under asyncio; see `stream` for its synchronous twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from .events import Answered, Body, Delta, Done
from .results import SealedResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from attestation.result import Trust

    from .events import Event
    from .receipts import Receipt


class AsyncSealedStream:
    """Events of one exchange after its `Answered`.

    Attributes:
        answered: who answers, and the logical head.
        receipt: verified, once `Done` was read.
        complete: whether the authenticated end was read. Until then nothing delivered is final.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        on_receipt: Callable[[Receipt], Awaitable[None]],
        answered: Answered,
    ) -> None:
        self._events = events
        self._on_receipt = on_receipt
        self.receipt: Receipt | None = None
        self.complete = False
        self.answered = answered

    @classmethod
    async def begin(
        cls,
        events: AsyncGenerator[Event, None],
        on_receipt: Callable[[Receipt], Awaitable[None]],
    ) -> Self:
        """Read the exchange up to its head."""
        first = await anext(events)
        assert isinstance(first, Answered), "an exchange begins with its head"
        return cls(events, on_receipt, first)

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker."""
        return self.answered.trust

    async def __aiter__(self) -> AsyncIterator[Delta | Body]:
        async for event in self._events:
            if isinstance(event, Done):
                self.complete, self.receipt = True, event.receipt
                if event.receipt is not None:
                    await self._on_receipt(event.receipt)
            elif isinstance(event, Delta | Body):
                yield event

    async def read(self) -> SealedResponse:
        """The whole response of a request that was not streamed."""
        body = b"".join([event.data async for event in self if isinstance(event, Body)])
        head = self.answered
        return SealedResponse(head.status, head.headers, body, self.receipt, self.trust, head.rid)

    async def close(self) -> None:
        """Stop: the connection closes, and the worker stops working."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncChatStream:
    """Deltas of one chat answer; iterate to the end, then read `receipt`.

    Leaving before the end cancels the request. Text already yielded is authenticated, but only the
    end makes the answer whole: an error raised by iteration means it is incomplete.
    """

    def __init__(self, stream: AsyncSealedStream) -> None:
        self._stream = stream
        self._texts: list[str] = []
        self.finish: str | None = None

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker."""
        return self._stream.trust

    @property
    def text(self) -> str:
        """Text of the first choice so far."""
        return "".join(self._texts)

    @property
    def complete(self) -> bool:
        """Whether the verified end was read."""
        return self._stream.complete

    @property
    def receipt(self) -> Receipt:
        """The verified receipt.

        Raises:
            RuntimeError: the stream was not read to its end.
        """
        if self._stream.receipt is None:
            raise RuntimeError("the receipt comes with the end of the stream: iterate it first")
        return self._stream.receipt

    async def __aiter__(self) -> AsyncIterator[Delta]:
        async for event in self._stream:
            if isinstance(event, Delta):
                self._texts.append(event.text if event.index == 0 else "")
                self.finish = event.finish or self.finish
                yield event

    async def close(self) -> None:
        """Cancel, if it is not complete."""
        await self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
