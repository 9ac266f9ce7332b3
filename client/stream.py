"""An answer being read, synchronously: its beginning is known, the rest is iterated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .answer_state import AnswerState, ChatState
from .events import Body, Delta, Done
from .served import HTTP_OK

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .events import Event
    from .receipts import Receipt
    from .results import SealedResponse


class SealedStream(AnswerState):
    """Events of one exchange after its `Answered`."""

    def __init__(
        self, events: Generator[Event, None, Any], on_receipt: Callable[[Receipt], None]
    ) -> None:
        super().__init__(next(events))
        self._events = events
        self._on_receipt = on_receipt

    def __iter__(self) -> Iterator[Delta | Body]:
        for event in self._events:
            if isinstance(event, Done):
                self._end(event)
                if event.receipt is not None:
                    self._on_receipt(event.receipt)
            elif isinstance(event, Delta | Body):
                yield event

    def read(self) -> SealedResponse:
        """The whole response of a request that was not streamed."""
        return self._response(b"".join(event.data for event in self if isinstance(event, Body)))

    def close(self) -> None:
        """Stop: the connection closes, and the worker stops working."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ChatStream(ChatState):
    """Deltas of one chat answer; iterate to the end, then read `receipt`.

    Leaving before the end cancels the request. Text already yielded is authenticated, but only the
    end makes the answer whole: an error raised by iteration means it is incomplete.
    """

    def __init__(self, stream: SealedStream) -> None:
        super().__init__(stream)
        self._stream = stream
        if stream.answered.status != HTTP_OK:
            stream.read().require()

    def __iter__(self) -> Iterator[Delta]:
        for event in self._stream:
            if isinstance(event, Delta):
                self._take(event)
                yield event

    def close(self) -> None:
        """Cancel, if it is not complete."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
