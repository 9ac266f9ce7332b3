"""The KV pool: which pages are free, and nothing left in them for the next holder."""

import heapq
from collections.abc import Callable, Iterable, Sequence

from .config import PAGE_SIZE


class PagePool:
    """Which pages are free. The lowest go first, so the pages in use stay close together."""

    def __init__(self, total: int, scrub: Callable[[Sequence[int]], None]) -> None:
        """All pages are free; `scrub` overwrites pages with zeros."""
        self.total = total
        self._scrub = scrub
        self._free = list(range(total))

    @property
    def free(self) -> int:
        """Free pages."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Hand out pages; the caller has checked `free`."""
        if count > len(self._free):
            raise RuntimeError(f"page pool: found {len(self._free)} free, expected {count}")
        return [heapq.heappop(self._free) for _ in range(count)]

    def give_back(self, pages: Iterable[int]) -> None:
        """Scrub pages and make them free: the next holder may be another tenant."""
        returned = list(pages)
        if returned:
            self._scrub(returned)
        for page in returned:
            heapq.heappush(self._free, page)


def pages_for(tokens: int) -> int:
    """Pages that hold this many tokens."""
    return -(-tokens // PAGE_SIZE)
