"""One choice of an answer: the engine's events in, stream deltas out, and the whole at the end."""

from collections.abc import Callable
from typing import Any

from wire.records import TokenDelta

from .api.logprobs import Chosen, TokenLogprob
from .api.request import ToolCall
from .api.results import ChoiceResult
from .api.tool_reader import Part, ToolReader
from .engine.events import TokenEvent


class ChoiceWriter:
    """Belongs to the event loop's thread."""

    def __init__(
        self,
        index: int,
        reader: ToolReader | None,
        call_id: Callable[[], str],
        entry: Callable[[Chosen], TokenLogprob] | None,
    ) -> None:
        """Begin before the first event.

        Args:
            index: of the choice.
            reader: splits the text where calls may be in it.
            call_id: draws the id of a call.
            entry: makes a token's log-probabilities, where they were asked for.
        """
        self._index = index
        self._place = {"i": index} if index else {}
        self._reader = reader
        self._call_id = call_id
        self._entry = entry
        self._text: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        self._entries: list[TokenLogprob] = []
        self._finish = ""
        self._stop: int | None = None

    @property
    def ended(self) -> bool:
        """Whether its last event was taken."""
        return bool(self._finish)

    def begin(self, text: str) -> list[TokenDelta]:
        """Begin the answer with a text that no model wrote (the prompt's echo)."""
        self._text.append(text)
        return [TokenDelta(text, dict(self._place))]

    def take(self, event: TokenEvent) -> list[TokenDelta]:
        """Take one event; returns what a stream says of it."""
        deltas = self._scored(event)
        for part in self._parts(event):
            deltas += self._kept(part)
        if event.finish is not None:
            self._finish, self._stop = event.finish, event.stop
            tail: dict[str, Any] = self._place | {"f": event.finish}
            if event.stop is not None:
                tail["s"] = event.stop
            deltas.append(TokenDelta("", tail))
        return deltas

    def result(self) -> ChoiceResult:
        """The finished choice."""
        calls = tuple(ToolCall(id_, name, "".join(text)) for id_, name, text in self._calls)
        return ChoiceResult(
            self._index,
            "".join(self._text),
            calls,
            self._finish,
            self._stop,
            None if self._entry is None else tuple(self._entries),
        )

    def _parts(self, event: TokenEvent) -> list[Part]:
        if self._reader is None:
            return [Part(event.text)] if event.text else []
        parts = self._reader.push(event.text)
        return parts if event.finish is None else parts + self._reader.flush()

    def _scored(self, event: TokenEvent) -> list[TokenDelta]:
        """Lines of log-probabilities, which go before the text they belong to."""
        if self._entry is None or not event.choices:
            return []
        entries = [self._entry(choice) for choice in event.choices]
        self._entries += entries
        lines = "".join(entry.line() for entry in entries)
        return [TokenDelta(lines, self._place | {"l": 1})]

    def _kept(self, part: Part) -> list[TokenDelta]:
        if part.call is None:
            self._text.append(part.text)
            return [TokenDelta(part.text, dict(self._place))]
        place = self._place | {"t": part.call}
        deltas = []
        if part.name is not None:
            begun: tuple[str, str, list[str]] = (self._call_id(), part.name, [])
            self._calls.append(begun)
            deltas.append(TokenDelta("", place | {"id": begun[0], "fn": begun[1]}))
        if part.text:
            self._calls[part.call][2].append(part.text)
            deltas.append(TokenDelta(part.text, place))
        return deltas
