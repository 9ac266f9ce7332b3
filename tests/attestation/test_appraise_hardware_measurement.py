"""Steps 19 to 21 for vendors' hardware: which code, as its registers and the policy say it."""

from __future__ import annotations

import hashlib

import pytest
from simulators.hardware_tee import (
    KINDS,
    AzureSnpTee,
    AzureTdxTee,
    HardwareTee,
    NitroTee,
    SnpTee,
    TdxTee,
)
from simulators.verdicts import refused_for

from attestation.measurement import digest_bytes
from attestation.registers import NITRO_PCR, nitro_pcr_event, rtmr_event, rtmr_value
from wire.ids import sha256_tag

OTHER = sha256_tag(b"something else")
# How a register that holds something else is called.
REGISTER = {
    SnpTee: "host_data_mismatch",
    TdxTee: "measurement_mismatch",
    NitroTee: "measurement_mismatch",
    AzureSnpTee: "pcr_mismatch",
    AzureTdxTee: "pcr_mismatch",
}
every_kind = pytest.mark.parametrize("make", KINDS)


@every_kind
def test_step_19_refuses_a_register_with_another_measurement(make: type[HardwareTee]) -> None:
    tee = make()
    tee.carried = OTHER
    if isinstance(tee, NitroTee):
        tee.on(tee.enclave.vendor)
    if isinstance(tee, AzureSnpTee | AzureTdxTee):
        tee.vm.tpm.registers["sha256"][11] = bytes(32)
        tee.vm.tpm.measure(11, digest_bytes(tee.carried))
    refused_for(tee.appraise(), REGISTER[make])


@every_kind
def test_step_19_refuses_parts_that_the_register_does_not_hold(make: type[HardwareTee]) -> None:
    """The policy accepts what the parts say; the hardware says that something else was started."""
    tee = make()
    tee.parts = {**tee.parts, "model": OTHER}
    tee.facts["image"] = tee.measurement()
    tee.rule["measurements"] = [tee.measurement()]
    refused_for(tee.appraise(), REGISTER[make])


@every_kind
def test_step_19_refuses_parts_changed_on_the_way(make: type[HardwareTee]) -> None:
    tee = make()
    tee.shown_parts = {**tee.parts, "model": OTHER}
    refused_for(tee.appraise(), REGISTER[make], "image_mismatch", "measurement_not_accepted")


def test_step_19_refuses_rtmr3_extended_twice() -> None:
    tee = TdxTee()
    once = rtmr_value(digest_bytes(tee.measurement()))
    later = rtmr_event(digest_bytes(OTHER))
    tee.body["rt_mr3"] = hashlib.sha384(once + later).digest()
    refused_for(tee.appraise(), "measurement_mismatch")


@pytest.mark.parametrize("value", [bytes(48), b"\xff" * 48])
def test_step_19_refuses_an_rtmr3_that_was_not_extended_so(value: bytes) -> None:
    tee = TdxTee()
    tee.body["rt_mr3"] = value
    refused_for(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_the_measurement_in_another_register() -> None:
    tee = TdxTee()
    tee.body |= {"rt_mr2": rtmr_value(digest_bytes(tee.measurement())), "rt_mr3": bytes(48)}
    tee.rule["image"]["any_of"][0]["rt_mr2"] = tee.body["rt_mr2"].hex()
    refused_for(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_host_data_without_the_label() -> None:
    tee = SnpTee()
    tee.lies["host_data"] = digest_bytes(tee.measurement())
    refused_for(tee.appraise(), "host_data_mismatch")


def test_step_19_refuses_a_guest_started_without_host_data() -> None:
    tee = SnpTee()
    tee.lies["host_data"] = bytes(32)
    refused_for(tee.appraise(), "host_data_mismatch")


def test_step_19_refuses_a_document_without_register_16() -> None:
    tee = NitroTee()
    tee.enclave.locked.discard(NITRO_PCR)  # extended, but anybody could extend it further
    refused_for(tee.appraise(), "pcr_missing")


def test_step_19_refuses_register_16_extended_twice() -> None:
    tee = NitroTee()
    tee.enclave.locked.discard(NITRO_PCR)
    tee.enclave.extend(NITRO_PCR, nitro_pcr_event(digest_bytes(OTHER)))
    tee.enclave.lock(NITRO_PCR)
    refused_for(tee.appraise(), "measurement_mismatch")


def test_step_19_refuses_register_16_never_extended() -> None:
    tee = NitroTee()
    tee.enclave.pcrs[NITRO_PCR] = bytes(48)
    refused_for(tee.appraise(), "measurement_mismatch")


@pytest.mark.parametrize("make", [AzureSnpTee, AzureTdxTee])
def test_step_19_refuses_register_11_extended_twice(
    make: type[AzureSnpTee] | type[AzureTdxTee],
) -> None:
    tee = make()
    tee.vm.tpm.measure(11, digest_bytes(OTHER))
    refused_for(tee.appraise(), "pcr_mismatch")


@every_kind
def test_step_20_refuses_a_binding_that_claims_another_image(make: type[HardwareTee]) -> None:
    tee = make()
    tee.facts["image"] = OTHER
    refused_for(tee.appraise(), "image_mismatch")


@every_kind
def test_step_21_refuses_a_measurement_the_policy_does_not_list(make: type[HardwareTee]) -> None:
    tee = make()
    tee.rule["measurements"] = [OTHER]
    refused_for(tee.appraise(), "measurement_not_accepted")


@every_kind
def test_step_21_refuses_a_denied_measurement_though_it_is_listed(make: type[HardwareTee]) -> None:
    tee = make()
    tee.demands["deny"] = {"measurements": [tee.measurement()]}
    refused_for(tee.appraise(), "denied")
