"""Step 23: GPUs behind a worker's CPU, as the worker shows both; one fact changed a test."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulators.gpu_tee import GPUS, GpuTee, SnpGpuTee, TdxGpuTee, names_of
from simulators.nvidia import Nvidia
from simulators.nvidia_device import listing
from simulators.tee import NOW
from simulators.verdicts import accepted, refused_for, rejected

from attestation.binding import report32
from attestation.evidence import EVIDENCE_MAX, Evidence
from attestation.formats.container import encode_container
from wire.errors import PolicyError

every_cpu = pytest.mark.parametrize("make", [SnpGpuTee, TdxGpuTee])
OTHER_NONCE = bytes(range(32))


@every_cpu
def test_a_cpu_with_the_gpus_it_names_is_accepted(make: type[GpuTee]) -> None:
    tee = make()
    verdict = accepted(tee.appraise())
    assert (verdict.kind, verdict.trust) == (tee.kind, "simulated")
    assert set(verdict.claims) == {tee.kind, GPUS}
    assert verdict.claims[GPUS]["gpus"] == names_of(tee.gpus)
    assert json.loads(json.dumps(verdict.claims[GPUS]))
    for device in tee.gpus:
        assert f"serial:{device.serial.lower()}" in verdict.identities
        assert f"key:{device.fingerprint.removeprefix('sha256:')}" in verdict.identities
    assert {check.step for check in verdict.checks} >= {
        "23 GPU format", "23 GPU binding named", "23 GPU deny list", "composite 5 those named",
    }  # fmt: skip


@every_cpu
def test_both_answer_one_binding(make: type[GpuTee]) -> None:
    tee = make()
    verdict = accepted(tee.appraise())
    assert verdict.claims[GPUS]["nonce"] == report32(verdict.binding.raw).hex()
    assert verdict.binding.gpus == tuple(names_of(tee.gpus))


def test_sixteen_gpus_fit_into_what_a_worker_may_send() -> None:
    tee = SnpGpuTee()
    tee.gpus = [tee.nvidia.gpu() for _ in range(16)]
    tee.facts["gpus"] = names_of(tee.gpus)
    tee.gpu_rule["count"] = 16
    binding = tee.binding()
    assert len(tee.gpu_evidence(binding).body) <= EVIDENCE_MAX
    assert len(accepted(tee.appraise(binding_raw=binding)).claims[GPUS]["gpus"]) == 16


def test_gpus_that_the_policy_does_not_demand_count_for_nothing() -> None:
    tee = SnpGpuTee()
    del tee.rule["gpu"]
    assert list(accepted(tee.appraise()).claims) == [tee.kind]
    tee.shown = [tee.nvidia.gpu("BLACKWELL")]
    accepted(tee.appraise())


# ---------------------------------------------------------------- which GPUs


@every_cpu
def test_without_gpu_evidence_a_rule_that_demands_it_is_not_met(make: type[GpuTee]) -> None:
    tee = make()
    verdict = refused_for(tee.appraise(evidence=[tee.evidence(tee.binding())]), "gpu_missing")
    assert [check.ok for check in verdict.checks if check.step == "23 GPUs"] == [None]
    assert tee.kind in verdict.claims


@every_cpu
def test_gpu_evidence_without_the_cpus_proves_no_worker(make: type[GpuTee]) -> None:
    tee = make()
    refused_for(tee.appraise(evidence=[tee.gpu_evidence(tee.binding())]), "kind_not_accepted")


@every_cpu
def test_a_genuine_gpu_of_elsewhere_that_answers_our_nonce_is_refused(make: type[GpuTee]) -> None:
    """The relay: any GPU answers whoever asks; only the binding says which ones are ours."""
    tee = make()
    tee.shown = [tee.gpus[0], tee.nvidia.gpu()]
    refused_for(tee.appraise(), "gpu_not_bound_to_cpu")


def test_all_gpus_of_another_machine_are_refused() -> None:
    tee, other = SnpGpuTee(), SnpGpuTee("other")
    tee.shown = other.gpus
    refused_for(tee.appraise(), "gpu_not_bound_to_cpu")


def test_another_machines_gpu_evidence_is_refused() -> None:
    tee, other = SnpGpuTee(), SnpGpuTee("other")
    tee.shown = other.gpus
    binding = tee.binding()
    shown = [tee.evidence(binding), other.gpu_evidence(other.binding())]
    refused_for(
        tee.appraise(binding_raw=binding, evidence=shown),
        "nonce_mismatch",
        "gpu_not_bound_to_cpu",
    )


def test_gpus_of_a_binding_that_names_none_are_refused() -> None:
    tee = SnpGpuTee()
    del tee.facts["gpus"]
    refused_for(tee.appraise(), "gpu_not_bound_to_cpu", "gpu_count")


def test_a_list_of_gpus_that_the_cpu_did_not_sign_is_refused() -> None:
    tee = SnpGpuTee()
    genuine = tee.evidence(tee.binding())
    tee.shown = [tee.nvidia.gpu(), tee.nvidia.gpu()]
    tee.facts["gpus"] = names_of(tee.shown)
    binding = tee.binding()
    shown = [genuine, tee.gpu_evidence(binding)]
    verdict = tee.appraise(binding_raw=binding, evidence=shown)
    refused_for(verdict, "report_data_mismatch")


@pytest.mark.parametrize("count", [1, 2, "any"])
def test_a_gpu_that_is_named_and_does_not_answer_is_refused(count: Any) -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["count"] = count
    tee.shown = tee.gpus[:1]
    refused_for(tee.appraise(), "gpu_count", "gpu_not_bound_to_cpu")


@pytest.mark.parametrize("count", [2, 3, "any"])
def test_a_gpu_that_answers_and_is_not_named_is_refused(count: Any) -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["count"] = count
    tee.shown = [*tee.gpus, tee.nvidia.gpu()]
    refused_for(tee.appraise(), "gpu_count", "gpu_not_bound_to_cpu")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fewer_or_more_than_the_policy_demands_are_refused(count: int) -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["count"] = count
    refused_for(tee.appraise(), "gpu_count")


def test_one_gpu_shown_twice_is_refused() -> None:
    tee = SnpGpuTee()
    tee.shown = [tee.gpus[0], tee.gpus[0]]
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "gpu_repeated"


def test_a_binding_cannot_name_one_gpu_twice() -> None:
    tee = SnpGpuTee()
    first, second = (device.fingerprint.encode() for device in tee.gpus)
    twice = tee.binding().replace(second, first)
    tee.shown = [tee.gpus[0], tee.gpus[0]]
    refused_for(tee.appraise(binding_raw=twice), "binding_malformed")


def test_two_keys_of_one_chip_are_one_gpu() -> None:
    tee = SnpGpuTee()
    tee.gpus[1].brom = tee.gpus[0].brom
    verdict = rejected(tee.appraise())
    assert "gpu_repeated" in verdict.codes


def test_gpus_of_two_architectures_are_refused() -> None:
    tee = SnpGpuTee()
    tee.gpus[1] = tee.nvidia.gpu("BLACKWELL")
    tee.facts["gpus"] = names_of(tee.gpus)
    tee.gpu_rule |= {"architectures": ["HOPPER", "BLACKWELL"], "models": "any", "modes": "any"}
    refused_for(tee.appraise(), "gpu_architecture_mixed")


def test_gpus_of_one_other_architecture_that_the_policy_names_are_accepted() -> None:
    tee = TdxGpuTee()
    tee.gpus = [tee.nvidia.gpu("BLACKWELL"), tee.nvidia.gpu("BLACKWELL")]
    tee.facts["gpus"] = names_of(tee.gpus)
    tee.gpu_rule |= {"architectures": ["BLACKWELL"], "models": ["GB100"]}
    assert accepted(tee.appraise()).claims[GPUS]["architectures"] == ["BLACKWELL"]


def test_an_architecture_that_the_policy_does_not_name_is_refused() -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["architectures"] = ["BLACKWELL"]
    refused_for(tee.appraise(), "product_not_accepted")


def test_switches_are_no_gpus() -> None:
    tee = SnpGpuTee()
    tee.gpus[1] = tee.nvidia.switch()
    tee.facts["gpus"] = names_of(tee.gpus)
    verdict = rejected(tee.appraise())
    assert "product_not_accepted" in verdict.codes or "wrong_product" in verdict.codes


def test_a_list_of_switches_alone_is_none_of_gpus() -> None:
    tee = SnpGpuTee()
    tee.gpus = [tee.nvidia.switch(), tee.nvidia.switch()]
    tee.facts["gpus"] = names_of(tee.gpus)
    assert set(rejected(tee.appraise()).codes) == {"product_not_accepted"}


@pytest.mark.parametrize("named", [["LS10"], ["HOPPER", "LS10"]])
def test_a_policy_cannot_name_switches_where_it_demands_gpus(named: list[str]) -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["architectures"] = named
    with pytest.raises(PolicyError, match=r"policy\.accept\.gpu\.architectures: found one"):
        tee.appraise()


def test_switch_evidence_does_not_stand_in_for_gpus() -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    switch = tee.nvidia.switch()
    roles = {"evidence": switch.report(report32(binding)), "cert_chain": switch.chain()}
    shown = Evidence("nvidia-switch-spdm", encode_container(roles, tee.parts))
    verdict = tee.appraise(binding_raw=binding, evidence=[tee.evidence(binding), shown])
    refused_for(verdict, "gpu_missing")


def test_a_single_gpus_evidence_does_not_stand_in_for_the_list() -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    gpu = tee.gpus[0]
    roles = {"evidence": gpu.report(report32(binding)), "cert_chain": gpu.chain()}
    shown = Evidence("nvidia-gpu-spdm", encode_container(roles, tee.parts))
    verdict = tee.appraise(binding_raw=binding, evidence=[tee.evidence(binding), shown])
    refused_for(verdict, "gpu_missing")


def test_the_gpu_list_twice_is_refused() -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    shown = [*tee.presented(binding), tee.gpu_evidence(binding)]
    refused_for(tee.appraise(binding_raw=binding, evidence=shown), "evidence_repeated")


# ---------------------------------------------------------------- genuine, and made for us


@every_cpu
def test_gpus_that_answered_another_nonce_are_refused(make: type[GpuTee]) -> None:
    tee = make()
    tee.quoted = OTHER_NONCE
    refused_for(tee.appraise(), "nonce_mismatch")


def test_one_gpu_that_answered_another_nonce_is_enough_to_refuse() -> None:
    tee = SnpGpuTee()
    binding = tee.binding()
    nonce = report32(binding)
    entries = json.loads(listing(tee.gpus, nonce))
    entries[1] |= tee.gpus[1].entry(OTHER_NONCE) | {"nonce": nonce.hex()}
    roles = {"evidence_list": json.dumps(entries).encode()}
    shown = [tee.evidence(binding), Evidence(GPUS, encode_container(roles, tee.parts))]
    refused_for(
        tee.appraise(binding_raw=binding, evidence=shown),
        "nonce_mismatch",
    )


def test_a_forged_signature_is_refused() -> None:
    tee = SnpGpuTee()
    tee.gpus[1].sign_edit = lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])
    refused_for(tee.appraise(), "signature_invalid")


def test_gpus_of_a_look_alike_vendor_are_refused() -> None:
    tee = SnpGpuTee()
    stranger = Nvidia(NOW)
    tee.gpus = [stranger.gpu(), stranger.gpu()]
    tee.facts["gpus"] = names_of(tee.gpus)
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "untrusted_root"


def test_a_gpu_rule_without_roots_trusts_nvidia_alone() -> None:
    tee = SnpGpuTee()
    del tee.gpu_rule["roots"]
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "untrusted_root"


@every_cpu
@pytest.mark.parametrize("whose", ["rule", "gpu_rule"])
def test_simulated_anywhere_needs_to_be_allowed(make: type[GpuTee], whose: str) -> None:
    tee = make()
    del tee.demands["allow_simulated"]
    other = tee.gpu_rule if whose == "rule" else tee.rule
    del other["roots"]  # only one of the two is judged by roots of the policy's own
    verdict = rejected(tee.appraise())
    assert "simulated_not_allowed" in verdict.codes


@every_cpu
def test_evidence_that_is_no_list_is_refused_and_the_cpus_claims_are_told(
    make: type[GpuTee],
) -> None:
    tee = make()
    binding = tee.binding()
    for body in (b"{}", encode_container({"evidence_list": b"[]"}, tee.parts)):
        shown = [tee.evidence(binding), Evidence(GPUS, body)]
        verdict = tee.appraise(binding_raw=binding, evidence=shown)
        assert tee.kind in refused_for(verdict, "evidence_malformed").claims
