"""A log on disk, as the gateway writes it: who it is, and some entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from evidence.entry import Logged
    from evidence.sequencer import Log

ORIGIN = "log.test/sequencer"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


async def filled(log: Log, count: int = 5) -> list[Logged]:
    return [await log.append("test.event", {"n": n}) for n in range(count)]
