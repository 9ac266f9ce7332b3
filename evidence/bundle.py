"""Offline verification of a receipt bundle: one file, one policy, no network.

The reader's policy says which logs, roots, measurements, models and trust count for *them*. Whether
the policy is itself in force is judged at `now`; everything about the worker at the time of the
request, because keys that were good then have long expired. What was not checked is never a pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from attestation.appraise import appraise
from attestation.binding import Binding, parse_binding
from attestation.reasons import STATE
from attestation.result import AppraisedEvidence
from wire.errors import AnchorholdError, MalformedError, ReceiptError
from wire.ids import b64u, sha256_tag
from wire.limits import CLOCK_SKEW_S, LIFE_MAX_S

from .archive import Bundle, build_bundle, parse_bundle
from .beacon import verify_beacon
from .checkpoint import SignedCheckpoint, open_checkpoint
from .events import ATTEST_VERDICT, Event, parse_event
from .leaf import open_leaf
from .merkle import leaf_hash, verify_consistency, verify_inclusion
from .receipt import parse_statement, verify_statement
from .record import verify_event_opens
from .report import AuditCheck, Report, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.policy import Policy

    from .entry import Logged

__all__ = ["build_bundle", "verify_bundle"]

# Reasons for which genuine evidence is not enough for *this* policy. Every other reason means that
# something is not what it claims to be. Codes: attestation.appraise.
POLICY_REASONS: Final = frozenset(
    {
        "policy_not_yet_valid",
        "policy_expired",
        "version_not_accepted",
        "role_not_accepted",
        "audience_mismatch",
        "binding_life_too_long",
        "denied",
        "suite_not_accepted",
        "service_policy_not_accepted",
        "model_missing",
        "model_digest_mismatch",
        "beacon_missing",
        "beacon_unverified",
        "beacon_stale",
        "posture_missing",
        "posture_below_policy",
        "kind_not_accepted",
        "software_not_allowed",
        "simulated_not_allowed",
        "activation_missing",
        "measurement_not_accepted",
        *STATE,
    }
)


def verify_bundle(raw: bytes, policy: Policy, now: int) -> Report:
    """Verify a bundle file under a policy; `now` is unix seconds. Bad data never raises.

    Checks, in order; one that needs a failed one is listed as not run:
        1 format        size, JSON, members (its failure makes the file unreadable)
        2 statement     strict COSE, algorithm on the list, claims well formed
        3 binding       well formed
        4 names         the statement speaks of this binding: bh, kid, wid, boot, model, policy
        5 signature     statement signed by the binding's key
        6 time          the request ended while the binding's key could still be in use
        7 beacon        the log entry the binding's beacon ends in, under the verdict's head
        8 evidence.*    every step of the appraisal, at the time of the request
        9 attestation   the statement names this evidence, measurement and trust
        10 event        the leaf opens to an event that commits to this statement
        11 checkpoint   signed by a pinned log key
        12 inclusion    the leaf stands under that checkpoint
        13 verdict      an earlier entry says this binding was found good, under a signed head
        14 one_history  both heads belong to one growing log
        15 policy       the policy is in force at `now`
    """
    try:  # 1
        bundle = parse_bundle(raw)
    except (MalformedError, ReceiptError) as error:
        check = AuditCheck("format", False, error.message, (named("file", raw),))
        return Report((check,), None, {}, readable=False)
    audit = _Audit(bundle, policy, now)
    audit.note("format", True, "anchorhold-receipt/1", named("file", raw))
    audit.run()
    return Report(tuple(audit.checks), audit.trust, audit.claims)


class _NotRun(Exception):  # noqa: N818 -- not an error: the check's input is not there
    """A check that could not run; the text says why."""


class _Audit:
    """Runs checks 2 to 15 over one bundle and keeps their account."""

    def __init__(self, bundle: Bundle, policy: Policy, now: int) -> None:
        self.bundle = bundle
        self.policy = policy
        self.now = now
        self.checks: list[AuditCheck] = []
        self.trust: str | None = None
        self.claims: dict[str, Any] = {}
        self._said: dict[str, Any] = {}
        self._binding: Binding | None = None
        self._beacon_time: int | None = None
        self._appraised: AppraisedEvidence | None = None
        self._event: Event | None = None
        self._head: SignedCheckpoint | None = None
        self._verdict_head: SignedCheckpoint | None = None

    def run(self) -> None:
        """Run every check; the order is the specification's."""
        bundle, record = self.bundle, self.bundle.record
        statement = named("statement", record.statement)
        binding = named("binding", bundle.binding)
        leaf = named("leaf", record.logged.leaf)
        note = named("checkpoint", record.logged.checkpoint.encode())
        self.check("statement", self._statement, statement)  # 2
        self.check("binding", self._parse_binding, binding)  # 3
        self.check("names", self._names, statement, binding)  # 4
        self.check("signature", self._signature, statement, binding)  # 5
        self.check("time", self._time, statement, binding)  # 6
        dated = () if bundle.beacon is None else (named("beacon leaf", bundle.beacon.entry.leaf),)
        self.check("beacon", self._beacon, binding, *dated)  # 7
        self._appraise()  # 8
        bodies = [named(f"evidence {item.kind}", item.body) for item in bundle.evidence]
        self.check("attestation", self._attestation, statement, *bodies)  # 9
        blind = named("blind", record.blind)
        self.check("event", self._commitment, statement, blind, leaf)  # 10
        self.check("checkpoint", self._checkpoint, note)  # 11
        self.check("inclusion", self._inclusion, leaf, note)  # 12
        verdict = bundle.verdict
        named_verdict = () if verdict is None else (named("verdict leaf", verdict.leaf),)
        self.check("verdict", self._verdict, *named_verdict)  # 13
        self.check("one_history", self._one_history, note)  # 14
        in_force = self.policy.not_before <= self.now < self.policy.expires
        self.note(  # 15
            "policy",
            in_force,
            f"{self.policy.id} number {self.policy.seq}, {self.policy.digest}"
            + ("" if in_force else f": not in force at {self.now}"),
            demand_policy=True,
        )

    def note(
        self, name: str, ok: bool | None, detail: str, *relied_on: str, demand_policy: bool = False
    ) -> None:
        """Write one check down."""
        demand: Any = "policy" if demand_policy else "genuine"
        self.checks.append(AuditCheck(name, ok, detail, relied_on, demand))

    def check(self, name: str, step: Callable[[], str], *relied_on: str) -> None:
        """Run one check; its step returns what it found, or raises."""
        try:
            self.note(name, True, step(), *relied_on)
        except _NotRun as missing:
            self.note(name, None, f"not run: {missing}", *relied_on)
        except AnchorholdError as error:
            self.note(name, False, error.message, *relied_on)

    # ------------------------------------------------------------ the worker's word

    def _statement(self) -> str:
        statement = parse_statement(self.bundle.record.statement)
        self._said = dict(statement.claims)
        return f"request {self._said['rid']}, number {self._said['wseq']} of its worker"

    def _parse_binding(self) -> str:
        self._binding = parse_binding(self.bundle.binding)
        return f"worker {self._binding.wid}, epoch {self._binding.epoch}"

    def _names(self) -> str:
        said, binding = self._needs_statement(), self._needs_binding()
        served = {(model.name, model.digest) for model in binding.models}
        pairs = {
            "binding hash": (said["att"]["bh"], b64u(binding.bh)),
            "worker id": (said["wid"], binding.wid),
            "boot": (said["boot"], b64u(binding.boot)),
            "service policy": (said["pol"]["service"], binding.policy),
        }
        for what, (found, expected) in pairs.items():
            if found != expected:
                raise ReceiptError(f"statement names another {what} than the binding")
        if said["kid"] not in {b64u(kid) for kid in binding.kids().values()}:
            raise ReceiptError("statement names a key that is not in the binding")
        if (said["model"]["name"], said["model"]["digest"]) not in served:
            raise ReceiptError("statement names a model that is not in the binding")
        return f"model {said['model']['name']}, {said['model']['digest']}"

    def _signature(self) -> str:
        self._needs_statement()
        binding = self._needs_binding()
        self.claims = verify_statement(self.bundle.record.statement, binding.sig_pk)
        return f"Ed25519 by {binding.sig_pk.hex()[:16]}"

    def _time(self) -> str:
        said, binding = self._needs_statement(), self._needs_binding()
        begin, end = said["t0"] // 1000, said["t1"] // 1000
        # a queued request may still be opened for as long as requests live
        if begin < binding.nbf - CLOCK_SKEW_S or end >= binding.exp + LIFE_MAX_S:
            raise ReceiptError(
                f"time of {binding.nbf} to {binding.exp} and {LIFE_MAX_S} s expected, "
                f"found {begin} to {end}"
            )
        return f"{begin} to {end} by the worker's clock"

    # ------------------------------------------------------------ the worker itself

    def _beacon(self) -> str:
        """Check 7. A head of its own would need a proof of its own that it is of this history."""
        beacon, shown = self._needs_binding().beacon, self.bundle.beacon
        if beacon is None:
            if shown is not None:
                raise ReceiptError("no proof for a binding that names no beacon expected")
            return "the binding names none"
        if shown is None:
            raise _NotRun("the bundle does not show the log entry of the binding's beacon")
        origin = self.policy.log_origin
        if origin is None or not self.policy.log_vkeys:
            raise _NotRun("the policy pins no log")
        entries = (self.bundle.record.logged, self.bundle.verdict)
        if all(item is None or shown.entry.checkpoint != item.checkpoint for item in entries):
            raise ReceiptError("beacon: the head of the receipt or of the verdict expected")
        verified = verify_beacon(beacon, shown, origin, self.policy.log_vkeys)
        self._beacon_time = verified.time
        return f"entry {shown.entry.index}, at {verified.time}"

    def _appraise(self) -> None:
        """Check 8. The policy's own window is check 15: here it is opened to the request's time."""
        if self._binding is None or not self._said:
            self.note("evidence", None, "not run: needs the statement and the binding")
            return
        at = max(self._binding.nbf, min(self._said["t0"] // 1000, self._binding.exp - 1))
        opened = replace(
            self.policy,
            not_before=min(self.policy.not_before, at),
            expires=max(self.policy.expires, at + 1),
        )
        bundle = self.bundle
        result = appraise(
            bundle.binding,
            bundle.evidence,
            bundle.posture,
            opened,
            at,
            beacon_time=self._beacon_time,
            collateral=bundle.collateral,
        )
        reasons = () if isinstance(result, AppraisedEvidence) else result.reasons
        codes = {reason.step: reason.code for reason in reasons}
        for check in result.checks:
            code = codes.get(check.step, "")
            self.note(
                f"evidence.{check.step}",
                check.ok,
                f"{code}: {check.detail}" if code else check.detail,
                demand_policy=code in POLICY_REASONS,
            )
        if isinstance(result, AppraisedEvidence):
            self._appraised = result
            self.trust = result.trust

    def _attestation(self) -> str:
        said, claimed = self._needs_statement(), self._said["att"]
        bodies = {item.kind: item.body for item in self.bundle.evidence}
        if sha256_tag(bodies.get(claimed["type"], b"")) != claimed["evidence"]:
            raise ReceiptError("statement names other evidence than the bundle holds")
        if self._binding is not None and claimed["measurement"] != self._binding.image:
            raise ReceiptError("statement names another measurement than the binding")
        if self._appraised is None:
            raise _NotRun("the evidence was not accepted")
        proved = (self._appraised.kind, self._appraised.trust, self._appraised.measurement)
        if proved != (claimed["type"], claimed["trust"], claimed["measurement"]):
            raise ReceiptError("statement claims another kind, trust or measurement than proved")
        return f"trust {said['att']['trust']}, {claimed['measurement']}"

    # ------------------------------------------------------------ the log

    def _commitment(self) -> str:
        self._needs_statement()
        record, logged = self.bundle.record, self.bundle.record.logged
        open_leaf(logged.leaf, logged.event, logged.blind)
        self._event = parse_event(logged.event)
        verify_event_opens(self._event, self._said, record.statement, record.blind)
        return f"event {self._event.eid} at {self._event.ts} ms"

    def _checkpoint(self) -> str:
        self._head = self._open_head(self.bundle.record.logged)
        return f"{self._head.checkpoint.origin} at size {self._head.size}"

    def _inclusion(self) -> str:
        logged = self.bundle.record.logged
        self._include(logged, self._head)
        return f"index {logged.index}"

    def _verdict(self) -> str:
        binding, verdict = self._needs_binding(), self.bundle.verdict
        if verdict is None:
            raise _NotRun("the bundle holds no verdict entry")
        open_leaf(verdict.leaf, verdict.event, verdict.blind)
        event = parse_event(verdict.event)
        if event.type != ATTEST_VERDICT:
            raise ReceiptError(f"verdict of type {ATTEST_VERDICT} expected, found {event.type}")
        if event.body["bh"] != b64u(binding.bh) or event.body["ok"] is not True:
            raise ReceiptError("a positive verdict on this binding expected")
        if verdict.index >= self.bundle.record.logged.index:
            raise ReceiptError("a verdict logged before the receipt expected")
        head = self._open_head(verdict)
        self._include(verdict, head)
        self._verdict_head = head
        return f"index {verdict.index}, trust {event.body['trust']}"

    def _one_history(self) -> str:
        head, other = self._head, self._verdict_head
        if head is None or other is None:
            raise _NotRun("needs both signed heads")
        if head.size == other.size:
            if head.root != other.root:
                raise ReceiptError(f"one root at size {head.size} expected, found two: a fork")
            return f"one head at size {head.size}"
        if not self.bundle.consistency:
            raise _NotRun("the bundle holds no consistency proof between its two heads")
        old, new = sorted((head, other), key=lambda item: item.size)
        verify_consistency(old.size, new.size, old.root, new.root, self.bundle.consistency)
        return f"size {old.size} is a prefix of size {new.size}"

    # ------------------------------------------------------------ inputs

    def _needs_statement(self) -> dict[str, Any]:
        if not self._said:
            raise _NotRun("needs the statement")
        return self._said

    def _needs_binding(self) -> Binding:
        if self._binding is None:
            raise _NotRun("needs the binding")
        return self._binding

    def _open_head(self, logged: Logged) -> SignedCheckpoint:
        if self.policy.log_origin is None or not self.policy.log_vkeys:
            raise _NotRun("the policy pins no log")
        return open_checkpoint(logged.checkpoint, self.policy.log_origin, self.policy.log_vkeys)

    @staticmethod
    def _include(logged: Logged, head: SignedCheckpoint | None) -> None:
        if head is None:
            raise _NotRun("needs a signed checkpoint")
        verify_inclusion(leaf_hash(logged.leaf), logged.index, head.size, logged.proof, head.root)
