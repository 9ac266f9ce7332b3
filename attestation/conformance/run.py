"""One sample through the schemes: examined, judged under the strict rule, compared.

Steps:
 1. the sample's files become evidence and collateral by their roles; the kind's own pinned roots
    are the anchors, and for kinds without any, the roots the index lists; a sample that names a
    root which is none of them asks for a verdict under one that nobody pins;
 2. examine: authentic or not, at the time that is stated, which is no clock's; where none is, as if
    everything had begun and nothing ended;
 3. the sample's binding rule must hold; CPU evidence with GPU evidence beside it must name it, and
    a nonce that the kind has no place for must stand in its report data; GPU evidence that is named
    goes through steps 2 and 4 itself (`gpus`);
 4. judge under the strict rule of the kind, and that no device answers twice;
 5. compare verdicts, reasons and claims with what the index expects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import NONE, NVIDIA_RIM, Anchors
from attestation.examined import FOREVER, Examined, Question
from attestation.formats import pem
from attestation.ledger import Ledger
from attestation.result import Reason
from attestation.schemes import SCHEMES
from attestation.verify.fleet import Fleet
from wire.errors import MalformedError
from wire.excerpt import cut

from .binding_rule import binding_rules
from .codes import generalised
from .differences import differences
from .gpus import Asked, check_distinct, examine_gpus, roles_read
from .pairing import GPU_KINDS, is_revocation, pair_of
from .roles import by_kind
from .stated import (
    ARCH_NAMES,
    claims_of,
    expected_of,
    gpu_nonces,
    nonce_names,
    spelled_nonces,
    unasked,
    unbound,
    unread,
)
from .strict import strict_rule
from .unused import unused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from attestation.scheme import Scheme

    from .binding_rule import BindingRule
    from .index import Index, Sample
    from .pairing import Pair


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sample gave, next to what was expected.

    Attributes:
        id, kind: the sample's.
        authentic: the verdict.
        accepted: under the strict rule; None where the sample expects none.
        reasons: every reason, and the more general codes of each (`codes`).
        differing: claim path to (found, expected) where they differ.
        ignored: file roles that no step read, and inputs that nothing uses.
        faults: sentences, one a difference from what the index expects; empty if it passed.
    """

    id: str
    kind: str
    authentic: bool | None
    accepted: bool | None
    reasons: tuple[Reason, ...]
    differing: Mapping[str, tuple[Any, Any]]
    ignored: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything was as expected."""
        return not self.faults


_ROOT: Final = "root"
_HALF: Final = 64  # hex digits: half of a CPU's report data
_NONCE_ANYWHERE: Final = ("amd-sev-snp-report",)  # guests put it where those of TDs do
_OUT_OF_TIME: Final = ("manifest_expired", "manifest_not_yet_valid")
# Kinds that need no time: their certificates must have held when the youngest began.
_TIMELESS: Final = ("cc-event-log", "corim", "ear-jwt", "nvidia-nras-eat")
_NOT_VALID: Final = "certificate_not_valid_at_time"
_NO_TIME: Final = "verify_at is null, expected a time, since certificates are there"
_UNREAD: Final = "it says what is revoked, and no step read it"
_UNASKED: Final = "it says what is expected, and no step asks for it"
_UNBOUND: Final = "what the key must be bound to is not said"


def run_sample(sample: Sample, index: Index, read: Callable[[str], bytes]) -> Outcome:
    """Run one sample.

    Args:
        sample: the sample.
        index: the index it stands in.
        read: the bytes of one of its files by path; raises `MalformedError` for a file that is
            missing, too large, or not of the digest the index gives.
    """
    scheme = SCHEMES.get(sample.kind)
    if sample.fault:
        return _failed(sample, sample.fault)
    if scheme is None:
        return _failed(sample, f"kind {cut(sample.kind)} is not known; known: {', '.join(SCHEMES)}")
    try:
        files = by_kind(scheme, {role: read(path) for role, path in sample.files.items()})
        pair = pair_of(scheme, files)
        verdict = _verdict(sample, scheme, index, files, pair)
    except MalformedError as error:
        return _failed(sample, error.message)
    examined, elsewhere = verdict.examined, _of_pair(pair) | verdict.asked
    beside = sorted(_beside(scheme, files).keys() - verdict.read)
    beside += [role for role in unused(scheme, files, examined) if role not in verdict.read]
    reasons = (*examined.reasons, *verdict.state)
    accepted = None if sample.strict is None else not reasons
    reasons = (*reasons, *generalised(reasons))
    claims = frozenset(examined.claims)
    # What is asked of GPUs is moot where they are refused: nothing of the CPU's names them.
    moot = pair is not None and bool(reasons)
    # So is what a key is bound to in what is refused, or is signed by nobody: nothing vouches.
    unsigned = examined.authentic is None
    differing = dict(differences(sample.claims, examined.claims, ""))
    return Outcome(
        id=sample.id,
        kind=sample.kind,
        authentic=examined.authentic,
        accepted=accepted,
        reasons=reasons,
        differing=differing,
        ignored=(*beside, *unread(sample, elsewhere, claims)),
        faults=(
            *_faults(sample, examined.authentic, accepted, reasons, differing),
            *(f"file role {role}: {_UNREAD}" for role in beside if is_revocation(role)),
            *(() if moot else _unasked(sample, elsewhere, claims)),
            *(() if unsigned or reasons else _unbound(sample, elsewhere, claims)),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What steps 1 to 4 gave.

    Attributes:
        examined: the evidence of the sample's kind; not authentic either where what it names is
            none.
        state: reasons against its state.
        asked: names of inputs that were asked of GPUs beside it.
        read: the roles that were read for what stands beside the kind's own evidence.
    """

    examined: Examined
    state: tuple[Reason, ...]
    asked: frozenset[str]
    read: frozenset[str]


