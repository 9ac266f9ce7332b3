"""Keys and values of all layers in pages, as torch tensors."""

from collections.abc import Sequence

import numpy as np
import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.ops.rows import CPU


class KeyValues:
    """The KV store of the torch decoder.

    Attributes:
        keys: [layers, pages, kv_heads, 16, head_dim].
        values: the same shape.
    """

    def __init__(
        self,
        layers: int,
        pages: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        """Reserve the pool. A CPU's is mapped as zeros and costs nothing until it is written."""
        shape = (layers, pages, kv_heads, PAGE_SIZE, head_dim)
        if device == CPU:
            self.keys, self.values = lazy_zeros(shape, dtype), lazy_zeros(shape, dtype)
        else:
            self.keys, self.values = torch.zeros((2, *shape), dtype=dtype, device=device)

    def scrub(self, pages: Sequence[int]) -> None:
        """Overwrite pages with zeros, in every layer."""
        index = torch.tensor(list(pages), device=self.keys.device)
        self.keys.index_fill_(1, index, 0)
        self.values.index_fill_(1, index, 0)

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""
        return not (self.keys[:, page].any() or self.values[:, page].any())


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros the kernel provides page by page on first use; torch.zeros would write them all now."""
    size = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
