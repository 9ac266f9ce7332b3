"""Appraisal: unverified evidence and a policy in, `AppraisedEvidence` or `Refused` out. Pure.

Authenticity ("who says so?") and state ("do I accept it?") are separate steps. All steps run that
can, so a refusal still says what was claimed. A step that cannot run is recorded with ok=None and
the evidence is refused. Each number is in the code beside its step; each reason code below has a
test of its own that changes exactly one fact (tests/attestation/test_appraise*.py).

 0. the policy holds now                      policy_not_yet_valid, policy_expired
 1. the binding parses; version and role      binding_malformed, version_not_accepted,
    are accepted                              role_not_accepted
 2. it is for our deployment                  audience_mismatch
 3. it holds now and not for too long         binding_not_yet_valid, binding_expired,
                                              binding_life_too_long
 4. neither it nor a key in it is denied      denied
 5. it has a key of an accepted suite         suite_not_accepted
 6. the service policy loaded is accepted     service_policy_not_accepted
 7. it serves an accepted model, and none     model_missing, model_digest_mismatch
    under an accepted name with other weights
 8. it is fresh: our nonce, or its beacon     nonce_mismatch, beacon_missing, beacon_unverified,
                                              beacon_stale
 9. the posture record is the one named, by   posture_missing, posture_malformed,
    the bound key, for this process start     posture_mismatch, posture_signature_invalid,
                                              posture_other_boot
10. the policy accepts this kind and trust    kind_not_accepted, evidence_repeated,
                                              software_not_allowed, simulated_not_allowed
11. the evidence parses                       evidence_malformed

Steps 12 to 16 are a kind's own. Those of hardware kinds are numbered and listed, with their codes,
in docs/spec/evidence.md and in `attestation.schemes`; for `software` and `tpm2` they are

12. its chain ends in a pinned root           untrusted_root, chain_invalid,
    (tpm2)                                    certificate_not_valid_at_time
13. the endorsement key is the certified one  ek_mismatch, ek_attributes
    (tpm2)
14. the attestation key signs only what its   ak_attributes
    TPM made (tpm2)
15. the signature verifies                    signature_invalid
16. one TPM holds both keys (tpm2)            activation_missing, activation_foreign,
                                              activation_mismatch

and for every kind again
17. it was made for this binding              report_data_mismatch
18. it was made in the binding's time         evidence_not_yet_valid, evidence_stale
    (software; a TPM knows no time)
19. the registers prove the measurement       pcr_selection, pcr_digest_mismatch, pcr_mismatch;
    (tpm2, hardware), or the parts give it    measurement_mismatch
    (software)
20. the binding claims that measurement       image_mismatch
21. the measurement is accepted, and neither  denied, measurement_not_accepted
    it nor a platform or key is denied
22. the posture is as strong as demanded      posture_missing, posture_below_policy
23. the GPUs demanded are genuine, as         gpu_missing, gpu_not_bound_to_cpu, gpu_count, and
    demanded, and named by the binding        the codes of their kind

What steps the CALLER must still do: establish that a nonce is fresh and its own; give the beacon's
time only from a verified log checkpoint; run activation itself; check the directory and the log;
use the verdict no longer than `expires`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import refused
from wire.excerpt import listed

from . import binding_steps
from .binding import Binding, parse_binding
from .evidence import EVIDENCE_ITEMS_MAX, SOFTWARE, TPM2
from .examined import NO_COLLATERAL
from .hardware import check_identities, prove_gpus, prove_hardware
from .kinds import prove_software, prove_tpm
from .ledger import Ledger
from .posture import open_container, parse_posture, record_digest
from .result import _APPRAISER, NO_CLAIMS, AppraisedEvidence, Reason, Refused
from .rules.hardware import HardwareRule
from .rules.software import SoftwareRule
from .schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .evidence import Evidence
    from .examined import CollateralSet
    from .policy import Policy, Rule
    from .posture import Posture
    from .proof import Proof
    from .result import Trust
    from .verify.credential import Activation

TRUST: Final[Mapping[str, Trust]] = MappingProxyType({SOFTWARE: "software", TPM2: "simulated"})


@dataclass(frozen=True, slots=True)
class _Case:
    """What every attempt is judged with."""

    policy: Policy
    binding: Binding
    posture: Posture | None
    collateral: CollateralSet
    activation: Activation | None
    now: int


def appraise(
    binding_raw: bytes,
    evidence: Sequence[Evidence],
    posture_raw: bytes | None,
    policy: Policy,
    now: int,
    *,
    activation: Activation | None = None,
    nonce: bytes | None = None,
    beacon_time: int | None = None,
    collateral: CollateralSet = NO_COLLATERAL,
    grace: bool = False,
) -> AppraisedEvidence | Refused:
    """Judge one worker's evidence under one policy; see the module docstring for the steps.

    Args:
        binding_raw: binding bytes as received.
        evidence: at most EVIDENCE_ITEMS_MAX items, one a kind; the first policy rule that one of
            them meets whole decides. Items of kinds the policy does not accept count for nothing.
        posture_raw: posture container as received, or None.
        policy: the demands.
        now: Unix seconds.
        activation: a finished credential activation, for kinds that need it.
        nonce: the 32 bytes the caller asked the worker to bind, if it asked for live evidence.
        beacon_time: Unix seconds of the log checkpoint the binding's beacon names, as the caller
            verified it; None where it could not.
        collateral: vendors' signed statements, by evidence kind and role; unverified.
        grace: judge keys that were accepted before and still open what waited for them: step 3
            takes that end instead of the one until which they are offered. Nobody may seal anew
            under such a verdict.

    Returns:
        `AppraisedEvidence`, or `Refused` with at least one reason. Data never raises.
    """
    ledger = Ledger()
    ledger.run("0 policy", lambda: binding_steps.policy_window(policy, now))
    parsed: list[Binding] = []

    def parse() -> str:
        parsed.append(parse_binding(binding_raw))
        return binding_steps.version_and_role(parsed[0], policy)

    if not ledger.run("1 binding", parse, "binding_malformed") and not parsed:
        ledger.skip("2-23", "there is no binding to judge")
        return Refused(tuple(ledger.reasons), tuple(ledger.checks))
    binding = parsed[0]
    end = binding_steps.end_of(binding, grace=grace)
    ledger.run("2 audience", lambda: binding_steps.audience(binding, policy))
    ledger.run("3 validity", lambda: binding_steps.validity(binding, now, end))
    ledger.run("4 deny list", lambda: binding_steps.denied(binding, policy))
    ledger.run("5 suites", lambda: binding_steps.suites(binding, policy))
    ledger.run("6 service policy", lambda: binding_steps.service_policy(binding, policy))
    ledger.run("7 models", lambda: binding_steps.models(binding, policy))
    binding_steps.freshness(ledger, binding, policy, now, nonce, beacon_time)
    posture = _posture(ledger, binding, posture_raw)

    case = _Case(policy, binding, posture, collateral, activation, now)
    attempts = _attempts(evidence, case)
    proof, attempt, controls = min(attempts, key=lambda one: len(one[1].reasons))
    checks = (*ledger.checks, *attempt.checks)
    reasons = (*ledger.reasons, *attempt.reasons)
    if proof is None or reasons or not (ledger.accepted and attempt.accepted):
        unexplained = Reason("check_not_run", "a step did not run, expected every step to pass")
        claims = NO_CLAIMS if proof is None else proof.claims
        return Refused(reasons or (unexplained,), checks, claims)
    judged_until = min(policy.expires, proof.not_after, now + policy.result_ttl_s)
    return AppraisedEvidence(
        binding=binding,
        bh=binding.bh,
        trust=proof.trust,
        measurement=proof.measurement,
        kind=proof.kind,
        posture=posture,
        expires=min(end, judged_until),
        released_until=min(binding.opens_until, judged_until),
        checks=checks,
        claims=proof.claims,
        identities=proof.identities,
        controls=controls,
        token=_APPRAISER,
    )


def _posture(ledger: Ledger, binding: Binding, raw: bytes | None) -> Posture | None:  # step 9
    found: list[Posture] = []

    def check() -> str:
        if raw is None:
            if binding.posture is not None:
                raise refused("posture_missing", "posture: found none, expected the one bound")
            return "none bound, none given"
        record, _ = open_container(raw)
        if binding.posture is None or record_digest(record) != binding.posture:
            raise refused("posture_mismatch", "posture: not the record the binding names")
        posture = parse_posture(raw, binding.sig_pk)
        if posture.boot != binding.boot:
            raise refused("posture_other_boot", "posture: made by another process start")
        found.append(posture)
        return f"{len(posture.fields)} controls, signed by the bound key"

    ledger.run("9 posture record", check, "posture_malformed")
    return found[0] if found else None


def _attempts(
    evidence: Sequence[Evidence], case: _Case
) -> list[tuple[Proof | None, Ledger, tuple[str, ...]]]:
    """(proof, account, controls demanded) of each rule that evidence was given for; never empty."""
    attempts = []
    by_kind = {item.kind: item for item in evidence}
    single = len(by_kind) == len(evidence) <= EVIDENCE_ITEMS_MAX
    for rule in case.policy.accept if single else ():
        if rule.kind in by_kind:
            account = Ledger()
            proof = _prove(account, by_kind, rule, case)
            attempts.append((proof, account, tuple(sorted(rule.posture))))
    if not attempts:
        account = Ledger()
        account.run("10 kind", lambda: _no_rule(evidence, case.policy, single=single))
        account.skip("11-23", "no evidence to judge")
        attempts.append((None, account, ()))
    return attempts


def _prove(ledger: Ledger, items: Mapping[str, Evidence], rule: Rule, case: _Case) -> Proof | None:
    binding, now, item = case.binding, case.now, items[rule.kind]
    ledger.run("10 kind", lambda: _kind_allowed(rule, case.policy))
    if isinstance(rule, SoftwareRule):
        proof = prove_software(ledger, item.body, rule, binding, now)  # steps 11-19
    elif isinstance(rule, HardwareRule):
        proof = prove_hardware(ledger, item, rule, binding, case.collateral, now)  # steps 11-19
    else:
        proof = prove_tpm(ledger, item.body, rule, binding, now, case.activation)  # steps 11-19
    if proof is None:
        ledger.skip("20-21", "no measurement was proved")
    else:
        ledger.run("20 image", lambda: _image(binding, proof))
        ledger.run("21 measurement", lambda: _measurement(proof, rule, case.policy))
    ledger.run("22 posture", lambda: _posture_demands(case.posture, rule))
    if proof is None or not isinstance(rule, HardwareRule) or rule.gpu is None:
        return proof
    denied = case.policy.deny.identities
    return prove_gpus(ledger, items, rule, proof, binding, case.collateral, now, denied)  # step 23


def _no_rule(evidence: Sequence[Evidence], policy: Policy, *, single: bool) -> str:  # step 10
    if not single:
        raise refused(
            "evidence_repeated",
            f"evidence: found {len(evidence)} items, expected at most {EVIDENCE_ITEMS_MAX} of "
            "distinct kinds",
        )
    wanted = sorted({rule.kind for rule in policy.accept})
    raise refused(
        "kind_not_accepted",
        f"evidence: found {len(evidence)} items of other kinds, expected {' or '.join(wanted)}",
    )


def _kind_allowed(rule: Rule, policy: Policy) -> str:  # step 10
    trust = trust_of(rule)
    if trust == "software" and not policy.allow_software:
        raise refused(
            "software_not_allowed", "software evidence: expected a policy with allow_software"
        )
    if trust == "simulated" and not policy.allow_simulated:
        raise refused(
            "simulated_not_allowed",
            f"{rule.kind} under the policy's own roots: expected a policy with allow_simulated",
        )
    return f"{rule.kind}, trust {trust}"


def trust_of(rule: Rule) -> Trust:
    """What a rule's anchors make of evidence it accepts; simulated GPUs make all simulated."""
    if not isinstance(rule, HardwareRule):
        return TRUST[rule.kind]
    simulated = rule.anchors.simulated or rule.gpu_anchors.simulated
    return "simulated" if simulated else SCHEMES[rule.kind].trust


