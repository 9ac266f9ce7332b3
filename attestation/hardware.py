"""Steps 11 to 19 and 23 of an appraisal for evidence of a vendor's hardware.

Step numbers and reason codes are those of `attestation.appraise`; between 11 and 17 stand the
kind's own numbered steps, as its scheme's documentation lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

from .binding import report32, report_data
from .composite import check_composite
from .examined import NO_BYTES, Expected, Question
from .formats.container import parse_container
from .measurement import combine, digest_bytes
from .proof import Proof
from .rules.hardware import GPU_KIND
from .schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .anchors import Anchors
    from .binding import Binding
    from .evidence import Evidence
    from .examined import CollateralSet, Examined
    from .formats.container import Container
    from .ledger import Ledger
    from .rules.hardware import HardwareRule
    from .scheme import Scheme


def prove_hardware(
    ledger: Ledger,
    item: Evidence,
    rule: HardwareRule,
    binding: Binding,
    collateral: CollateralSet,
    now: int,
) -> Proof | None:
    """Steps 11 to 19.

    Args:
        ledger: the attempt's account.
        item: evidence of the rule's kind.
        rule: the demands.
        binding: what the evidence must have been made for.
        collateral: kind to role to bytes, unverified.
        now: Unix seconds.
    """
    scheme = SCHEMES[rule.kind]
    given = _with_own(scheme, rule, collateral.get(item.kind, NO_BYTES))
    opened = _open(ledger, "11 format", item, binding, rule.anchors, given, now)
    if opened is None:
        ledger.skip("12-19", "the evidence does not parse")
        return None
    container, examined = opened
    if examined.facts is None:
        ledger.skip("17-19", "the evidence does not parse")
        return None
    _binding_named(ledger, "17 binding named", examined, "report_data_mismatch")
    scheme.judge(ledger, examined.facts, rule.demands, _age_time(binding, now))
    tag = combine(container.parts)
    carries = scheme.carries
    assert carries is not None, "a rule is made for kinds that carry a measurement only"
    ledger.run("19 registers", lambda: carries(examined.facts, digest_bytes(tag)))
    return Proof(
        kind=rule.kind,
        measurement=tag,
        not_after=examined.not_after,
        trust="simulated" if rule.anchors.simulated else scheme.trust,
        claims={rule.kind: examined.claims},
        identities=examined.identities,
    )


def prove_gpus(
    ledger: Ledger,
    items: Mapping[str, Evidence],
    rule: HardwareRule,
    proof: Proof,
    binding: Binding,
    collateral: CollateralSet,
    now: int,
    denied: frozenset[str],
) -> Proof:
    """Step 23: the GPUs that the rule demands behind the same binding.

    Args:
        ledger: the attempt's account.
        items: all evidence by kind.
        rule: a rule with demands on GPUs.
        proof: what the CPU's evidence gave.
        binding: what both must have been made for.
        collateral: kind to role to bytes, unverified.
        now: Unix seconds.
        denied: identities that are refused.

    Returns:
        The CPU's proof with the GPUs' claims and identities; the weaker trust of both.
    """
    item = items.get(GPU_KIND)
    if item is None:
        ledger.missing("23 GPUs", "gpu_missing", "GPU evidence: found none, expected it")
        return proof
    given = collateral.get(item.kind, NO_BYTES)
    opened = _open(ledger, "23 GPU format", item, binding, rule.gpu_anchors, given, now)
    if opened is None or opened[1].facts is None:
        ledger.skip("23 GPUs", "the GPU evidence does not parse")
        return proof
    examined = opened[1]
    _binding_named(ledger, "23 GPU binding named", examined, "gpu_not_bound_to_cpu")
    # Now, not when the binding began: reference manifests and answers about them are renewed.
    SCHEMES[GPU_KIND].judge(ledger, examined.facts, rule.gpu, now)
    check_composite(ledger, examined.facts, binding.gpus, rule.gpu)
    ledger.run("23 GPU deny list", lambda: check_identities(examined.identities, denied))
    return Proof(
        kind=proof.kind,
        measurement=proof.measurement,
        not_after=min(proof.not_after, examined.not_after),
        trust="simulated" if rule.gpu_anchors.simulated else proof.trust,
        claims={**proof.claims, GPU_KIND: examined.claims},
        identities=(*proof.identities, *examined.identities),
    )


def check_identities(found: Sequence[str], denied: frozenset[str]) -> str:
    """No platform or key behind the evidence is denied.

    Raises:
        AttestationError: `denied`.
    """
    if not denied.isdisjoint(found):
        raise AttestationError("platform or key: on the policy's deny list", reasons=("denied",))
    return f"{len(found)} identities, none denied"


def _open(
    ledger: Ledger,
    step: str,
    item: Evidence,
    binding: Binding,
    anchors: Anchors,
    collateral: Mapping[str, bytes],
    now: int,
) -> tuple[Container, Examined] | None:
    scheme = SCHEMES[item.kind]
    found: list[Container] = []

    def parse() -> str:
        found.append(parse_container(item.body, *scheme.evidence))
        return f"{len(found[0].roles)} members"

    if not ledger.run(step, parse, "evidence_malformed"):
        return None
    examined = scheme.examine(
        Question(
            evidence=found[0].roles,
            anchors=anchors,
            now=now,
            collateral=collateral,
            expected=Expected(report_data=report_data(binding.raw), nonce=report32(binding.raw)),
        )
    )
    ledger.include(examined.checks, examined.reasons)
    return found[0], examined


def _with_own(
    scheme: Scheme, rule: HardwareRule, carried: Mapping[str, bytes]
) -> Mapping[str, bytes]:
    """The collateral with the relying party's own roles as the policy says, and only so."""
    if scheme.own is None:
        return carried
    own = scheme.own(rule.demands, rule.roots)
    kept = {role: data for role, data in carried.items() if role not in own}
    return kept | {role: data for role, data in own.items() if data}


def _age_time(binding: Binding, now: int) -> int:
    """The time at which the age of evidence counts: when its binding began, at the latest.

    Evidence is made once for a binding, and the binding's own end bounds its use. Measured at
    `now`, every worker would fall out of the policy minutes after it was admitted.
    """
    return min(now, binding.nbf + CLOCK_SKEW_S)


def _binding_named(ledger: Ledger, step: str, examined: Examined, code: str) -> None:
    """Genuine evidence was made for this binding; what is not genuine names nothing."""

    def check() -> str:
        if examined.authentic is None:
            raise AttestationError(
                f"{examined.kind}: signed by nobody", reasons=("signature_missing",)
            )
        if not examined.bound:
            raise AttestationError(f"{examined.kind}: made for another binding", reasons=(code,))
        return "made for this binding"

    if examined.authentic is False:
        ledger.skip(step, "the evidence is not genuine")
    else:
        ledger.run(step, check)
