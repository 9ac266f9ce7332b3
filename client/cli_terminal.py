"""Text for a terminal: no wider than it is, and nothing in it that a terminal would obey."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Final

# Wider lines are hard to read, and the same output must fit a log, a page and a narrow window.
WIDTH_MAX: Final = 80
WIDTH_MIN: Final = 40


def printable(text: str) -> str:
    """`text` without control characters: a terminal obeys them, and it is a stranger's text."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def one_line(text: str) -> str:
    """`text` with its line ends and tabs spelt out: a file may have them in its name."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def width() -> int:
    """Columns that lines may take."""
    return min(max(shutil.get_terminal_size().columns, WIDTH_MIN), WIDTH_MAX)


def fold(text: str, hang: int = 2) -> str:
    """`text` in lines that fit; words, such as digests and paths, stay whole to be copied.

    Args:
        text: one line or several, printable or not.
        hang: columns by which the rest of a line stands further in than its beginning.
    """
    room = width()
    return "\n".join(_folded(line, hang, room) for line in printable(text).split("\n"))


def say(text: str, hang: int = 2) -> None:
    """Output for people."""
    print(fold(text, hang))


def note(text: str, hang: int = 2) -> None:
    """Words for people, beside the output."""
    if sys.stderr is not None:  # a program may be started without one
        print(fold(text, hang), file=sys.stderr)


def _folded(line: str, hang: int, width: int) -> str:
    if len(line) <= width:
        return line
    begin = len(line) - len(line.lstrip(" "))
    room = width - max(map(len, line.split()))  # less far in, so that the longest word fits too
    lines = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * max(begin + min(hang, 2), min(begin + hang, room, width // 2)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(part.rstrip() for part in lines)