def _verdict(
    sample: Sample, scheme: Scheme, index: Index, files: Mapping[str, bytes], pair: Pair | None
) -> _Verdict:
    evidence_roles = {*scheme.evidence[0], *scheme.evidence[1]}
    expected = expected_of(sample)
    asks = expected.nonce or None
    anchors = _anchors(scheme, index, files if pair is None else {})
    timed = sample.at is not None
    question = Question(  # 1
        evidence={role: files[role] for role in files if role in evidence_roles},
        collateral={role: files[role] for role in files if role in scheme.collateral},
        anchors=anchors,
        expected=replace(expected, nonce=None if scheme.kind in _NONCE_ANYWHERE else asks),
        now=max(sample.at, 1) if sample.at is not None else 0,  # 0 would say that there is none
        # A stated time is nobody's clock. Where none is, all has begun, and nothing has ended.
        skew=0 if timed else FOREVER,
    )
    examined = _examined(scheme, question, spelled_nonces(sample))  # 2
    if anchors is NONE and examined.authentic is not False:
        examined = _refuted(examined, "untrusted_root", "the sample's root is not pinned")
    state: tuple[Reason, ...] = ()
    if expected.nonce == b"":
        examined, state = _with_empty_nonce(examined)
    rules = _rules(sample, pair)
    loose = pair is not None and not _names_gpus(sample, rules, pair)
    asked = _asked_of_gpus(pair)
    for stated in claims_of(sample, _of_pair(pair) | asked, frozenset(examined.claims)):  # 3
        if not stated.holds(examined.claims):
            examined = _refuted(examined, stated.code, f"{stated.claim}: not what is expected")
    for rule in rules:
        if rule.holds(examined.claims):
            continue
        if pair is not None and rule.field not in examined.claims:
            loose = True  # a rule about the other side's evidence, which is not examined here
            continue
        loose = loose or (pair is not None and pair.any_in(set(rule.terms)))
        # Whatever it hashes, what is missing is the relying party's word in the evidence.
        examined = _refuted(examined, "nonce_mismatch", f"{rule.field}: the rule fails")
    if asks is not None and examined.authentic is not False and not examined.bound:
        examined = _with_nonce(examined, asks)
    ledger = Ledger()
    if examined.facts is not None:
        rule = strict_rule(scheme, timed=timed)
        scheme.judge(ledger, examined.facts, rule, question.now)  # 4
    if isinstance(examined.facts, Fleet):
        devices = examined.facts.devices
        ledger.run("strict 1 distinct", lambda: check_distinct(devices))
    late = tuple(reason for reason in ledger.reasons if reason.code in _OUT_OF_TIME)
    if late and examined.authentic is not None:
        examined = _refuted_by(examined, late)
        ledger.reasons = [reason for reason in ledger.reasons if reason not in late]
    state = (*state, *ledger.reasons)
    if any(check.ok is None for check in ledger.checks) and not state:
        state = (Reason("check_not_run", "a step did not run, expected every step to pass"),)
    if loose:
        detail = "the CPU's evidence names no GPU evidence, expected it in what it signs"
        state = (*state, Reason("gpu_not_bound_to_cpu", detail))
    read = frozenset[str]()
    needed = () if scheme.kind in _TIMELESS else examined.reasons
    if pair is not None and not loose:
        at_hand = Asked(
            files=_beside(scheme, files) | {_ROOT: files.get(_ROOT, b"")},
            index_roots=Anchors(index.roots),
            now=question.now,
            skew=question.skew,
            nonces=gpu_nonces(sample, pair.gpus),
            arch=expected.arch,
        )
        account = examine_gpus(pair.gpus, at_hand)
        needed += account.refuted
        examined = _refuted_by(examined, account.refuted)
        state, read = (*state, *account.open), roles_read(at_hand)
    if not timed and any(reason.code == _NOT_VALID for reason in needed):
        raise MalformedError(f"sample {sample.id}: {_NO_TIME}")
    return _Verdict(
        examined,
        state,
        asked=frozenset() if loose else asked,
        read=read | frozenset(() if pair is None else pair.gpus),
    )


