"""Which collateral evidence is judged with: what came beside it, or the client's own.

What the gateway carries is signed and dated by the vendors, so it cannot lie; it can be old, within
its dates. Nobody signs when it was fetched, so a policy's `collateral_max_age_s` cannot bind a
gateway: for what it carries the vendors' dates alone count. A client with a collateral folder of
its own (`anchorhold collateral fetch|import`) uses that alone, no entry for longer than the policy
says, and never asks a vendor which platforms it talks to.

Wherever it came from, an Intel platform's TCB evaluation number may not fall below the highest this
client has accepted: older collateral is genuine within its dates, and hides what was found since.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attestation.collateral.services import Services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence_collateral import collateral_anchors, resolve_evidence
from wire.errors import AttestationError

from .files import existing_folder
from .highest import Highest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attestation.evidence import Evidence
    from attestation.examined import CollateralSet
    from attestation.policy import Policy
    from attestation.result import AppraisedEvidence

ROLLBACK = "collateral_rollback"


class OwnCollateral:
    """A client's own folder of collateral, read offline.

    Args:
        folder: as `anchorhold collateral` keeps it.
        policy: names the roots that count, and the greatest age of an entry.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """

    def __init__(self, folder: Path, policy: Policy) -> None:
        hint = "anchorhold collateral fetch or import makes one with --cache-dir"
        self._store = Store(existing_folder(folder, "collateral folder", hint))
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


class EvaluationMemory:
    """The highest TCB evaluation number accepted for each platform.

    Args:
        state_dir: where clients remember.
    """

    def __init__(self, state_dir: Path) -> None:
        self._highest = Highest(state_dir)

    def admit(self, result: AppraisedEvidence) -> None:
        """Remember the numbers of accepted evidence.

        Raises:
            AttestationError: `collateral_rollback`.
            ConfigError: the memory cannot be read or written.
        """
        for kind, claims in result.claims.items():
            number, fmspc = claims.get("tcb_eval_number"), claims.get("fmspc")
            if not isinstance(number, int) or not isinstance(fmspc, str):
                continue  # not Intel's
            # A simulated vendor's numbers must not stand against the real one's.
            mark = self._highest.admit(f"intel-tcb/{result.trust}/{kind}/{fmspc}", number)
            if mark is not None:
                raise AttestationError(
                    f"collateral: found TCB evaluation {number}, expected at least {mark.number}, "
                    "which was seen before",
                    reasons=(ROLLBACK,),
                    hint="the gateway, or the collateral folder, has old collateral: renew it",
                )
