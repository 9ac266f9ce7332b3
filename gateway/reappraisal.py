"""Admitted workers are judged again: on a timer, and when the policy or the collateral changed.

An admission is a verdict of its moment. A policy that is withdrawn, a certificate revoked, a
platform found weak: a worker admitted before must meet what is demanded now. One that does not is
fenced: its keys are forgotten, its connection ends, nothing is released to it, and the verdict is
in the evidence log. Requests it had not begun to answer go to others.

Steps of one sweep:
 1. the collateral of every known binding is brought up to date; what cannot be had is missing;
 2. each is judged under the policy in force, at the time now;
 3. a refused one is fenced;
 4. the refusal is logged; an acceptance was, when the worker was admitted.
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from attestation.result import AppraisedEvidence, Refused
from wire.errors import UnavailableError

from .admission import Collect
from .appraiser import Appraiser
from .attributes import Attr, digest_text
from .clock import Clock
from .journal import Event, Journal
from .ledger import Ledger
from .metrics import Metric
from .registry import Registry
from .roster import Roster
from .session import Epoch
from .telemetry import Telemetry
from .verdicts import log_verdict


@dataclass(slots=True)
class Reappraisal:
    """Judges again what is admitted.

    Args:
        appraiser: holds the policy in force.
        collect: finds collateral.
    """

    appraiser: Appraiser
    collect: Collect
    registry: Registry
    roster: Roster
    ledger: Ledger
    telemetry: Telemetry
    journal: Journal
    clock: Clock

    async def sweep(self) -> int:
        """Judge every known binding once; the number of those fenced."""
        known = [self.registry.epoch(bh) for bh in self.registry.admitted()]
        epochs = [epoch for epoch in known if epoch is not None]
        # Together: a vendor that is slow to answer for one must not keep another in service.
        return sum(await asyncio.gather(*(self._again(epoch) for epoch in epochs)))

    async def _again(self, epoch: Epoch) -> bool:
        collateral = await self.collect(epoch.presented.evidence)  # 1
        await asyncio.sleep(0)  # requests come between two appraisals
        policy = self.appraiser.policy.digest
        # Keys past their end still open what waited for them; their end is no reason to fence.
        now = min(self.clock.wall(), epoch.appraised.binding.exp - 1)
        verdict = self.appraiser.judge(epoch.presented, now, collateral)  # 2
        if isinstance(verdict, AppraisedEvidence):
            if verdict is not epoch.appraised:
                self.registry.renew(
                    replace(epoch, appraised=verdict, collateral=collateral, policy=policy)
                )
            return False
        self.telemetry.count(Metric.ATTEST_FAILURES, 1, {Attr.REASON: verdict.codes[0]})
        # 3, before 4: a log that takes no entry must not keep a refused worker in service.
        self.roster.fence(epoch.bh)
        self.journal.write(
            Event.WORKER_FENCED,
            {Attr.BINDING: digest_text(epoch.bh), Attr.REASON: verdict.codes[0]},
            level=logging.WARNING,
        )
        await self._log(epoch, policy, verdict)  # 4
        return True

    async def _log(self, epoch: Epoch, policy: str, verdict: Refused) -> None:
        try:
            await log_verdict(self.ledger, epoch.presented, policy, verdict)
        except UnavailableError as error:
            self.journal.write(Event.LOG_FAILED, level=logging.ERROR, error=error)
