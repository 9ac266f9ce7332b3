"""The verified directory a client works from, and the log head it never goes back behind.

Changed only inside `Exclusive` steps, so one exchange at a time decides what is remembered.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from evidence.checkpoint import Checkpoint, peek_checkpoint
from evidence.directory import (
    DOCUMENT_MAX,
    TrustedSnapshot,
    check_growth,
    peek_head,
    verify_directory,
)
from wire.errors import (
    ConfigError,
    DirectoryError,
    ForkError,
    MalformedError,
    PolicyExpiredError,
    RollbackError,
    UnavailableError,
)

from .clock import utc_text
from .commands import Recall, Remember, Steps
from .served import get, proof
from .state import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.policy import Policy
    from evidence.checkpoint import SignedCheckpoint

    from .report import Report

REFRESH_INTERVAL_S: Final = 5.0  # between refreshes a gateway's error asked for: no request storms
EXPIRY_MARGIN_S: Final = 15  # fetch a new list this long before the old one ends
SWAP_TRIES: Final = 4  # another process may move the stored head while we verify ours
HEADS_KEPT: Final = 256  # verified heads kept in memory, so concurrent receipts need one proof each

STEP_POLICY: Final = "1 policy is in force"
STEP_DIRECTORY: Final = "2 directory: signature, age, log entry, growth"
STEP_REMEMBER: Final = "3 log head remembered"


@dataclass(slots=True)
class DirectoryView:
    """What is verified about the deployment's list of workers.

    Attributes:
        policy: the tenant's policy.
        clock: Unix seconds.
        tick: monotonic seconds.
        snapshot: the verified list, or None before the first verification.
        generation: grows with every verification.
        head: newest verified log head.
    """

    policy: Policy
    clock: Callable[[], int]
    tick: Callable[[], float]
    snapshot: TrustedSnapshot | None = None
    generation: int = 0
    head: SignedCheckpoint | None = None
    _forced_at: float | None = None
    _heads: OrderedDict[int, bytes] = field(default_factory=OrderedDict)

    def wait_for_refresh(self) -> float:
        """Seconds until a refresh that an error asked for is allowed; 0 the first time."""
        if self._forced_at is None:
            return 0.0
        return max(0.0, self._forced_at + REFRESH_INTERVAL_S - self.tick())

    def ensure(self, report: Report, not_generation: int | None = None) -> Steps[TrustedSnapshot]:
        """A snapshot that is valid now and is not of the generation that proved useless."""
        check_policy_window(self.policy, self.clock(), report)
        snapshot = self.snapshot
        useless = not_generation is not None and not_generation == self.generation
        if snapshot is not None and not useless and not self._ending(snapshot):
            return snapshot
        if useless:
            self._forced_at = self.tick()
        return (yield from self.refresh(report))

    def refresh(self, report: Report) -> Steps[TrustedSnapshot]:
        """Fetch, verify and remember the directory: protocol §3.2, nothing taken over from before
        but what makes a rollback or a fork visible."""
        origin = self._origin()
        for _ in range(SWAP_TRIES):
            stored: Seen | None = yield Recall(origin)
            with report.step(STEP_DIRECTORY) as detail:
                snapshot = yield from self._verified(stored)
                head = snapshot.entry.checkpoint
                detail.text = (
                    f"{len(snapshot.workers)} workers, seq {snapshot.seq}, log size {head.size}"
                )
            with report.step(STEP_REMEMBER) as detail:
                new = Seen(head.note, max(snapshot.entry.index, self._last_leaf(stored)))
                swapped: bool = yield Remember(origin, stored, new)
                detail.text = f"size {head.size}, snapshot at {snapshot.entry.index}"
            if swapped:
                self.snapshot, self.generation = snapshot, self.generation + 1
                self._keep(head)
                return snapshot
        raise UnavailableError(
            f"client state: changed {SWAP_TRIES} times while the directory was verified",
            hint="many clients share this state folder; try again",
        )

    def extend(self, new: SignedCheckpoint, at_least: int) -> Steps[None]:
        """Link a head that came with a receipt to what is verified.

        Args:
            new: signed by a pinned key.
            at_least: size known when the request was sent; the log had at least that many entries
                when it logged the receipt.

        Raises:
            RollbackError: smaller than `at_least`.
            ForkError: not of the same history.
        """
        if new.size < at_least:
            raise RollbackError(
                f"receipt: log of at least {at_least} entries expected, found {new.size}"
            )
        head = self.head
        assert head is not None, "a request was sent, so a directory was verified"
        known = self._heads.get(new.size)
        if known is not None:
            if not hmac.compare_digest(known, new.root):
                raise ForkError(
                    f"receipt: the log head known at size {new.size} expected, found another",
                    hint="keep the receipt file: two signed heads of one size are proof of a fork",
                )
            return
        old, young = (head, new) if head.size < new.size else (new, head)
        path = yield from proof(f"/v1/log/consistency?first={old.size}&second={young.size}")
        check_growth(old.checkpoint, young.checkpoint, path)
        self._keep(new)

    def persist(self) -> Steps[None]:
        """Store the newest head seen, for the next run."""
        head, snapshot = self.head, self.snapshot
        if head is None or snapshot is None:
            return
        stored: Seen | None = yield Recall(self._origin())
        if stored is None or peek_checkpoint(stored.checkpoint).size < head.size:
            new = Seen(head.note, max(snapshot.entry.index, self._last_leaf(stored)))
            # Losing the swap means another process remembered something newer: nothing to do.
            yield Remember(self._origin(), stored, new)

    def _verified(self, stored: Seen | None) -> Steps[TrustedSnapshot]:
        document = yield from get("/v1/keys", DOCUMENT_MAX * 2)
        last = self._known(stored)
        size = peek_head(document).size
        path: tuple[bytes, ...] = ()
        if last is not None and 0 < last.size < size:
            path = yield from proof(f"/v1/log/consistency?first={last.size}&second={size}")
        return verify_directory(
            document,
            self.policy,
            self.clock(),
            last,
            path,
            last_leaf=self._last_leaf(stored),
        )

    def _known(self, stored: Seen | None) -> Checkpoint | None:
        """The larger of the head on disk and the head in memory.

        Both were verified; they may come from different histories if two processes were shown
        different logs, which the proof from either to the next head brings to light.
        """
        mine = None if self.head is None else self.head.checkpoint
        if stored is None:
            return mine
        try:
            theirs = peek_checkpoint(stored.checkpoint)
        except MalformedError as error:
            raise ConfigError(f"client state: {error.message}") from error
        if mine is None or theirs.size > mine.size:
            return theirs
        if theirs.size == mine.size and theirs.root != mine.root:
            raise ForkError(f"client state: two log heads of size {mine.size} were seen")
        return mine

    def _last_leaf(self, stored: Seen | None) -> int:
        mine = 0 if self.snapshot is None else self.snapshot.entry.index
        return max(mine, 0 if stored is None else stored.snapshot_leaf)

    def _keep(self, head: SignedCheckpoint) -> None:
        self._heads[head.size] = head.root
        while len(self._heads) > HEADS_KEPT:
            self._heads.popitem(last=False)
        if self.head is None or head.size > self.head.size:
            self.head = head

    def _ending(self, snapshot: TrustedSnapshot) -> bool:
        age_limit = snapshot.issued + self.policy.directory_max_age_s
        return self.clock() >= min(snapshot.expires, age_limit) - EXPIRY_MARGIN_S

    def _origin(self) -> str:
        if self.policy.log_origin is None:
            raise DirectoryError(
                "policy: found no log, expected log.origin and log.vkeys",
                hint="a client needs the deployment's log key in its policy",
            )
        return self.policy.log_origin


def check_policy_window(policy: Policy, now: int, report: Report) -> None:
    """Step 1: the policy itself is in force.

    Raises:
        PolicyExpiredError: it is not, or not yet.
    """
    with report.step(STEP_POLICY) as detail:
        if not policy.not_before <= now < policy.expires:
            state = "not yet in force" if now < policy.not_before else "expired"
            raise PolicyExpiredError(
                f"policy {policy.id!r} is {state}: found {utc_text(now)}, expected "
                f"{utc_text(policy.not_before)} to {utc_text(policy.expires)}",
                hint="install the tenant's current policy file",
            )
        detail.text = f"{policy.id!r} seq {policy.seq}, {policy.digest}"
