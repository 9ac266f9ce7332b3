"""What a verdict may be called: whose roots are trusted decides, for the CPU and for the GPUs.

And nothing is called anything that was not made for this binding.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
from simulators.gpu_tee import GPUS, GpuTee, SnpGpuTee, TdxGpuTee
from simulators.hardware_tee import AzureSnpTee, HardwareTee, NitroTee, SnpTee, TdxTee
from simulators.tee import NOW
from simulators.verdicts import accepted, rejected

from attestation.binding import parse_binding
from attestation.examined import Examined
from attestation.hardware import check_bound, prove_gpus
from attestation.ledger import Ledger
from attestation.proof import Proof
from attestation.rules.hardware import HardwareRule
from attestation.schemes import SCHEMES
from client.policy_words import explain
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from attestation.result import Trust

every_cpu = pytest.mark.parametrize("make", [SnpGpuTee, TdxGpuTee])
VENDORED = [SnpTee, TdxTee, NitroTee, AzureSnpTee]


def rule_of(tee: HardwareTee) -> HardwareRule:
    (rule,) = tee.policy().accept
    assert isinstance(rule, HardwareRule)
    return rule


# ---------------------------------------------------------------- GPUs


@every_cpu
def test_gpus_under_roots_of_the_policys_own_are_simulated_though_the_cpu_is_not(
    make: type[GpuTee],
) -> None:
    tee = make()
    del tee.rule["roots"], tee.demands["allow_simulated"]
    rule = rule_of(tee)
    assert not rule.anchors.simulated
    assert rule.gpu_anchors.simulated
    assert "simulated_not_allowed" in rejected(tee.appraise()).codes


@every_cpu
def test_gpus_under_nvidias_own_roots_are_not(make: type[GpuTee]) -> None:
    tee = make()
    del tee.rule["roots"], tee.gpu_rule["roots"], tee.demands["allow_simulated"]
    rule = rule_of(tee)
    assert rule.gpu_anchors == SCHEMES[GPUS].anchors
    assert not rule.gpu_anchors.simulated
    assert "simulated_not_allowed" not in rejected(tee.appraise()).codes


@pytest.mark.parametrize("trust", ["hardware", "vtpm", "simulated"])
def test_simulated_gpus_make_any_proof_simulated(trust: Trust) -> None:
    tee = SnpGpuTee()
    raw = tee.binding()
    ledger = Ledger()
    found = prove_gpus(
        ledger,
        {GPUS: tee.gpu_evidence(raw)},
        rule_of(tee),
        Proof(tee.kind, tee.measurement(), NOW + 60, trust),
        parse_binding(raw),
        tee.collateral(),
        NOW,
        frozenset(),
    )
    assert ledger.accepted
    assert found.trust == "simulated"


@every_cpu
def test_a_policy_in_words_says_whose_roots_count_for_each(make: type[GpuTee]) -> None:
    tee = make()
    del tee.rule["roots"]
    words = dict(line for _, lines in explain(tee.policy()) for line in lines)
    assert words["roots"] == "the vendor's pinned roots"
    assert words["gpu.roots"] == "the policy's own roots: SIMULATED"


def test_the_word_simulated_has_no_place_among_the_demands_on_gpus() -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["simulated"] = False
    with pytest.raises(PolicyError, match=r'policy\.accept\.gpu: found unknown key "simulated"'):
        tee.policy()


# ---------------------------------------------------------------- the word


@pytest.mark.parametrize("make", VENDORED)
@pytest.mark.parametrize("own", [True, False])
def test_beside_a_vendor_the_word_says_what_holds_anyway_or_is_an_error(
    make: type[HardwareTee], own: bool
) -> None:
    tee = make()
    if not own:
        del tee.rule["roots"]
    silent = rule_of(tee)
    assert silent.anchors.simulated is own
    tee.rule["simulated"] = own
    assert rule_of(tee) == silent
    tee.rule["simulated"] = not own
    with pytest.raises(PolicyError, match=r"policy\.accept\.simulated: found"):
        tee.policy()


@pytest.mark.parametrize("make", VENDORED)
def test_a_rule_with_its_own_roots_does_not_weaken_one_without(make: type[HardwareTee]) -> None:
    tee = make()
    real = copy.deepcopy(tee.rule)
    del real["roots"]
    tee.demands["accept"] = [real, tee.rule]
    accepted(tee.appraise())
    first, second = tee.policy().accept
    assert isinstance(first, HardwareRule)
    assert isinstance(second, HardwareRule)
    assert (first.anchors.simulated, second.anchors.simulated) == (False, True)


# ---------------------------------------------------------------- step 17 by itself


@pytest.mark.parametrize("code", ["report_data_mismatch", "gpu_not_bound_to_cpu"])
def test_genuine_evidence_that_nothing_binds_is_refused(code: str) -> None:
    """No kind examines so today; one that forgot to compare would else admit any binding."""
    with pytest.raises(AttestationError) as caught:
        check_bound(Examined("some-kind", authentic=True, bound=False), code)
    assert caught.value.reasons == (code,)


def test_evidence_that_nobody_signs_is_refused_though_it_is_bound() -> None:
    with pytest.raises(AttestationError) as caught:
        check_bound(Examined("some-kind", authentic=None, bound=True), "report_data_mismatch")
    assert caught.value.reasons == ("signature_missing",)


def test_genuine_evidence_for_this_binding_passes() -> None:
    examined = Examined("some-kind", authentic=True, bound=True)
    assert check_bound(examined, "report_data_mismatch") == "made for this binding"
