"""Workers of a registry without a gateway around it: their keys, and their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.appraiser import Presented
from gateway.session import Epoch, Session

from .tee import SoftwareTee

if TYPE_CHECKING:
    from gateway.registry import Registry


def admitted(name: str, count: int) -> list[Epoch]:
    """Epochs of one worker, oldest first; how they came to be accepted is no matter here."""
    tee, found = SoftwareTee(name), []
    for number in range(count):
        tee.facts["epoch"] = number
        binding = tee.binding()
        appraised = tee.appraise(binding_raw=binding)
        shown = Presented(binding, tuple(tee.presented(binding)), tee.posture())
        found.append(Epoch(appraised, shown, None, "", None))  # type: ignore[arg-type]
    return found


def here(registry: Registry, epochs: list[Epoch]) -> Session:
    """The connection of a worker that announced these, one after another."""
    session = Session(bytes(32), lambda _: None, epochs[:1], 10.0)
    registry.add(session)
    for epoch in epochs[1:]:
        registry.add_epoch(session, epoch)
    return session
