"""Trust anchors: the vendors' root certificates, pinned by the SHA-256 of their DER.

A root travels with evidence or collateral like any other certificate and counts only if its
fingerprint is pinned here, or in the policy. Names never count: a look-alike root has the same
subject. A policy that pins roots of its own judges simulators, and its verdicts say `simulated`.

Sources: the vendors' own pages (Intel SGX Root CA; AMD KDS `cert_chain` of each product; AWS Nitro
Enclaves root G1; NVIDIA Device Identity CA), compared with the copies in their open verifiers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Anchors:
    """The roots one rule trusts.

    Attributes:
        pins: SHA-256 fingerprints of root certificates in DER, 32 bytes each.
        simulated: whether a policy chose them itself; what they vouch for is then no hardware.
    """

    pins: frozenset[bytes]
    simulated: bool = False

    def trusts(self, der: bytes) -> bool:
        """Whether this certificate, byte for byte, is pinned."""
        return hashlib.sha256(der).digest() in self.pins

    def among(self, certificates: Iterable[bytes]) -> tuple[bytes, ...]:
        """Those of the given certificates (DER) that are pinned roots."""
        return tuple(der for der in certificates if self.trusts(der))


def _pins(*fingerprints: str) -> Anchors:
    return Anchors(frozenset(bytes.fromhex(text) for text in fingerprints))


INTEL: Final = _pins("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")
AMD_MILAN: Final = _pins("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd")
AMD_GENOA: Final = _pins("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1")
AMD_TURIN: Final = _pins("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a")
AMD: Final = Anchors(AMD_MILAN.pins | AMD_GENOA.pins | AMD_TURIN.pins)
NITRO: Final = _pins("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")
NVIDIA: Final = _pins("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
NVIDIA_RIM: Final = _pins("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")
NONE: Final = Anchors(frozenset())
