"""The gateway's own appraisal of workers, and the memory that makes repeating it cheap.

A verdict is a pure function of what was judged, the policy, the collateral and the time. All
but the time is hashed into one key. A remembered acceptance holds for three quarters of the time to
its own `expires`, which every time limit in it bounds: who asks in the last quarter gets the next
one, before nothing may be released under this one. A refusal holds for `REFUSAL_S`, because only
time can mend it: with other collateral it has another key. Neither holds before the time it was
given at. Who asks for a verdict that is being made waits for that one.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from attestation.appraise import appraise
from attestation.evidence import Evidence
from attestation.policy import Policy
from attestation.result import AppraisedEvidence, Refused
from attestation.verify.credential import Activation

from .digest import digest_of
from .found import NONE_COLLECTED, Collected

#: More than the workers of a large fleet with all their epochs.
VERDICTS_MAX = 10_000
#: Seconds in which whoever asks again for a verdict on a refused worker gets the same.
REFUSAL_S = 5
#: Refusals remembered; each may name hundreds of steps.
REFUSALS_MAX = 256


@dataclass(frozen=True, slots=True)
class Presented:
    """What a worker showed, and what was established beside it when it was admitted.

    Attributes:
        binding, evidence, posture: as received.
        activation: our credential activation of its TPM, where one was run.
        beacon_time: Unix seconds of the log head its binding names, where our log knows it.
        digest: of all of it.
    """

    binding: bytes
    evidence: tuple[Evidence, ...]
    posture: bytes | None
    activation: Activation | None = None
    beacon_time: int | None = None
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Hash it once: it is judged every minute, and evidence may have a third of a MiB."""
        object.__setattr__(self, "digest", _digest(self))


@dataclass(slots=True)
class Appraiser:
    """Judges what workers present, under the policy in force.

    Attributes:
        policy: the policy in force; replaced when its file changes.
    """

    policy: Policy
    _known: OrderedDict[bytes, tuple[int, AppraisedEvidence]] = field(default_factory=OrderedDict)
    _refused: OrderedDict[bytes, tuple[int, Refused]] = field(default_factory=OrderedDict)
    _making: "dict[bytes, asyncio.Task[AppraisedEvidence | Refused]]" = field(default_factory=dict)

    async def judge(
        self,
        shown: Presented,
        now: int,
        collateral: Collected = NONE_COLLECTED,
        *,
        grace: bool = False,
    ) -> tuple[AppraisedEvidence | Refused, str]:
        """The verdict on what a worker presented, and the digest of the policy it is under.

        Args:
            shown: what is judged.
            now: Unix seconds.
            collateral: the vendors' statements.
            grace: whether keys count that are offered no longer, as `attestation.appraise` has it.
        """
        policy = self.policy
        key = _key(shown, policy.digest, collateral, grace=grace)
        while (task := self._making.get(key)) is not None:
            # What comes of it is looked up below, at the time that is asked about.
            await asyncio.wait([task])
        known = self._remembered(key, now)
        if known is not None:
            return known, policy.digest
        task = asyncio.get_running_loop().create_task(
            self._make(key, _Case(shown, policy, now, collateral, grace))
        )
        self._making[key] = task
        # A link that goes away must not undo what others wait for.
        return await asyncio.shield(task), policy.digest

    async def _make(self, key: bytes, case: "_Case") -> AppraisedEvidence | Refused:
        try:
            # Signatures of a node of GPUs take a tenth of a second: requests must not wait.
            verdict = await asyncio.to_thread(_appraise, case)
        finally:
            del self._making[key]
        self._known.pop(key, None)
        self._refused.pop(key, None)
        if isinstance(verdict, AppraisedEvidence):
            self._known[key] = (case.now, verdict)
            if len(self._known) > VERDICTS_MAX:
                self._known.popitem(last=False)
        else:
            self._refused[key] = (case.now, verdict)
            if len(self._refused) > REFUSALS_MAX:
                self._refused.popitem(last=False)
        return verdict

    def _remembered(self, key: bytes, now: int) -> AppraisedEvidence | Refused | None:
        since, known = self._known.get(key, (now, None))
        if known is not None and since <= now < _renewed_from(since, known.expires):
            self._known.move_to_end(key)
            return known
        since, refused = self._refused.get(key, (now, None))
        return refused if refused is not None and since <= now < since + REFUSAL_S else None


@dataclass(frozen=True, slots=True)
class _Case:
    """One judgement's input."""

    shown: Presented
    policy: Policy
    now: int
    collateral: Collected
    grace: bool


def _renewed_from(since: int, expires: int) -> int:
    """When a verdict given at `since` is made anew: with its last quarter, of a second at least."""
    return expires - -(-(expires - since) // 4)


def _appraise(case: _Case) -> AppraisedEvidence | Refused:
    shown = case.shown
    return appraise(
        shown.binding,
        shown.evidence,
        shown.posture,
        case.policy,
        case.now,
        activation=shown.activation,
        beacon_time=shown.beacon_time,
        collateral=case.collateral.roles,
        grace=case.grace,
    )


def _key(shown: Presented, policy: str, collateral: Collected, *, grace: bool) -> bytes:
    """One hash of everything but the time."""
    return digest_of((shown.digest, collateral.digest, policy.encode(), b"%d" % grace))


def _digest(shown: Presented) -> bytes:
    activation = shown.activation
    parts = [
        shown.binding,
        b"" if shown.posture is None else b"\x01" + shown.posture,
        str(shown.beacon_time).encode(),
    ]
    if activation is not None:
        asked, answer = activation.credential, activation.answer
        parts += [b"activation", asked.blob, asked.enc_secret, asked.ak_name, asked.ek_name]
        parts += [activation.secret_expected, b"" if answer is None else b"\x01" + answer]
    parts.append(b"evidence %d" % len(shown.evidence))
    for item in shown.evidence:
        parts += [item.kind.encode(), item.body]
    return digest_of(parts)
