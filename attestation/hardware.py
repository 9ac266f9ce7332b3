"""Steps 11 to 19 and 23 of an appraisal for evidence of a vendor's hardware.

Step numbers and reason codes are those of `attestation.appraise`; between 11 and 17 stand the
kind's own numbered steps, as its scheme's documentation lists them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

from .binding import report32, report_data
from .composite import check_composite
from .examined import NO_BYTES, Expected, Question
from .formats.container import parse_container
from .measurement import combine, digest_bytes
from .proof import Proof, canonical_identity
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


# Classes of identity that genuine evidence of a kind shows. What it hides (a host may mask a chip's
# id) a deny list cannot find, so it is refused where the policy denies any of that class.
SHOWS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "amd-sev-snp-report": ("chip_id", "key"),
        "azure-vtpm-snp": ("chip_id", "key"),
        "intel-tdx-quote": ("ppid", "serial", "key"),
        "azure-vtpm-tdx": ("ppid", "serial", "key"),
        "aws-nitro-document": ("key",),
        "tpm2-quote": ("key",),
        GPU_KIND: ("serial", "chip_id", "key"),
    }
)


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
    at = _age_time(binding, now) if scheme.aged else now
    end = scheme.judge(ledger, examined.facts, rule.demands, at)
    tag = combine(container.parts)
    carries = scheme.carries
    assert carries is not None, "a rule is made for kinds that carry a measurement only"
    ledger.run("19 registers", lambda: carries(examined.facts, digest_bytes(tag)))
    return Proof(
        kind=rule.kind,
        measurement=tag,
        not_after=examined.not_after if end is None else min(examined.not_after, end),
        trust="simulated" if rule.anchors.simulated else scheme.trust,
        claims={rule.kind: examined.claims},
        identities=examined.identities,
        shows=SHOWS[rule.kind],
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
    end = SCHEMES[GPU_KIND].judge(ledger, examined.facts, rule.gpu, now)
    ends = [proof.not_after, examined.not_after] + ([] if end is None else [end])
    check_composite(ledger, examined.facts, binding.gpus, rule.gpu)
    ledger.run("23 GPU deny list", lambda: _none_denied(examined, denied))
    return Proof(
        kind=proof.kind,
        measurement=proof.measurement,
        not_after=min(ends),
        trust="simulated" if rule.gpu_anchors.simulated else proof.trust,
        claims={**proof.claims, GPU_KIND: examined.claims},
        identities=(*proof.identities, *examined.identities),
        shows=proof.shows,
    )


def check_identities(found: Sequence[str], denied: frozenset[str], shows: Sequence[str]) -> str:
    """No platform or key behind the evidence is denied, and none is hidden from the list.

    Args:
        found: identities that the evidence shows.
        denied: those on the list, as `proof.canonical_identity` gives them.
        shows: the classes that genuine evidence of its kind has.

    Raises:
        AttestationError: `denied`.
    """
    names = {canonical_identity(name) for name in found}
    if not denied.isdisjoint(names):
        raise AttestationError("platform or key: on the policy's deny list", reasons=("denied",))
    shown = {name.partition(":")[0] for name in names if not name.endswith(":")}
    listed = {name.partition(":")[0] for name in denied}
    hidden = sorted(listed.intersection(shows) - shown)
    if hidden:
        raise AttestationError(
            f"{hidden[0]}: found none, expected one: the policy's deny list names some",
            reasons=("denied",),
        )
    return f"{len(found)} identities, none denied"


def check_bound(examined: Examined, code: str) -> str:
    """Genuine evidence was made for this binding.

    Args:
        examined: what is not known to be forged.
        code: the reason code where it was made for another.

    Raises:
        AttestationError: that code, or `signature_missing`.
    """
    if examined.authentic is None:
        raise AttestationError(f"{examined.kind}: signed by nobody", reasons=("signature_missing",))
    if not examined.bound:
        raise AttestationError(f"{examined.kind}: made for another binding", reasons=(code,))
    return "made for this binding"


def _none_denied(examined: Examined, denied: frozenset[str]) -> str:
    """Of each device for itself: one that hides its name stands beside others that show theirs."""
    for device in examined.facts.devices:
        check_identities(device.identities, denied, SHOWS[GPU_KIND])
    return f"{len(examined.identities)} identities, none denied"


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
    """What is not genuine names nothing."""
    if examined.authentic is False:
        ledger.skip(step, "the evidence is not genuine")
    else:
        ledger.run(step, lambda: check_bound(examined, code))
