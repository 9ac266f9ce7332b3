"""Steps 6 to 10 and 12 of `verify`: is a listed worker what list, log and evidence say it is?

The order is the order of trust: bytes that hash to the listed name, a verdict that everybody can
see in the log, then our own judgement of the raw evidence. A gateway's verdict never replaces ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from attestation.appraise import appraise
from attestation.result import AppraisedEvidence
from evidence.entry import VerifiedEntry, verify_logged
from evidence.events import ATTEST_VERDICT
from evidence.merkle import leaf_hash, verify_inclusion
from wire.errors import AttestationError, MalformedError, ReceiptError
from wire.excerpt import listed
from wire.ids import b64u, bh_of
from wire.suites import strongest
from wire.wraps import Candidate

from .beacon import Dated, date_beacon
from .live_challenge import LiveChallenge
from .ping import ping
from .served import get, proof
from .workers import (
    _VERIFIER,
    DOCUMENT_REPLY_MAX,
    BindingDocument,
    VerifiedWorker,
    parse_binding_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attestation.evidence import Evidence
    from attestation.examined import CollateralSet
    from attestation.policy import Policy
    from evidence.directory import WorkerEntry

    from .commands import Steps
    from .directory import DirectoryView
    from .report import Report

STEPS: Final = (
    "6 binding is the listed one",
    "7 verdict is in the log",
    "8 live evidence",
    "9 evidence appraised under the policy",
    "10 key is usable",
)
STEP_PING: Final = "12 key answers a ping"


@dataclass(frozen=True, slots=True)
class WorkerChecks:
    """Checks one worker under one policy, against one verified directory.

    Attributes:
        live: ask for live evidence of every kind (step 8), not only where the kind needs it.
        strict: also send a ping that only the holder of the key can answer (step 12).
        own: finds the client's own collateral, used instead of what came; None uses that.
        admit: refuses accepted evidence whose collateral is older than what was seen before.
    """

    policy: Policy
    clock: Callable[[], int]
    rng: Callable[[int], bytes]
    directory: DirectoryView
    live: bool = False
    strict: bool = False
    own: Callable[[Sequence[Evidence], int], CollateralSet] | None = None
    admit: Callable[[AppraisedEvidence], None] | None = None

    def run(self, entry: WorkerEntry, report: Report) -> Steps[VerifiedWorker]:
        """Steps 6 to 10, and 12 where `strict`.

        Raises:
            AttestationError: with the reasons.
            GatewayError: the worker's documents were not served; it may be gone.
            WorkerNotice, StreamTruncated: it could not answer the ping.
        """
        mark = f"{b64u(entry.bh)[:8]} "
        with report.step(mark + STEPS[0]) as detail:  # 6
            path = f"/v1/keys/{b64u(entry.bh)}"
            document = parse_binding_document((yield from get(path, DOCUMENT_REPLY_MAX)))
            if bh_of(document.binding) != entry.bh:
                raise _refused("binding_hash_mismatch", "binding: not the one the list names")
            if self.own is not None:
                found = self.own(document.evidence, self.clock())
                document = replace(document, collateral=found)
            detail.text = f"bh {b64u(entry.bh)}"
        with report.step(mark + STEPS[1]) as detail:  # 7
            verdict = yield from self._verdict(entry, document)
            detail.text = f"leaf {verdict.index}"
        with report.step(mark + STEPS[2]) as detail:  # 8
            challenge = LiveChallenge(self.policy, self.clock, self.rng, self.live)
            live = yield from challenge.run(document, report, f"{mark}8.")
            detail.text = "not needed for this kind" if live is None else "answers our nonce"
        with report.step(mark + STEPS[3]) as detail:  # 9
            dated = yield from self._dated(document)
            report.include(dated.checks, f"{mark}9.")
            result = appraise(
                document.binding,
                document.evidence,
                document.posture,
                self.policy,
                self.clock(),
                activation=None if live is None else live.activation,
                beacon_time=dated.time,
                collateral=document.collateral,
            )
            report.include(result.checks, f"{mark}9.")
            if not isinstance(result, AppraisedEvidence):
                first = result.reasons[0]
                raise AttestationError(
                    f"worker {b64u(entry.bh)[:8]}: {first.detail}", reasons=result.codes
                )
            if result.binding.nonce is not None:
                # Evidence made for somebody's challenge is not the worker's listed evidence:
                # whoever asked chose the nonce, and with it could give one worker many bindings.
                raise _refused("nonce_unexpected", "nonce: found one that nobody here asked for")
            if live is not None:
                live.check_kind(result)
            if self.admit is not None:
                self.admit(result)
            detail.text = f"trust {result.trust}, {result.kind}, {result.measurement}"
        with report.step(mark + STEPS[4]) as detail:  # 10
            candidate = self._candidate(entry, result, verdict)
            detail.text = f"suite {candidate.suite}, expires {result.expires}"
        worker = VerifiedWorker(candidate, result, document, verdict, _VERIFIER)
        if self.strict:
            with report.step(mark + STEP_PING) as detail:  # 12
                yield from ping(worker, self.policy, self.clock(), self.rng)
                detail.text = f"key {b64u(worker.kid)}"
        return worker

    def _verdict(self, entry: WorkerEntry, document: BindingDocument) -> Steps[VerifiedEntry]:
        """Step 7. The leaf must lie under *our* head: a proof to some other signed head would let
        the log show this verdict to us alone."""
        origin, head = self.policy.log_origin, self.directory.head
        assert origin is not None
        assert head is not None, "a directory was verified"
        try:
            verdict = verify_logged(document.verdict, origin, self.policy.log_vkeys)
        except ReceiptError as error:
            raise _refused("verdict_invalid", f"verdict: {error.message}") from error
        if verdict.index != entry.leaf:
            raise _refused("verdict_invalid", f"verdict: leaf {entry.leaf} expected")
        if verdict.checkpoint.size != head.size:
            path = yield from proof(f"/v1/log/inclusion?index={entry.leaf}&size={head.size}")
        else:
            path = document.verdict.proof
        try:
            leaf = leaf_hash(document.verdict.leaf)
            verify_inclusion(leaf, verdict.index, head.size, path, head.root)
        except MalformedError as error:
            raise _refused("verdict_invalid", f"verdict: {error.message}") from error
        body = verdict.event.body
        if verdict.event.type != ATTEST_VERDICT or body["bh"] != b64u(entry.bh) or not body["ok"]:
            raise _refused("verdict_invalid", "verdict: a positive one for this binding expected")
        return verdict

    def _dated(self, document: BindingDocument) -> Steps[Dated]:
        """The time of the binding's beacon, for step 9."""
        head = self.directory.head
        assert head is not None, "a directory was verified"
        return (yield from date_beacon(document, self.policy, head))

    def _candidate(
        self, entry: WorkerEntry, appraised: AppraisedEvidence, verdict: VerifiedEntry
    ) -> Candidate:
        """Step 10."""
        binding = appraised.binding
        suite = strongest(
            (kem.suite for kem in binding.kems), allow_x25519=not self.policy.require_pq
        )
        kem = next((item for item in binding.kems if item.suite == suite), None)
        if kem is None:
            raise _refused("suite_not_accepted", "kems: found no suite the policy accepts")
        if kem.kid not in entry.kids:
            raise _refused(
                "kid_not_listed",
                f"kid: found {b64u(kem.kid)} in the binding, expected one the directory lists: "
                f"{listed(map(b64u, entry.kids))}",
            )
        body = verdict.event.body
        # The log must not call this worker more than its evidence is.
        if (body["trust"], body["measurement"]) != (appraised.trust, appraised.measurement):
            raise _refused(
                "verdict_mismatch", "verdict: the trust and measurement we found expected"
            )
        return Candidate(kem.kid, kem.suite, kem.pk)


def _refused(code: str, message: str) -> AttestationError:
    return AttestationError(message, reasons=(code,))