def _examined(scheme: Scheme, question: Question, spelled: Sequence[bytes]) -> Examined:
    """Examined for the nonce asked for, or where it carries another, as the sample spells it."""
    first = scheme.examine(question)
    if not _carries_another(first):
        return first
    asked = (replace(question, expected=replace(question.expected, nonce=one)) for one in spelled)
    others = (scheme.examine(one) for one in asked)
    return next((one for one in others if not _carries_another(one)), first)


def _carries_another(examined: Examined) -> bool:
    return any(reason.code == "nonce_mismatch" for reason in examined.reasons)


def _beside(scheme: Scheme, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of roles that the kind does not have."""
    known = {*scheme.evidence[0], *scheme.evidence[1], *scheme.collateral}
    return {role: data for role, data in files.items() if role not in known}


def _anchors(scheme: Scheme, index: Index, files: Mapping[str, bytes]) -> Anchors:
    """Step 1. Of two sides' samples nothing says whose root theirs is, so they name none here."""
    anchors = scheme.anchors if scheme.anchors.pins else Anchors(index.roots)
    if _ROOT not in scheme.collateral or _ROOT not in files:
        return anchors
    of_devices = Anchors(anchors.pins - NVIDIA_RIM.pins) if scheme.kind in GPU_KINDS else anchors
    try:
        named = pem.certificates(files[_ROOT], "sample root")
    except MalformedError:  # it names nobody
        return NONE
    return anchors if of_devices.among(named) else NONE


def _rules(sample: Sample, pair: Pair | None) -> tuple[BindingRule, ...]:
    """The sample's binding rule.

    One that is not understood shows of no GPU that the CPU names it; elsewhere, of nothing.
    """
    if pair is None:
        return binding_rules(sample, {})
    try:
        return binding_rules(sample, pair.values())
    except MalformedError:
        return ()


def _names_gpus(sample: Sample, rules: tuple[BindingRule, ...], pair: Pair) -> bool:
    terms = {term for rule in rules for term in rule.terms}
    return pair.all_in(terms) and not pair.contradicted(sample.inputs)


def _of_pair(pair: Pair | None) -> frozenset[str]:
    """The names of inputs that speak of the GPUs' evidence."""
    return frozenset() if pair is None else frozenset(pair.values())


def _asked_of_gpus(pair: Pair | None) -> frozenset[str]:
    """The names of inputs that ask something of the GPUs."""
    if pair is None:
        return frozenset()
    return frozenset(ARCH_NAMES).union(*(nonce_names(role) for role in pair.gpus))


def _with_nonce(examined: Examined, nonce: bytes) -> Examined:
    """Examined for a nonce that its kind has no place for: first in the report data, or behind a
    key, where guests put one. Zeros stand there too where nobody was answered."""
    data, text = examined.claims.get("report_data"), nonce.hex()
    if (
        any(nonce)
        and isinstance(data, str)
        and (
            text.ljust(_HALF, "0") in (data[:_HALF], data[_HALF:])
            or text.ljust(2 * _HALF, "0") == data
        )
    ):
        return examined
    return _refuted(examined, "nonce_mismatch", "nothing in it is the nonce asked for")


def _with_empty_nonce(examined: Examined) -> tuple[Examined, tuple[Reason, ...]]:
    """Examined for a nonce that is stated and empty: it is the nonce of evidence for nobody."""
    detail = "the nonce asked for is empty, expected one that answers a question"
    if examined.claims.get("extra_data") == "":
        return examined, (Reason("nonce_mismatch", detail),)
    return _refuted(examined, "nonce_mismatch", detail), ()


def _refuted(examined: Examined, code: str, detail: str) -> Examined:
    return _refuted_by(examined, (Reason(code, detail),))


def _refuted_by(examined: Examined, reasons: tuple[Reason, ...]) -> Examined:
    if not reasons:
        return examined
    reasons = (*examined.reasons, *reasons)
    return replace(examined, authentic=False, reasons=reasons, bound=False)


def _faults(  # 5
    sample: Sample,
    authentic: bool | None,
    accepted: bool | None,
    reasons: tuple[Reason, ...],
    differing: Mapping[str, tuple[Any, Any]],
) -> list[str]:
    faults = []
    if authentic is not sample.authentic:
        faults.append(f"authentic: found {authentic}, expected {sample.authentic}")
    if sample.strict is not None and accepted is not (sample.strict == "accept"):
        found = "accept" if accepted else "reject"
        faults.append(f"strict: found {found}, expected {sample.strict}")
    codes = {reason.code for reason in reasons}
    if sample.reasons and codes.isdisjoint(sample.reasons):
        found = ", ".join(sorted(codes)) or "none"
        faults.append(f"reasons: found {found}, expected one of {', '.join(sample.reasons)}")
    if differing:
        faults.append(f"claims: {len(differing)} differ: {', '.join(sorted(differing)[:3])}")
    return faults


def _unasked(sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str]) -> list[str]:
    """What inputs ask and nothing answers: a check that is not made."""
    return [f"input {key}: {_UNASKED}" for key in unasked(sample, elsewhere, claims)]


def _unbound(sample: Sample, elsewhere: AbstractSet[str], claims: AbstractSet[str]) -> list[str]:
    """Keys that nothing is asked about."""
    return [f"input {key}: {_UNBOUND}" for key in unbound(sample, elsewhere, claims)]


def _failed(sample: Sample, fault: str) -> Outcome:
    return Outcome(sample.id, sample.kind, None, None, (), {}, (), (fault,))
