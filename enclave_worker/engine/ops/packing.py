"""Weights laid out for the compiled kernels, in one stretch of memory."""

import contextlib
import ctypes
import mmap

import numpy as np
import torch

from enclave_worker.engine.errors import KernelError

from .abi import Form, Linear, Source
from .library import Library

_LINE = 64  # what the kernels want packed weights aligned to, in bytes
_SOURCES = {
    torch.float32: Source.FLOAT32,
    torch.bfloat16: Source.BF16,
    torch.int8: Source.INT8,
}


def lazy_memory(size: int) -> mmap.mmap:
    """Zeros in private memory, huge pages where the kernel gives them; none until written."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def return_freed_memory() -> None:
    """Give what was read and dropped back to the system; the C library would keep it for itself."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def packed_bytes(library: Library, form: int, n: int, k: int) -> int:
    """Room that a weight matrix [n, k] takes in an arena."""
    size: int = library.call["ah_packed_bytes"](form, n, k)
    return -(-size // _LINE) * _LINE


class Arena:
    """Packed weights one after another in huge pages: a step reads them through, front to back."""

    def __init__(self, library: Library, size: int) -> None:
        """Reserve `size` bytes; nothing is touched yet."""
        self._library = library
        self._memory = lazy_memory(size)
        self._next = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._end = self._next + size

    def pack(
        self,
        form: int,
        weight: torch.Tensor,
        scale: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> Linear:
        """Lay out one product; the tensors are not needed afterwards.

        Args:
            form: of `Form`.
            weight: [n, k], float32, bfloat16 or int8.
            scale: float32 [n] of int8 weights.
            bias: float32 [n] or None.
        """
        n, k = weight.shape
        size = packed_bytes(self._library, form, n, k)
        if self._next + size > self._end or (form == Form.BF16) != (scale is None):
            raise KernelError(f"native weights: found no room or no form for {n} x {k} weights")
        address, self._next = self._next, self._next + size
        weight = weight.contiguous()
        refused = self._library.call["ah_pack"](
            form,
            _SOURCES[weight.dtype],
            weight.data_ptr(),
            None if scale is None else scale.contiguous().data_ptr(),
            None if bias is None else bias.contiguous().data_ptr(),
            n,
            k,
            address,
        )
        if refused:
            raise KernelError(f"native weights: found {n} x {k} weights that do not pack")
        return Linear(packed=address, n=n, k=k, form=form)
