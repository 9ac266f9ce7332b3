"""Admitted workers are judged again: on a timer, and when the policy or the collateral changed.

An admission is a verdict of its moment. A policy that is withdrawn, a certificate revoked, a
platform found weak: a worker admitted before must meet what is demanded now. One that does not is
fenced: its keys are forgotten, its connection ends, nothing is released to it, and the verdict is
in the evidence log. Requests it had not begun to answer go to others.

 1. each known binding is judged with the collateral it was last judged with, under the policy in
    force, at the time now: no vendor is asked and no file read, so nothing can delay this. An
    acceptance counts from then on: what was admitted for an hour is here for longer;
 2. beside that, it is judged with what the cache has now; no vendor is asked;
 3. beside these, collateral is brought up to date by whoever has it, and it is judged with that.
    Where the cache cannot be used, what it was last judged with counts for a quarter of the
    greatest age that the policy allows, and no longer;
 4. a refused one is fenced. Only where collateral past its time is all that speaks against it,
    steps 1 and 2 each leave it in service for `PAST_S`, in which step 3 may mend that;
 5. a refusal is logged, and nothing above waits for that; an acceptance was, when the worker was
    admitted.

Keys that are offered no longer, and still open what waited for them, are judged like all others,
but for their own end. Where such alone are refused, their worker keeps its newer ones.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from attestation.evidence import Evidence
from attestation.result import AppraisedEvidence, Reason, Refused
from wire.errors import AnchorholdError

from .appraiser import Appraiser
from .attributes import Attr, digest_text
from .clock import Clock
from .found import NONE_COLLECTED, Collected
from .journal import Event, Journal
from .ledger import Ledger
from .metrics import Metric
from .registry import Registry
from .roster import Roster
from .session import Epoch
from .tasks import Tasks
from .telemetry import Telemetry
from .verdicts import log_verdict

#: Whether each of these is to be looked for again.
Stale = Callable[[Sequence[Collected]], Awaitable[Sequence[bool]]]
#: Finds the vendors' statements about evidence, given those that were found before.
Find = Callable[[Sequence[Evidence], Collected], Awaitable[Collected]]
#: Bindings whose collateral is brought up to date at once.
TOGETHER = 4
#: Remembered verdicts between two turns for requests: a fifth of a millisecond. A turn costs more
#: than such a verdict does.
TURN = 16
#: Bindings whose files are looked at in one go.
BATCH = 256
#: The share of the greatest age in which entries are renewed: what the last one may be used beyond.
SPARE_SHARE = 4
#: Seconds in which newer collateral may mend what older does not show. Renewal begins in the last
#: quarter of an entry's time, so this is for a clock that jumped, or a policy that trusts for less.
PAST_S = 30.0
#: Least time between two sweeps, in seconds.
AGAIN_S = 1.0
#: Sweeps in the longest life of a verdict: two fall into its last quarter, where the next is given.
SWEEPS_PER_LIFE = 8
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
        refresh: brings collateral up to date; UnavailableError where the cache cannot be used.
        cached: reads it from the cache alone; likewise.
        stale: tells what neither of them would find as it is.
    """

    appraiser: Appraiser
    refresh: Find
    cached: Find
    stale: Stale
    registry: Registry
    roster: Roster
    ledger: Ledger
    telemetry: Telemetry
    journal: Journal
    clock: Clock
    _unread: dict[bytes, float] = field(default_factory=dict)
    _held_past: dict[bytes, float] = field(default_factory=dict)
    _found_past: dict[bytes, float] = field(default_factory=dict)
    _logging: Tasks = field(default_factory=Tasks)

    async def sweep(self) -> int:
        """All steps for every known binding; the number fenced."""
        return await self.check() + await self.reread() + await self.renew()

    async def check(self) -> int:
        """Step 1, which waits for nobody; the number of those fenced."""
        fenced, known = 0, self._known()
        self._held_past = _of(known, self._held_past)
        for number, epoch in enumerate(known):
            verdict, policy = await self._judge(epoch, epoch.collateral)
            if not isinstance(verdict, Refused):
                self._held_past.pop(epoch.bh, None)
                if self.registry.epoch(epoch.bh) is epoch:  # else newer collateral came meanwhile
                    self._counts(epoch, verdict, epoch.collateral, policy)
            elif not (set(verdict.codes) <= _PAST and self._waits(self._held_past, epoch)):
                fenced += self._fence(epoch, policy, verdict)
            if number % TURN == 0:
                # Most verdicts are remembered, and wait for nothing: requests have a turn here.
                await asyncio.sleep(0)
        return fenced

    async def reread(self) -> int:
        """Step 2, which waits for the cache alone; the number of those fenced."""
        fenced = 0
        for epoch in await self._stale():
            try:
                collateral = await self.cached(epoch.presented.evidence, epoch.collateral)
            except Exception as error:
                if not isinstance(error, AnchorholdError):
                    self.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
                continue  # step 3 says for how long
            fenced += await self._reread(epoch, collateral)
        return fenced

    async def renew(self) -> int:
        """Step 3, which may wait for vendors; the number of those fenced."""
        known = await self._stale()
        self._unread = _of(known, self._unread)
        # What step 2 looks at no more has no wait of step 2's; one of step 1's goes on.
        self._found_past = _of(known, self._found_past)
        turn = asyncio.Semaphore(TOGETHER)
        # Together: a vendor that is slow to answer for one must not keep another in service.
        return sum(await asyncio.gather(*(self._renewed(epoch, turn) for epoch in known)))

    def pause_s(self, longest_s: float) -> float:
        """Seconds until step 1 is due: sooner where verdicts are short, or it put one off."""
        life_s = self.appraiser.policy.result_ttl_s / SWEEPS_PER_LIFE
        due_s = self._due_s(self._held_past)
        return min(longest_s, max(AGAIN_S, life_s if due_s is None else min(life_s, due_s)))

    @property
    def reread_due_s(self) -> float | None:
        """Seconds until step 2 is due for what it left in service; None where nothing was."""
        return self._due_s(self._found_past)

    async def close(self) -> None:
        """Give up on verdicts that are not written yet: the gateway stops."""
        await self._logging.cancel()

    def _known(self) -> list[Epoch]:
        found = [self.registry.epoch(bh) for bh in self.registry.admitted()]
        return [epoch for epoch in found if epoch is not None]

    async def _stale(self) -> list[Epoch]:
        """Those whose collateral is not what it was; all others were judged with it in step 1."""
        known, found = self._known(), list[Epoch]()
        for begin in range(0, len(known), BATCH):
            some = known[begin : begin + BATCH]
            stale = await self.stale([epoch.collateral for epoch in some])
            found += [epoch for epoch, is_stale in zip(some, stale, strict=True) if is_stale]
        return found

    async def _reread(self, epoch: Epoch, found: Collected) -> bool:
        """Step 2 for one binding, with what the cache has; whether it was fenced."""
        verdict, policy = await self._judge(epoch, found)
        if not isinstance(verdict, Refused):
            self._accepted(epoch, verdict, found, policy)
            return False
        # What is in the cache no more, or is too old by now, must not hide what came in meanwhile.
        stands, _ = await self._judge(epoch, found.over(epoch.collateral))
        if isinstance(stands, Refused) and not set(stands.codes) <= _PAST:
            return self._fence(epoch, policy, stands)
        waits = self._waits(self._found_past, epoch)
        return not waits and self._fence(epoch, policy, verdict)

    async def _renewed(self, epoch: Epoch, turn: asyncio.Semaphore) -> bool:
        """Step 3 for one binding; whether it was fenced."""
        async with turn:
            collateral = await self._brought(epoch)
            verdict, policy = await self._judge(epoch, collateral)
            if isinstance(verdict, Refused):
                return self._fence(epoch, policy, verdict)
            self._accepted(epoch, verdict, collateral, policy)
            return False

    def _accepted(
        self, epoch: Epoch, verdict: AppraisedEvidence, collateral: Collected, policy: str
    ) -> None:
        """Newer collateral speaks for it: nothing that older did not show is held against it."""
        self._held_past.pop(epoch.bh, None)
        self._found_past.pop(epoch.bh, None)
        self._counts(epoch, verdict, collateral, policy)

    def _counts(
        self, epoch: Epoch, verdict: AppraisedEvidence, collateral: Collected, policy: str
    ) -> None:
        """What it was judged with counts from now on."""
        if verdict is epoch.appraised and collateral is epoch.collateral:
            return
        self.registry.renew(replace(epoch, appraised=verdict, collateral=collateral, policy=policy))
        if self.clock.wall() >= epoch.offered_until:
            self.roster.changed()  # the directory no longer listed it
            session = self.registry.holder(epoch.bh)
            if session is not None:  # and what waited for it was not released
                self.roster.dispatcher.pump(session)

    def _due_s(self, past: dict[bytes, float]) -> float | None:
        if not past:
            return None
        return max(0.0, min(past.values()) + PAST_S - self.clock.monotonic())

    def _waits(self, past: dict[bytes, float], epoch: Epoch) -> bool:
        """Whether step 4 leaves it in service for now."""
        now = self.clock.monotonic()
        return now < past.setdefault(epoch.bh, now) + PAST_S

    async def _brought(self, epoch: Epoch) -> Collected:
        """Collateral as it is now, or for a while as it was where that cannot be told."""
        try:
            found = await self.refresh(epoch.presented.evidence, epoch.collateral)
        except Exception as error:
            if not isinstance(error, AnchorholdError):
                self.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
            # Whoever uses up this process's files must not take every worker out of service.
            now = self.clock.monotonic()
            spare = self.appraiser.policy.collateral_max_age_s / SPARE_SHARE
            in_time = now < self._unread.setdefault(epoch.bh, now) + spare
            return epoch.collateral if in_time else NONE_COLLECTED
        self._unread.pop(epoch.bh, None)
        return found

    async def _judge(
        self, epoch: Epoch, collateral: Collected
    ) -> tuple[AppraisedEvidence | Refused, str]:
        """The verdict under the policy that is in force when it is given."""
        while True:
            now = self.clock.wall()
            # Keys past their end still open what waited for them; that is no reason to fence.
            grace = now >= epoch.appraised.binding.exp
            try:
                verdict, policy = await self.appraiser.judge(
                    epoch.presented, now, collateral, grace=grace
                )
            except Exception as error:
                # A judgement that cannot be made is a refusal of this one, and the others go on.
                self.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
                reason = Reason("evidence_malformed", "judging it again failed")
                return Refused((reason,), ()), self.appraiser.policy.digest
            if policy == self.appraiser.policy.digest:
                return verdict, policy

    def _fence(self, epoch: Epoch, policy: str, verdict: Refused) -> bool:
        """Fence one, unless that was done meanwhile; whether it was this time."""
        self._held_past.pop(epoch.bh, None)
        self._found_past.pop(epoch.bh, None)
        if self.registry.epoch(epoch.bh) is None:
            return False
        self.telemetry.count(Metric.ATTEST_FAILURES, 1, {Attr.REASON: verdict.codes[0]})
        # Before step 5: a log that is slow, or takes no entry, must not keep a refused worker in
        # service, neither this one nor the next.
        self.roster.refuse(epoch.bh)
        self.journal.write(
            Event.WORKER_FENCED,
            {Attr.BINDING: digest_text(epoch.bh), Attr.REASON: verdict.codes[0]},
            level=logging.WARNING,
        )
        self._logging.start(self._log(epoch, policy, verdict), self.roster.failed)  # 5
        return True

    async def _log(self, epoch: Epoch, policy: str, verdict: Refused) -> None:
        try:
            await log_verdict(self.ledger, epoch.presented, policy, verdict)
        except AnchorholdError as error:
            # It stays fenced.
            self.journal.write(
                Event.VERDICT_UNLOGGED,
                {Attr.BINDING: digest_text(epoch.bh)},
                level=logging.ERROR,
                error=error,
            )


def _of(epochs: Sequence[Epoch], since: dict[bytes, float]) -> dict[bytes, float]:
    """What is kept about these bindings, and about no other."""
    return {epoch.bh: since[epoch.bh] for epoch in epochs if epoch.bh in since}
