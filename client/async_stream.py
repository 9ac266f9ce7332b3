"""An answer being read under asyncio; see `stream` for its synchronous twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from .answer_state import AnswerState, ChatState
from .events import Body, Delta, Done

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from .events import Event
    from .receipts import Receipt
    from .results import SealedResponse


class AsyncSealedStream(AnswerState):
    """Events of one exchange after its `Answered`."""

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        on_receipt: Callable[[Receipt], Awaitable[None]],
        first: Event,
    ) -> None:
        super().__init__(first)
        self._events = events
        self._on_receipt = on_receipt

    @classmethod
    async def begin(
        cls,
        events: AsyncGenerator[Event, None],
        on_receipt: Callable[[Receipt], Awaitable[None]],
    ) -> Self:
        """Read the exchange up to its head."""
        return cls(events, on_receipt, await anext(events))

    async def __aiter__(self) -> AsyncIterator[Delta | Body]:
        async for event in self._events:
            if isinstance(event, Done):
                self._end(event)
                if event.receipt is not None:
                    await self._on_receipt(event.receipt)
            elif isinstance(event, Delta | Body):
                yield event

    async def read(self) -> SealedResponse:
        """The whole response of a request that was not streamed."""
        parts = [event.data async for event in self if isinstance(event, Body)]
        return self._response(b"".join(parts))

    async def close(self) -> None:
        """Stop: the connection closes, and the worker stops working."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncChatStream(ChatState):
    """Deltas of one chat answer; iterate to the end, then read `receipt`.

    Leaving before the end cancels the request. Text already yielded is authenticated, but only the
    end makes the answer whole: an error raised by iteration means it is incomplete.
    """

    def __init__(self, stream: AsyncSealedStream) -> None:
        super().__init__(stream)
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[Delta]:
        async for event in self._stream:
            if isinstance(event, Delta):
                self._take(event)
                yield event

    async def close(self) -> None:
        """Cancel, if it is not complete."""
        await self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
