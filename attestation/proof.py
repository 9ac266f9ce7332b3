"""What a kind's steps gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .result import NO_CLAIMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .result import Trust


@dataclass(frozen=True, slots=True)
class Proof:
    """Worth nothing unless the ledger it was made with is accepted whole.

    Attributes:
        kind: evidence kind.
        measurement: the measurement the evidence names, a "sha256:" tag.
        not_after: Unix seconds after which the evidence's own credentials end.
        trust: what stands behind it.
        claims: evidence kind to what its evidence says.
        identities: platforms and keys a deny list may name.
        shows: classes of identity ("chip_id", "ppid", "serial", "key") that genuine evidence of
            this kind has, unless somebody hid it.
    """

    kind: str
    measurement: str
    not_after: int
    trust: Trust
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: NO_CLAIMS)
    identities: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()


def canonical_identity(name: str) -> str:
    """An identity as it is compared: as a number, since tools pad serial numbers as they like.

    Args:
        name: "class:hex". One whose hex is all zeros names nothing, and is left with none.
    """
    kind, _, value = name.partition(":")
    return f"{kind}:{value.lstrip('0')}"
