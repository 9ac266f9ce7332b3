"""What a worker was asked over its link, and what it answers."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wire.errors import MalformedError, UnavailableError
from wire.link import Message, MessageType, json_message


@dataclass(slots=True, eq=False)
class Answers:
    """The questions to one worker that wait for an answer.

    Args:
        send: writes a message to the worker.
    """

    send: Callable[[Message], None]
    _waiting: "dict[int, asyncio.Future[dict[str, Any]]]" = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _owed: int = 0

    async def ask(
        self, kind: MessageType, question: dict[str, Any], within_s: float
    ) -> dict[str, Any]:
        """Put a question, and wait for its answer.

        Raises:
            UnavailableError: none in time, or the worker is gone.
        """
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._owed += 1
        try:
            self.send(json_message(kind, {**question, "id": number}))
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError as error:
            raise UnavailableError("the worker did not answer in time") from error
        finally:
            del self._waiting[number]

    def take(self) -> None:
        """Count one answer, before it is read: whoever sends more than we asked for has no turn.

        Raises:
            MalformedError: every question was answered.
        """
        if not self._owed:
            raise MalformedError("link: an answer to no question")
        self._owed -= 1

    def give(self, document: dict[str, Any]) -> None:
        """Hand an answer to whoever waits for it; one that comes too late is dropped."""
        number = document.get("id")
        future = self._waiting.get(number) if type(number) is int else None
        if future is not None and not future.done():
            future.set_result(document)

    def end(self) -> None:
        """The worker is gone: nobody waits any longer."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UnavailableError("the worker is gone"))
