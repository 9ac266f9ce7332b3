"""The KV pool: pages of 16 tokens, who holds them, and nothing left in them for the next."""

import heapq
from collections.abc import Iterable

import numpy as np
import torch

from .config import PAGE_SIZE


class PagedKeyValues:
    """Keys and values of all layers, in pages.

    Attributes:
        keys: [layers, pages, kv_heads, 16, head_dim].
        values: the same shape.
    """

    def __init__(
        self, layers: int, pages: int, kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        """Reserve the pool. Memory is mapped as zeros and costs nothing until it is written."""
        shape = (layers, pages, kv_heads, PAGE_SIZE, head_dim)
        self.keys = _lazy_zeros(shape, dtype)
        self.values = _lazy_zeros(shape, dtype)

    def scrub(self, pages: list[int]) -> None:
        """Overwrite pages with zeros, in every layer."""
        index = torch.tensor(pages)
        self.keys.index_fill_(1, index, 0)
        self.values.index_fill_(1, index, 0)


class PagePool:
    """Which pages are free. The lowest go first, so the pages in use stay close together."""

    def __init__(self, store: PagedKeyValues) -> None:
        """All pages of the store are free."""
        self._store = store
        self.total = store.keys.shape[1]
        self._free = list(range(self.total))

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
            self._store.scrub(returned)
        for page in returned:
            heapq.heappush(self._free, page)


def pages_for(tokens: int) -> int:
    """Pages that hold this many tokens."""
    return -(-tokens // PAGE_SIZE)


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros the kernel provides page by page on first use; torch.zeros would write them all now."""
    size = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