def _image(binding: Binding, proof: Proof) -> str:  # step 20
    if binding.image != proof.measurement:
        raise refused(
            "image_mismatch", f"image: found {binding.image}, expected {proof.measurement}"
        )
    return binding.image


def _measurement(proof: Proof, rule: Rule, policy: Policy) -> str:  # step 21
    if proof.measurement in policy.deny.measurements:  # deny wins over accept
        raise refused("denied", "measurement: on the policy's deny list")
    check_identities(proof.identities, policy.deny.identities, proof.shows)
    if proof.measurement not in rule.measurements:
        raise refused(
            "measurement_not_accepted",
            f"measurement: found {proof.measurement}, expected {listed(rule.measurements)}",
        )
    return proof.measurement


def _posture_demands(posture: Posture | None, rule: Rule) -> str:  # step 22
    if not rule.posture:
        return "the policy demands no control"
    if posture is None:
        raise refused(
            "posture_missing", f"posture: found none, expected {len(rule.posture)} controls"
        )
    for name, demanded in sorted(rule.posture.items()):
        if not posture.meets(name, demanded):
            control = posture.fields.get(name)
            found = "nothing" if control is None else control.state
            raise refused(
                "posture_below_policy", f"posture.{name}: found {found}, expected {demanded}"
            )
    return f"{len(rule.posture)} demanded controls are met"
