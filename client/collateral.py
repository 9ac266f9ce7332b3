"""Which collateral evidence is judged with: what came beside it, or the client's own.

What the gateway carries is signed and dated by the vendors, so it cannot lie; it can be old, within
its dates. Nobody signs when it was fetched, so a policy's `collateral_max_age_s` cannot bind a
gateway: for what it carries the vendors' dates alone count. A client with a collateral folder of
its own (`anchorhold collateral fetch|import`) uses that alone, no entry for longer than the policy
says, and never asks a vendor which platforms it talks to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attestation.collateral.services import Services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence_collateral import collateral_anchors, resolve_evidence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attestation.evidence import Evidence
    from attestation.examined import CollateralSet
    from attestation.policy import Policy


class OwnCollateral:
    """A client's own folder of collateral, read offline.

    Args:
        folder: as `anchorhold collateral` keeps it.
        policy: names the roots that count, and the greatest age of an entry.
    """

    def __init__(self, folder: Path, policy: Policy) -> None:
        self._store = Store(folder)
        self._vendors = Vendors(Services(), os.urandom, collateral_anchors(policy))
        self._max_age_s = policy.collateral_max_age_s

    def find(self, evidence: Sequence[Evidence], now: int) -> CollateralSet:
        """What the folder has for this evidence; what it lacks, the appraisal says is missing.

        An entry older than the policy allows counts as lacking.

        Raises:
            ConfigError: the folder cannot be used.
        """
        return {
            item.kind: resolve_evidence(
                item, self._store, self._vendors, None, now, max_age_s=self._max_age_s
            ).roles
            for item in evidence
        }
