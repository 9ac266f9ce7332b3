"""Work that can be counted, for claims about cost that must hold on a busy machine too.

`CountedBytes` is a buffer that counts the bytes copied into it, out of it and within it, as if
taking some from its front moved the rest; put it where code under test keeps its own. `calls`
counts the functions that a piece of work calls, Python's and C's. Neither reads a clock.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class CountedBytes(bytearray):
    """A buffer.

    Attributes:
        copied: bytes copied so far.
    """

    def __init__(self, *content: Any) -> None:
        super().__init__(*content)
        self.copied = len(self)

    def __iadd__(self, more: Any) -> Self:
        self.copied += len(more)
        return super().__iadd__(more)

    def extend(self, more: Any) -> None:
        self.copied += len(more)
        super().extend(more)

    def __add__(self, more: Any) -> CountedBytes:
        whole = CountedBytes(super().__add__(more))
        whole.copied += self.copied
        return whole

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(key, slice):
            self.copied += len(found)
        return found

    def __delitem__(self, key: Any) -> None:
        before = len(self)
        super().__delitem__(key)
        if len(self) != before:
            self.copied += len(self)

    def __bytes__(self) -> bytes:
        self.copied += len(self)
        return bytes(memoryview(self))


def calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls."""
    count = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
