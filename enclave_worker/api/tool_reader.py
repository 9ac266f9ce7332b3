"""Tool calls in an answer, read as the text comes: text, then name and arguments of each call.

The grammar that made the text leaves nothing to guess: a tag (or, in Llama's form, the first brace)
begins a call, its head is fixed, its arguments are one JSON object, whose end is where its brackets
close.
"""

import re
from dataclasses import dataclass, field

from .tool_forms import CLOSE, OPEN, Form

_HEAD = re.compile(r'\s*\{"name": "([^"]*)", "(?:arguments|parameters)": ')


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer.

    Attributes:
        text: of the answer, or of a call's arguments.
        call: number of the call from 0, or None for the answer's own text.
        name: the called function's name, on the first part of a call.
    """

    text: str = field(repr=False)
    call: int | None = None
    name: str | None = None


class ToolReader:
    """Splits one choice's text."""

    def __init__(self, form: Form) -> None:
        """Begin before the first character."""
        self._bare = form == "llama"
        self._held = ""
        self._calls = 0
        self._state = self._start if self._bare else self._text
        self._said = False
        self._depth = 0
        self._string = self._escaped = False

    def push(self, text: str) -> list[Part]:
        """Return what the next piece of text makes certain."""
        self._held += text
        parts: list[Part] = []
        while self._held:
            before = (self._state, len(self._held))
            self._state(parts)
            if before == (self._state, len(self._held)):
                break
        return parts

    def flush(self) -> list[Part]:
        """Return what is held back when nothing more comes; a call cut before its name is text."""
        held, self._held = self._held, ""
        if self._state in (self._text, self._start, self._rest):
            return [Part(held)] if held and (self._said or held.strip()) else []
        if self._state == self._head:
            return [Part(held if self._bare else OPEN + held)]
        return []

    def _start(self, parts: list[Part]) -> None:
        """Llama's form: the first character decides."""
        self._state = self._head if self._held.startswith("{") else self._rest

    def _rest(self, parts: list[Part]) -> None:
        self._say(parts, len(self._held))

    def _text(self, parts: list[Part]) -> None:
        at = self._held.find(OPEN)
        if at >= 0:
            self._say(parts, at, final=True)
            self._held = self._held[len(OPEN) :]
            self._state = self._head
            return
        keep = _overlap(self._held, OPEN)
        if self._said or self._held[: len(self._held) - keep].strip():
            self._say(parts, len(self._held) - keep)

    def _say(self, parts: list[Part], size: int, *, final: bool = False) -> None:
        """Give out text; blanks that stand only between calls are nobody's."""
        text, self._held = self._held[:size], self._held[size:]
        if text and not (final and not text.strip()):
            self._said = True
            parts.append(Part(text))

    def _head(self, parts: list[Part]) -> None:
        found = _HEAD.match(self._held)
        if found is None:
            return
        parts.append(Part("", self._calls, found.group(1)))
        self._held = self._held[found.end() :]
        self._depth, self._string, self._escaped = 0, False, False
        self._state = self._arguments

    def _arguments(self, parts: list[Part]) -> None:
        for at, char in enumerate(self._held):
            if self._string:
                self._escaped, ends = (
                    char == "\\" and not self._escaped,
                    char == '"' and not self._escaped,
                )
                self._string = not ends
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    parts.append(Part(self._held[: at + 1], self._calls))
                    self._held = self._held[at + 1 :]
                    self._calls += 1
                    self._state = self._tail
                    return
        parts.append(Part(self._held, self._calls))
        self._held = ""

    def _tail(self, parts: list[Part]) -> None:
        """Pass the call's end, which holds nothing."""
        end = "}" if self._bare else CLOSE
        at = self._held.find(end)
        if at >= 0:
            self._held = self._held[at + len(end) :]
            self._state = self._rest if self._bare else self._text
            self._said = False


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
