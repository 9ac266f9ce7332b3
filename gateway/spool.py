"""Ciphertext waiting for a worker: in memory while small, in a file of its own above a threshold.

Files are created for this user only, named by a counter (never by anything a client sent), removed
as soon as the first response byte or a refusal makes them useless, and swept at start. What lies
here is sealed: the reason to remove it early is space, and to keep harvest-now-decrypt-later poor.
"""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from tenancy.queue import Caps
from wire.errors import ConfigError

_SUFFIX = ".sealed"


class SpoolFullError(Exception):
    """A limit is reached. `tenant_cap` tells the tenant's own limit from the common one."""

    def __init__(self, *, tenant_cap: bool) -> None:
        """Name the limit without its numbers: they would tell about other tenants' load."""
        super().__init__("the tenant's spool is full" if tenant_cap else "the spool is full")
        self.tenant_cap = tenant_cap


class TooLargeError(Exception):
    """One request is larger than allowed."""


@dataclass(slots=True)
class Spool:
    """Holds sealed requests and counts them, from the first byte received on.

    Args:
        folder: where files go.
        memory_max: bytes of one entry kept in memory.
        entry_max: bytes one entry may have.
        total_max: bytes of all entries together.
        caps: requests and bytes one tenant may hold, requests in all.
    """

    folder: Path
    memory_max: int
    entry_max: int
    total_max: int
    caps: Caps = field(default_factory=Caps)
    held: int = 0
    _entries: int = 0
    _tenants: dict[str, tuple[int, int]] = field(default_factory=dict)
    _next: int = 0

    def open(self) -> int:
        """Make the folder and remove what an earlier process left; returns how many files.

        Raises:
            ConfigError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            left = list(self.folder.glob(f"*{_SUFFIX}"))
            for path in left:
                path.unlink()
        except OSError as error:
            raise ConfigError(f"spool_dir: cannot use it: {error.strerror}") from error
        return len(left)

    def entry(self, tenant: str) -> "Entry":
        """A new, empty entry.

        Raises:
            SpoolFullError: too many requests, of this tenant or in all.
        """
        requests, _ = self._tenants.get(tenant, (0, 0))
        if requests >= self.caps.tenant_requests:
            raise SpoolFullError(tenant_cap=True)
        if self._entries >= self.caps.global_requests:
            raise SpoolFullError(tenant_cap=False)
        self._count(tenant, 1, 0)
        self._next += 1
        return Entry(self, tenant, self.folder / f"{os.getpid()}-{self._next}{_SUFFIX}")

    def take(self, tenant: str, size: int) -> None:
        """Count `size` more bytes.

        Raises:
            SpoolFullError: they do not fit.
        """
        if self._tenants[tenant][1] + size > self.caps.tenant_bytes:
            raise SpoolFullError(tenant_cap=True)
        if self.held + size > self.total_max:
            raise SpoolFullError(tenant_cap=False)
        self._count(tenant, 0, size)

    def release(self, tenant: str, size: int) -> None:
        """Stop counting one entry of `size` bytes."""
        self._count(tenant, -1, -size)

    def _count(self, tenant: str, requests: int, size: int) -> None:
        before = self._tenants.get(tenant, (0, 0))
        after = (before[0] + requests, before[1] + size)
        if after[0]:
            self._tenants[tenant] = after
        else:
            del self._tenants[tenant]
        self._entries += requests
        self.held += size


@dataclass(slots=True)
class Entry:
    """One request's ciphertext, written once from front to back. Made by `Spool.entry`."""

    spool: Spool
    tenant: str
    path: Path
    size: int = 0
    _memory: bytearray = field(default_factory=bytearray)
    _on_disk: bool = False
    _closed: bool = False
    _writing: "asyncio.Future[None] | None" = None

    @property
    def on_disk(self) -> bool:
        """Whether it has grown beyond memory."""
        return self._on_disk

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; never holds more than the limit, however much is sent.

        Raises:
            TooLargeError: the entry would exceed its limit.
            SpoolFullError: the tenant or the spool would exceed its limit.
        """
        if self.size + len(chunk) > self.spool.entry_max:
            raise TooLargeError
        self.spool.take(self.tenant, len(chunk))
        self.size += len(chunk)
        self._memory += chunk
        if len(self._memory) > self.spool.memory_max:
            pending, self._memory = bytes(self._memory), bytearray()
            self._on_disk = True
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, self._append, pending)
            # Not cancelled with its request: the thread would go on, unknown to `remove`.
            await asyncio.shield(self._writing)

    async def read(self) -> bytes:
        """All of it."""
        if not self._on_disk:
            return bytes(self._memory)
        return await asyncio.to_thread(self.path.read_bytes) + bytes(self._memory)

    async def remove(self) -> None:
        """Forget the ciphertext and free its space; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self.spool.release(self.tenant, self.size)
        self._memory = bytearray()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if self._on_disk:
            await asyncio.to_thread(self.path.unlink, missing_ok=True)

    def _append(self, pending: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pending)
