"""Where a secret of a few bytes is kept: off the heap, out of swap and dumps, wiped when closed.

``memfd_secret`` pages are taken out of the kernel's own map of memory: not even root's read of
``/proc/PID/mem`` returns them. Where it is missing the next best is a locked page that no core dump
carries; where locking fails too it is an ordinary page, and :attr:`SecretBytes.storage` says so.

What this cannot do: a key object of the crypto library lives on its heap while it exists, so build
it from :meth:`SecretBytes.view` for one use and drop it (OpenSSL wipes it when freed).
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Literal, Self

from attestation.posture import Control

from . import libc
from .outcome import applied, refused, unavailable

__all__ = ("SecretBytes", "probe")

Storage = Literal["memfd_secret", "locked", "plain"]
_MADV_DONTDUMP = 16
_MADV_WIPEONFORK = 18


class SecretBytes:
    """`size` bytes (at most a page) in the best storage the kernel grants; see :attr:`storage`.

    Never copied and never shown. Close it, or use it as a context manager.
    """

    __slots__ = ("_address", "_span", "_view", "size", "storage")

    def __init__(self, size: int) -> None:
        """Reserve zeroed storage. Raises ValueError unless 1 ≤ `size` ≤ one page; OSError."""
        if not 1 <= size <= mmap.PAGESIZE:
            raise ValueError(f"a secret has 1 to {mmap.PAGESIZE} bytes, not {size}")
        self.size = size
        self._span = mmap.PAGESIZE
        self._address, self.storage = _reserve(self._span)
        array = (ctypes.c_ubyte * size).from_address(self._address)
        self._view: memoryview | None = memoryview(array).cast("B")

    @classmethod
    def random(cls, size: int) -> Self:
        """A fresh random secret, written by the kernel into the page: no copy on the heap."""
        secret = cls(size)
        failed = libc.fill_random(secret._address, size)
        if failed:
            secret.close()
            raise OSError(failed, os.strerror(failed))
        return secret

    def view(self) -> memoryview:
        """The bytes in place, writable. Do not keep it past :meth:`close`, do not copy it."""
        if self._view is None:
            raise RuntimeError("the secret has been closed")
        return self._view

    def close(self) -> None:
        """Overwrite, unmap. Further use raises RuntimeError; closing twice is harmless."""
        if self._view is not None:
            self._view[:] = bytes(self.size)
            self._view.release()
            self._view = None
            libc.unmap_pages(self._address, self._span)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def probe(secrets: Iterable[SecretBytes]) -> Mapping[str, Control]:
    """Fields `memfd_secret` and `mlock`: applied only if every one of `secrets` is stored so.

    Pass the secrets the worker really uses (its signing seed, its HPKE seeds): a kernel that offers
    the call while the seed lies on the heap is `refused`, because nothing is protected by it.
    """
    storages = [secret.storage for secret in secrets]
    if not storages:
        return {"memfd_secret": _unused(), "mlock": refused(0, "no secret is locked")}
    count = f"{len(storages)} secrets"
    hidden = all(storage == "memfd_secret" for storage in storages)
    locked = all(storage != "plain" for storage in storages)
    return {
        "memfd_secret": applied(count) if hidden else _unused(),
        # Secret memory is locked by nature.
        "mlock": applied(count) if locked else refused(errno.ENOMEM, "beyond the lock limit"),
    }


def _unused() -> Control:
    failed = _offered()
    return unavailable(failed) if failed else refused(0, "offered, but a secret lies elsewhere")


def _offered() -> int:
    fd, failed = libc.syscall("memfd_secret", 0)
    if not failed:
        os.close(fd)
    return failed


def _reserve(span: int) -> tuple[int, Storage]:
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    fd, failed = libc.syscall("memfd_secret", 0)
    if not failed:
        try:
            os.ftruncate(fd, span)
            address, failed = libc.map_pages(span, protection, mmap.MAP_SHARED, fd)
        finally:
            # The mapping keeps the pages; a descriptor left open would be one more way to them.
            os.close(fd)
        if not failed:
            return address, "memfd_secret"
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address, failed = libc.map_pages(span, protection, flags, -1)
    if failed:
        raise OSError(failed, os.strerror(failed))
    libc.advise_pages(address, span, _MADV_DONTDUMP)
    libc.advise_pages(address, span, _MADV_WIPEONFORK)
    return address, "plain" if libc.lock_pages(address, span) else "locked"
