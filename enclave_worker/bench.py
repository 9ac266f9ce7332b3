"""What every request of one worker shares, and what it needs of the gateway."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from .api.embeddings import Embedder
from .clock import Clock
from .engine.engine import Engine
from .epochs import Keyring
from .handover import Handover
from .statement import Notary
from .worker_config import WorkerConfig


class Outlet(Protocol):
    """A request's way to the gateway."""

    async def send_bytes(self, rid: bytes, data: bytes) -> None:
        """Send response bytes; waits while the gateway is slow."""

    async def send_notice(self, rid: bytes, notice: dict[str, Any]) -> None:
        """Send a signed refusal, before any byte."""

    async def log(self, rid: bytes, event: dict[str, Any]) -> dict[str, Any]:
        """Have an event made durable and return the log's answer."""

    async def send_done(self, rid: bytes, done: dict[str, Any]) -> None:
        """Report the end, with rounded usage."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts of one worker.

    Attributes:
        config: settings.
        keyring: keys by epoch.
        engine: runs sequences; None where the model makes no text.
        notary: signs receipts.
        clock: the worker's own.
        rng: random bytes.
        executor: threads for long bodies.
        handover: brings the engine's events to the event loop.
        embedder: makes embeddings; None where the model makes none.
    """

    config: WorkerConfig
    keyring: Keyring
    engine: Engine | None
    notary: Notary
    clock: Clock
    rng: Callable[[int], bytes]
    executor: Executor
    handover: Handover = field(default_factory=Handover)
    embedder: Embedder | None = None
