"""Step 23, once the GPUs are the right ones: their state, what NVIDIA states, and policies."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from cryptography.x509 import ReasonFlags
from cryptography.x509.ocsp import OCSPCertStatus
from simulators.gpu_tee import GPUS, GpuTee, SnpGpuTee, TdxGpuTee
from simulators.hardware_tee import SnpTee, pem
from simulators.tee import NOW
from simulators.verdicts import accepted, refused_for, rejected

from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.nvidia_device import Authority

every_cpu = pytest.mark.parametrize("make", [SnpGpuTee, TdxGpuTee])


# ---------------------------------------------------------------- state and collateral


def _driver(tee: GpuTee) -> None:
    tee.gpus[1].driver = "535.00"


def _firmware(tee: GpuTee) -> None:
    tee.gpu_rule["vbios_in"] = ["96.00.9F.00.01"]


def _mode(tee: GpuTee) -> None:
    tee.gpus[1].opaque[36] = b"\2\0"


def _model(tee: GpuTee) -> None:
    tee.gpu_rule["models"] = ["GB100"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_driver, "driver_not_accepted"),
        (_firmware, "vbios_not_accepted"),
        (_mode, "mode_not_accepted"),
        (_model, "product_not_accepted"),
    ],
)
def test_the_state_of_every_gpu_counts(change: Callable[[GpuTee], None], code: str) -> None:
    tee = SnpGpuTee()
    change(tee)
    verdict = refused_for(tee.appraise(), code)
    assert set(verdict.claims) == {tee.kind, GPUS}


@every_cpu
def test_a_revoked_gpu_is_refused(make: type[GpuTee]) -> None:
    tee = make()
    device = tee.gpus[1]
    issuer = tee.nvidia.icas[device.chip]
    tee.gpu_statements["ocsp_3"] = tee.nvidia.ocsp(
        device.brom, issuer, status=OCSPCertStatus.REVOKED, reason=ReasonFlags.key_compromise
    )
    verdict = rejected(tee.appraise())
    assert verdict.codes[0] == "revoked"


def test_revocation_that_was_not_checked_is_refused() -> None:
    tee = SnpGpuTee()
    refused_for(tee.appraise(collateral={tee.kind: tee.collateral()[tee.kind]}),
            "revocation_not_checked")  # fmt: skip


def test_an_answer_for_one_gpu_is_none_for_the_other() -> None:
    tee = SnpGpuTee()
    tee.gpu_statements["ocsp_3"] = None  # the second GPU's own; they share what is above it
    refused_for(tee.appraise(), "revocation_not_checked")


def test_where_the_policy_says_so_revocation_need_not_be_checked() -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["ocsp"] = "not_checked"
    accepted(tee.appraise(collateral={tee.kind: tee.collateral()[tee.kind]}))


def test_a_verdict_ends_with_the_gpus_first_answer_or_certificate() -> None:
    tee = SnpGpuTee()
    issuer = tee.nvidia.icas["GH100"]
    tee.gpu_statements["ocsp"] = tee.nvidia.ocsp(tee.gpus[0].brom, issuer, end=40)
    assert accepted(tee.appraise()).expires == NOW + 40
    rejected(tee.appraise(now=NOW + 200))
    other = SnpGpuTee()
    other.gpus[1].leaf["end"] = 50
    assert accepted(other.appraise()).expires == NOW + 50


def _with_manifests(tee: GpuTee, start: int = -3600, end: int = 86_400) -> GpuTee:
    """Demand reference manifests, and state them; answers about all certificates begin then."""
    pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")
    vendor = tee.nvidia
    tee.gpu_rule |= {"rim": "required", "rim_ocsp": "required"}
    lines: list[tuple[Authority, ...]] = [
        (device.brom, vendor.icas[device.chip], vendor.identity[device.chip], vendor.root)
        for device in tee.gpus
    ]
    lines += [(vendor.rim_signer, vendor.rim_ca, vendor.rim_root)]
    answers = [
        vendor.ocsp(subject, issuer, start=start, end=end)
        for line in lines
        for subject, issuer in itertools.pairwise(line)
    ]
    tee.gpu_statements |= {
        "ocsp" if number == 0 else f"ocsp_{number}": der for number, der in enumerate(answers)
    }
    tee.gpu_statements |= {
        "rim": vendor.manifest(tee.gpus[0], "driver"),
        "rim_1": vendor.manifest(tee.gpus[0], "vbios"),
    }
    return tee


def test_gpus_of_the_measurements_that_nvidia_published_are_accepted() -> None:
    accepted(_with_manifests(SnpGpuTee()).appraise())


def test_one_gpu_of_other_measurements_is_refused() -> None:
    tee = SnpGpuTee()
    tee.gpus[1].measurements[9] = bytes(48)
    refused_for(_with_manifests(tee).appraise(), "rim_measurement_mismatch")


def test_manifests_that_the_policy_demands_and_nobody_states_are_refused() -> None:
    tee = _with_manifests(SnpGpuTee())
    tee.gpu_statements |= {"rim": None, "rim_1": None}
    refused_for(tee.appraise(), "rim_missing")


def test_what_nvidia_states_counts_now_and_not_when_the_worker_began() -> None:
    """An answer is renewed within the hour; the worker lives on, with the binding it had."""
    tee = _with_manifests(SnpGpuTee(), start=1000, end=2000)
    accepted(tee.appraise(now=NOW + 1200))
    assert "collateral_expired" in rejected(tee.appraise(now=NOW + 2200)).codes


DENIED: list[tuple[str, Callable[[GpuTee], str]]] = [
    ("serials", lambda tee: tee.gpus[1].serial.lower()),
    ("keys", lambda tee: tee.gpus[1].fingerprint.removeprefix("sha256:")),
    ("chip_ids", lambda tee: f"{tee.gpus[1].brom.certificate.serial_number:018x}"),
]


@every_cpu
@pytest.mark.parametrize(("member", "value"), DENIED)
def test_a_denied_gpu_is_refused(
    make: type[GpuTee], member: str, value: Callable[[GpuTee], str]
) -> None:
    tee = make()
    tee.demands["deny"] = {member: [value(tee)]}
    refused_for(tee.appraise(), "denied")


def test_a_denied_cpu_is_refused_though_its_gpus_are_good() -> None:
    tee = SnpGpuTee()
    tee.demands["deny"] = {"chip_ids": [tee.chip.facts.chip_id.hex()]}
    refused_for(tee.appraise(), "denied")


# ---------------------------------------------------------------- policies


def test_no_policy_accepts_gpus_without_a_cpu() -> None:
    tee = SnpGpuTee()
    tee.demands["accept"] = [{"kind": GPUS, "measurements": [tee.measurement()], **tee.gpu_rule}]
    with pytest.raises(PolicyError, match="names no worker"):
        tee.policy()


@pytest.mark.parametrize(
    "member",
    ["architectures", "models", "driver_in", "vbios_in", "modes", "rim", "ocsp", "count"],
)
def test_every_demand_on_gpus_must_be_stated(member: str) -> None:
    tee = SnpGpuTee()
    del tee.gpu_rule[member]
    with pytest.raises(PolicyError, match=member):
        tee.policy()


def test_unknown_demands_on_gpus_are_refused() -> None:
    tee = SnpGpuTee()
    tee.gpu_rule["measurements"] = [tee.measurement()]
    with pytest.raises(PolicyError, match="measurements"):
        tee.policy()


def test_a_worker_with_no_gpu_does_not_meet_a_rule_that_demands_them() -> None:
    tee, demanding = SnpTee(), SnpGpuTee()
    tee.rule["gpu"] = {**demanding.gpu_rule, "roots": [pem(demanding.nvidia.root.der)]}
    verdict = rejected(tee.appraise())
    assert verdict.codes == ("gpu_missing",)


def test_two_rules_one_with_gpus_and_one_without() -> None:
    tee = SnpGpuTee()
    plain = {name: value for name, value in tee.rule.items() if name != "gpu"}
    tee.demands["accept"] = [tee.rule, plain]
    tee.shown = [tee.nvidia.gpu(), tee.nvidia.gpu()]
    verdict = accepted(tee.appraise())  # by the second, which says nothing of GPUs
    assert list(verdict.claims) == [tee.kind]
