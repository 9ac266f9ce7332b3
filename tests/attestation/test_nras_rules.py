"""What a policy demands of NVIDIA's verdict. Each test changes one claim of a good device."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.nras import NOW, NrasService, gpu_claims, switch_claims

from attestation.formats.detached_eat import parse_bundle
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nras import SCHEME
from wire.errors import PolicyError

GPU = "x-nvidia-gpu-"
VERSIONS = pytest.mark.parametrize("version", ["2.0", "3.0"])


def rule(document: dict[str, Any]) -> Any:
    required, optional = SCHEME.rule_keys
    return SCHEME.rule(
        Members(document, "rule", required=required, optional=optional, error=PolicyError)
    )


def judge(
    service: NrasService, document: dict[str, Any] | None = None, now: int = NOW
) -> list[str]:
    ledger = Ledger()
    SCHEME.judge(ledger, parse_bundle(service.bundle()), rule(document or {}), now)
    assert bool(ledger.reasons) is not ledger.accepted
    return [reason.code for reason in ledger.reasons]


def with_device(**changes: Any) -> NrasService:
    service = NrasService(devices=2)
    service.devices["GPU-1"].update(changes)
    return service


@VERSIONS
def test_good_devices_meet_the_default_rule(version: str) -> None:
    assert judge(NrasService(devices=8, version=version)) == []


def test_good_switches_meet_the_default_rule() -> None:
    service = NrasService()
    service.devices = {f"SWITCH-{i}": switch_claims(i) for i in range(4)}
    assert judge(service) == []


@pytest.mark.parametrize(
    ("claim", "value", "code"),
    [
        ("dbgstat", "enabled", "debug_enabled"),
        ("dbgstat", None, "debug_enabled"),
        ("dbgstat", "DISABLED", "debug_enabled"),
        ("secboot", False, "secure_boot_off"),
        ("secboot", "true", "secure_boot_off"),
        ("secboot", None, "secure_boot_off"),
        ("measres", "fail", "measurement_mismatch"),
        ("measres", None, "measurement_mismatch"),
        ("ueid", None, "device_check_missing"),
        ("ueid", "", "device_check_missing"),
        (f"{GPU}arch-check", "true", "device_check_failed"),
        (f"{GPU}attestation-report-nonce-match", False, "device_check_failed"),
        (f"{GPU}attestation-report-signature-verified", False, "device_check_failed"),
        (f"{GPU}attestation-report-signature-verified", None, "device_check_missing"),
        (f"{GPU}driver-rim-measurements-available", None, "device_check_missing"),
        (f"{GPU}vbios-rim-signature-verified", None, "device_check_missing"),
        (f"{GPU}a-check-of-a-later-version", False, "device_check_failed"),
        ("x-nvidia-attestation-warning", "driver is old", "attestation_warning"),
        ("x-nvidia-mismatch-measurement-records", [{"index": 3}], "measurement_mismatch"),
        ("x-nvidia-device-type", "toaster", "product_not_accepted"),
    ],
)
def test_one_bad_claim_of_one_device_is_refused(claim: str, value: object, code: str) -> None:
    assert judge(with_device(**{claim: value})) == [code]


def test_a_device_whose_kind_cannot_be_told_is_refused() -> None:
    service = with_device()
    service.devices["GPU-1"]["x-nvidia-switch-arch-check"] = True
    assert judge(service) == ["product_not_accepted"]


@pytest.mark.parametrize("part", ["attestation-report", "driver-rim", "vbios-rim"])
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("x-nvidia-cert-status", "expired"),
        ("x-nvidia-cert-status", "revoked"),
        ("x-nvidia-cert-ocsp-status", "unknown"),
        ("x-nvidia-cert-revocation-reason", "certificateHold"),
        ("x-nvidia-cert-ocsp-nonce-matches", False),
    ],
)
def test_a_certificate_the_service_found_bad_is_refused(
    part: str, member: str, value: object
) -> None:
    service = with_device()
    chain = service.devices["GPU-1"][f"{GPU}{part}-cert-chain"]
    service.devices["GPU-1"][f"{GPU}{part}-cert-chain"] = {**chain, member: value}
    assert judge(service) == ["certificate_status"]


@pytest.mark.parametrize("value", ["valid", [], True])
def test_a_chain_in_another_shape_is_refused(value: object) -> None:
    assert judge(with_device(**{f"{GPU}driver-rim-cert-chain": value})) == ["certificate_status"]


def test_no_word_on_a_chain_is_refused() -> None:
    assert judge(with_device(**{f"{GPU}driver-rim-cert-chain": None})) == ["device_check_missing"]


def test_version_two_says_it_in_one_word_and_no_word_is_refused() -> None:
    service = NrasService(version="2.0")
    service.devices["GPU-0"][f"{GPU}driver-rim-cert-validated"] = None
    assert judge(service) == ["device_check_missing"]
    service.devices["GPU-0"][f"{GPU}driver-rim-cert-validated"] = False
    assert judge(service) == ["device_check_failed"]


@pytest.mark.parametrize("value", [False, None, "true", 1])
def test_an_overall_result_that_is_not_true_is_refused(value: object) -> None:
    service = NrasService()
    service.overall["x-nvidia-overall-att-result"] = value
    assert judge(service) == ["overall_result_failed"]


@pytest.mark.parametrize("value", ["1.0", "4.0", None, 3])
def test_claims_of_an_unknown_version_are_refused(value: object) -> None:
    service = NrasService()
    service.overall["x-nvidia-ver"] = value
    assert judge(service) == ["version_not_accepted"]


def test_a_gpu_count_that_falls_short_is_refused() -> None:
    assert judge(NrasService(devices=8), {"count": 8}) == []
    assert judge(NrasService(devices=7), {"count": 8}) == ["device_count_mismatch"]
    assert judge(NrasService(devices=9), {"count": 8}) == ["device_count_mismatch"]


def test_no_device_at_all_is_refused_by_every_step() -> None:
    service = NrasService(devices=0)
    assert set(judge(service)) == {"device_count_mismatch"}


def test_one_gpu_under_two_names_is_refused() -> None:
    service = NrasService(devices=2)
    service.devices["GPU-1"] = gpu_claims(0)
    assert judge(service) == ["device_repeated"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"models": ["GB100"]}, "product_not_accepted"),
        ({"models": ["GH10"]}, "product_not_accepted"),
        ({"drivers": ["550.90.07"]}, "driver_not_accepted"),
        ({"vbioses": ["96.00.9F.00.01"]}, "vbios_not_accepted"),
    ],
)
def test_what_the_rule_does_not_name_is_refused(document: dict[str, Any], code: str) -> None:
    assert judge(NrasService(), document) == [code]


def test_what_the_rule_names_is_accepted() -> None:
    document = {
        "models": ["GB100", "GH100"],
        "drivers": ["595.71.05"],
        "vbioses": ["96.00.D9.00.02"],
        "max_age_s": 600,
        "debug": False,
        "results": "required",
    }
    assert judge(NrasService(), document, NOW + 600) == []
    assert judge(NrasService(), document, NOW + 601) == ["evidence_stale"]


@pytest.mark.parametrize("where", ["overall", "GPU-1"])
@pytest.mark.parametrize(
    ("audience", "demanded", "accepted"),
    [
        (None, None, True),
        ("us", None, False),
        ("us", "us", True),
        (["them", "us"], "us", True),
        ("them", "us", False),
        ("them", "as_supplied", True),
        (["them", 7], "as_supplied", False),
        (7, "as_supplied", False),
    ],
)
def test_a_token_for_somebody_is_taken_only_as_the_rule_says(
    where: str, audience: object, demanded: str | None, accepted: bool
) -> None:
    service = NrasService(devices=2)
    tokens = {"overall": service.overall, **service.devices}
    for claims in tokens.values() if demanded == "us" else (tokens[where],):
        claims.update({} if audience is None else {"aud": audience})
    document = {} if demanded is None else {"audience": demanded}
    assert judge(service, document) == ([] if accepted else ["audience_mismatch"])


def test_a_device_token_for_somebody_else_than_the_rule_names_is_refused() -> None:
    service = NrasService(devices=2)
    for claims in (service.overall, *service.devices.values()):
        claims["aud"] = "us"
    service.devices["GPU-1"]["aud"] = "them"
    assert judge(service, {"audience": "us"}) == ["audience_mismatch"]


def test_results_as_supplied_waive_the_services_opinion_but_never_debug() -> None:
    service = NrasService()
    service.overall["x-nvidia-overall-att-result"] = False
    service.devices["GPU-0"].update(measres="fail", secboot=False)
    assert judge(service, {"results": "as_supplied"}) == []
    service.devices["GPU-0"]["dbgstat"] = "enabled"
    assert judge(service, {"results": "as_supplied"}) == ["debug_enabled"]


@pytest.mark.parametrize(
    "document",
    [
        {"debug": True},
        {"debug": "false"},
        {"results": "ignored"},
        {"models": "GH100"},
        {"count": 0},
        {"count": 65},
        {"max_age_s": 86_401},
        {"count": "8"},
        {"max_age_s": 0},
        {"colour": "green"},
    ],
)
def test_a_rule_that_is_not_understood_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(document)
