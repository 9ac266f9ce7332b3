"""The gateway's own appraisal of workers, and the memory that makes repeating it cheap.

A verdict is a pure function of what was judged, the policy, the collateral and the time. All
but the time is hashed into one key; a remembered acceptance holds until its own `expires`, which
every time limit in it bounds, and a refusal is never remembered: what was refused for want of
collateral may pass when that has come.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from attestation.appraise import appraise
from attestation.evidence import Evidence
from attestation.examined import NO_COLLATERAL, CollateralSet
from attestation.policy import Policy
from attestation.result import AppraisedEvidence, Refused
from attestation.verify.credential import Activation

#: More than the workers of a large fleet with all their epochs.
VERDICTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Presented:
    """What a worker showed, and what was established beside it when it was admitted.

    Attributes:
        binding, evidence, posture: as received.
        activation: our credential activation of its TPM, where one was run.
        beacon_time: Unix seconds of the log head its binding names, where our log knows it.
    """

    binding: bytes
    evidence: tuple[Evidence, ...]
    posture: bytes | None
    activation: Activation | None = None
    beacon_time: int | None = None


@dataclass(slots=True)
class Appraiser:
    """Judges what workers present, under the policy in force.

    Attributes:
        policy: the policy in force; replaced when its file changes.
    """

    policy: Policy
    _known: OrderedDict[bytes, AppraisedEvidence] = field(default_factory=OrderedDict)

    async def judge(
        self, shown: Presented, now: int, collateral: CollateralSet = NO_COLLATERAL
    ) -> tuple[AppraisedEvidence | Refused, str]:
        """The verdict on what a worker presented, and the digest of the policy it is under.

        Args:
            shown: what is judged.
            now: Unix seconds.
            collateral: the vendors' statements.
        """
        policy = self.policy
        key = _key(shown, policy.digest, collateral)
        known = self._known.get(key)
        if known is not None and now < known.expires:
            self._known.move_to_end(key)
            return known, policy.digest
        # Signatures of a node of GPUs take a tenth of a second: requests must not wait for them.
        verdict = await asyncio.to_thread(_appraise, shown, policy, now, collateral)
        if isinstance(verdict, AppraisedEvidence):
            self._known[key] = verdict
            if len(self._known) > VERDICTS_MAX:
                self._known.popitem(last=False)
        else:
            self._known.pop(key, None)
        return verdict, policy.digest


def _appraise(
    shown: Presented, policy: Policy, now: int, collateral: CollateralSet
) -> AppraisedEvidence | Refused:
    return appraise(
        shown.binding,
        shown.evidence,
        shown.posture,
        policy,
        now,
        activation=shown.activation,
        beacon_time=shown.beacon_time,
        collateral=collateral,
    )


def _key(shown: Presented, policy: str, collateral: CollateralSet) -> bytes:
    """One hash of everything but the time; every part has its length, so no two cases collide."""
    state = hashlib.sha256()
    activation = shown.activation
    parts = [
        shown.binding,
        b"" if shown.posture is None else b"\x01" + shown.posture,
        policy.encode(),
        str(shown.beacon_time).encode(),
    ]
    if activation is not None:
        parts += [b"activation", activation.secret_expected, activation.answer or b""]
    parts.append(b"evidence %d" % len(shown.evidence))
    for item in shown.evidence:
        parts += [item.kind.encode(), item.body]
    parts.append(b"collateral %d" % len(collateral))
    for kind in sorted(collateral):
        parts += [kind.encode(), b"%d" % len(collateral[kind])]
        for role in sorted(collateral[kind]):
            parts += [role.encode(), collateral[kind][role]]
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
