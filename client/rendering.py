"""A streamed answer as server-sent events of the API it was asked through.

Nothing of this framing travels: events exist only on the tenant's side, after the deltas they are
made of were authenticated, and the end that makes an answer whole only after its receipt verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .chat_events import ChatEvents
from .messages_events import MessagesEvents
from .responses_events import ResponsesEvents

if TYPE_CHECKING:
    from wire.errors import AnchorholdError

    from .calls import Call
    from .events import Answered
    from .receipts import Receipt


class Renderer(Protocol):
    """Events of one answer."""

    def begin(self) -> bytes:
        """What comes before the first delta."""

    def delta(self, item: object) -> bytes:
        """Events of one delta; of anything else none."""

    def end(self, receipt: Receipt | None) -> bytes:
        """The end, after the receipt verified."""

    def failure(self, error: AnchorholdError) -> bytes:
        """An error event; no end follows, so nobody takes the answer for complete."""


def renderer(call: Call, answered: Answered) -> Renderer:
    """The renderer for a call's endpoint."""
    if call.kind == "responses":
        return ResponsesEvents(call, answered)
    if call.kind == "messages":
        return MessagesEvents(call, answered)
    return ChatEvents(call, answered)
