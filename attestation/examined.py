"""What goes into the examination of one piece of evidence, and what comes out of it.

Examination answers one question only: does the vendor's hardware say this, now, for us? Whether
the state it describes is acceptable is `judge`'s question, asked with a policy's rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anchors import Anchors
    from .result import Check, Reason

CollateralSet: TypeAlias = "Mapping[str, Mapping[str, bytes]]"  # evidence kind to role to bytes
NO_BYTES: Final[Mapping[str, bytes]] = MappingProxyType({})
NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})
NO_COLLATERAL: Final[CollateralSet] = MappingProxyType({})
FOREVER: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What the relying party brings: the evidence must have been made for exactly this.

    Attributes:
        report_data: the 64 bytes a CPU report must carry, or None where nothing is asked.
        nonce: the bytes a GPU report, TPM quote or Nitro document must carry, or None.
        user_data: the bytes a Nitro document must carry as user data, or None.
        arch: the GPU or switch architecture asked for ("HOPPER", "BLACKWELL", "LS10"), or None.
    """

    report_data: bytes | None = None
    nonce: bytes | None = None
    user_data: bytes | None = None
    arch: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One examination's input; the function of it is pure.

    Attributes:
        evidence: role to bytes, unverified, as the worker sent them.
        collateral: role to bytes, unverified: the vendor's signed statements and certificates.
        anchors: the only roots that count.
        expected: what the evidence must have been made for.
        now: Unix seconds of the verdict; 0 where time plays no part.
        skew: by how many seconds an honest issuer's clock may be ahead of the one that `now` was
            read from; 0 where `now` is stated, and no clock was read.
    """

    evidence: Mapping[str, bytes]
    anchors: Anchors
    now: int
    collateral: Mapping[str, bytes] = field(default_factory=lambda: NO_BYTES)
    expected: Expected = Expected()
    skew: int = CLOCK_SKEW_S


@dataclass(frozen=True, slots=True)
class Examined:
    """What one piece of evidence says, and whether it is genuine.

    Attributes:
        kind: evidence kind.
        authentic: True: every step passed. False: at least one did not. None: the format has no
            notion of it (a log or a manifest on its own).
        claims: what was parsed, JSON-able, for refused evidence too; not to be relied on unless
            authentic.
        facts: the typed parsed form that this kind's `judge` takes; None if it did not parse.
        checks: every step.
        reasons: why not authentic; empty exactly if `authentic` is not False.
        not_after: Unix second at which the first certificate or collateral it rests on ends.
        identities: what a deny list may name: "chip_id:<hex>", "ppid:<hex>", "serial:<hex>",
            "key:<hex SHA-256 of the leaf certificate's SubjectPublicKeyInfo>".
        bound: whether a nonce or report data was demanded and found; evidence that is not bound to
            anything may be replayed, so `appraise` never accepts it.
    """

    kind: str
    authentic: bool | None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
    facts: Any = None
    checks: tuple[Check, ...] = ()
    reasons: tuple[Reason, ...] = ()
    not_after: int = FOREVER
    identities: tuple[str, ...] = ()
    bound: bool = False

    def __post_init__(self) -> None:
        if bool(self.reasons) is not (self.authentic is False):
            raise ValueError("reasons are given exactly for evidence that is not authentic")
