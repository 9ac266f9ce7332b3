"""What is known of an answer that is being read: the same for both kinds of stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import Answered
from .results import SealedResponse

if TYPE_CHECKING:
    from attestation.result import Trust

    from .events import Delta, Done, Event
    from .receipts import Receipt


class AnswerState:
    """One exchange after its `Answered`.

    Attributes:
        answered: who answers, and the logical head.
        receipt: verified, once `Done` was read.
        complete: whether the authenticated end was read. Until then nothing delivered is final.
    """

    def __init__(self, first: Event) -> None:
        assert isinstance(first, Answered), "an exchange begins with its head"
        self.answered = first
        self.receipt: Receipt | None = None
        self.complete = False

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker."""
        return self.answered.trust

    def _end(self, done: Done) -> None:
        self.complete, self.receipt = True, done.receipt

    def _response(self, body: bytes) -> SealedResponse:
        head = self.answered
        return SealedResponse(head.status, head.headers, body, self.receipt, self.trust, head.rid)


class ChatState:
    """One chat answer, so far.

    Attributes:
        finish: why the first choice ended; None until it did.
    """

    def __init__(self, answer: AnswerState) -> None:
        self._answer = answer
        self._texts: list[str] = []
        self.finish: str | None = None

    @property
    def trust(self) -> Trust:
        """What stands behind the answering worker."""
        return self._answer.trust

    @property
    def text(self) -> str:
        """Text of the first choice so far."""
        return "".join(self._texts)

    @property
    def complete(self) -> bool:
        """Whether the verified end was read."""
        return self._answer.complete

    @property
    def receipt(self) -> Receipt:
        """The verified receipt.

        Raises:
            RuntimeError: the stream was not read to its end.
        """
        if self._answer.receipt is None:
            raise RuntimeError("the receipt comes with the end of the stream: iterate it first")
        return self._answer.receipt

    def _take(self, delta: Delta) -> None:
        if delta.index == 0:
            self._texts.append(delta.text)
            self.finish = delta.finish or self.finish
