"""Admitted workers are judged again: on a timer, and when the policy or the collateral changed.

An admission is a verdict of its moment. A policy that is withdrawn, a certificate revoked, a
platform found weak: a worker admitted before must meet what is demanded now. One that does not is
fenced: its keys are forgotten, its connection ends, nothing is released to it, and the verdict is
in the evidence log. Requests it had not begun to answer go to others.

Steps of one sweep:
 1. each known binding is judged with the collateral it was last judged with, under the policy in
    force, at the time now: no vendor is asked, so none can delay this, and workers that are here
    come before those that are gone;
 2. a refused one is fenced, unless collateral past its time is all that speaks against it;
 3. for those left the collateral is brought up to date, and they are judged with that; a refused
    one is fenced;
 4. a refusal is logged; an acceptance was, when the worker was admitted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from attestation.evidence import Evidence
from attestation.examined import CollateralSet
from attestation.result import AppraisedEvidence, Refused
from wire.errors import AnchorholdError

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

#: Brings the vendors' statements about evidence up to date.
Refresh = Callable[[Sequence[Evidence]], Awaitable[CollateralSet]]
#: Bindings whose collateral is brought up to date at once.
TOGETHER = 4
#: What newer collateral may mend.
_PAST = frozenset(
    {
        "certificate_not_valid_at_time", "collateral_expired", "collateral_missing", "crl_expired",
        "crl_not_yet_valid", "revocation_not_checked", "tcb_not_proved",
    }
)  # fmt: skip


@dataclass(slots=True)
class Reappraisal:
    """Judges again what is admitted.

    Args:
        appraiser: holds the policy in force.
        refresh: brings collateral up to date.
    """

    appraiser: Appraiser
    refresh: Refresh
    registry: Registry
    roster: Roster
    ledger: Ledger
    telemetry: Telemetry
    journal: Journal
    clock: Clock

    async def sweep(self) -> int:
        """Judge every known binding; the number of those fenced."""
        known = [self.registry.epoch(bh) for bh in self.registry.admitted()]
        fenced = 0
        left = []
        for epoch in known:
            if epoch is None:
                continue
            verdict, policy = await self._judge(epoch, epoch.collateral)  # 1
            if isinstance(verdict, Refused) and not set(verdict.codes) <= _PAST:
                await self._fence(epoch, policy, verdict)  # 2
                fenced += 1
            else:
                left.append(epoch)
        turn = asyncio.Semaphore(TOGETHER)
        # Together: a vendor that is slow to answer for one must not keep another in service.
        return fenced + sum(await asyncio.gather(*(self._renewed(item, turn) for item in left)))

    async def _renewed(self, epoch: Epoch, turn: asyncio.Semaphore) -> bool:
        """Step 3 for one binding; whether it was fenced."""
        async with turn:
            collateral = await self.refresh(epoch.presented.evidence)
            verdict, policy = await self._judge(epoch, collateral)
            if isinstance(verdict, Refused):
                await self._fence(epoch, policy, verdict)
                return True
            if verdict is not epoch.appraised:
                self.registry.renew(
                    replace(epoch, appraised=verdict, collateral=collateral, policy=policy)
                )
            return False

    async def _judge(
        self, epoch: Epoch, collateral: CollateralSet
    ) -> tuple[AppraisedEvidence | Refused, str]:
        # Keys past their end still open what waited for them; their end is no reason to fence.
        now = min(self.clock.wall(), epoch.appraised.binding.exp - 1)
        return await self.appraiser.judge(epoch.presented, now, collateral)

    async def _fence(self, epoch: Epoch, policy: str, verdict: Refused) -> None:
        self.telemetry.count(Metric.ATTEST_FAILURES, 1, {Attr.REASON: verdict.codes[0]})
        # Before step 4: a log that takes no entry must not keep a refused worker in service.
        self.roster.fence(epoch.bh)
        self.journal.write(
            Event.WORKER_FENCED,
            {Attr.BINDING: digest_text(epoch.bh), Attr.REASON: verdict.codes[0]},
            level=logging.WARNING,
        )
        await self._log(epoch, policy, verdict)  # 4

    async def _log(self, epoch: Epoch, policy: str, verdict: Refused) -> None:
        try:
            await log_verdict(self.ledger, epoch.presented, policy, verdict)
        except AnchorholdError as error:
            # It stays fenced, and the sweep goes on to the next: one verdict that cannot be
            # written must not keep another refused worker in service.
            self.journal.write(
                Event.VERDICT_UNLOGGED,
                {Attr.BINDING: digest_text(epoch.bh)},
                level=logging.ERROR,
                error=error,
            )
