"""Workers with a virtual TPM, appraised as a gateway does; each test changes one live fact."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from simulators.amd import Amd, Chip
from simulators.hardware_tee import BOOT_CODE, boot_registers
from simulators.hcl import Paravisor
from simulators.tee import NOW, Tee, refused
from simulators.vtpm import Vtpm, VtpmMaker

from attestation.appraise import appraise
from attestation.binding import report32
from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from attestation.measurement import digest_bytes
from attestation.policy import parse_policy
from attestation.result import AppraisedEvidence, Refused
from attestation.rules.registers import BOOT_PCR
from wire.errors import PolicyError

TPM_KIND, AZURE_KIND = "tpm2-quote", "azure-vtpm-snp"


@cache
def _amd() -> Amd:
    return Amd("Genoa", now=NOW)


@cache
def _chip() -> Chip:
    return _amd().chip()


class VtpmTee(Tee):
    """A worker in a VM whose cloud certifies its virtual TPM.

    Attributes:
        tpm: it; register 11 holds the measurement.
        collateral: what the relying party configured.
        roles: roles of the evidence that differ from the honest ones.
    """

    kind = TPM_KIND

    def __init__(self) -> None:
        super().__init__()
        self.maker = VtpmMaker(now=NOW)
        self.tpm = Vtpm(self.maker)
        self.tpm.measure(BOOT_PCR, BOOT_CODE)
        self.tpm.measure(11, digest_bytes(self.measurement()))
        self.collateral = self.maker.collateral()
        self.roles: dict[str, bytes] = {}
        self.rule |= {
            "roots": [_pem(self.maker.root)],
            "simulated": False,
            "pcrs": boot_registers(self.tpm),
            "revocation": "as_supplied",
        }

    def honest(self, nonce: bytes) -> dict[str, bytes]:
        return self.tpm.evidence(nonce)

    def evidence(self, binding_raw: bytes) -> Evidence:
        roles = {**self.honest(report32(binding_raw)), **self.roles}
        return Evidence(self.kind, encode_container(roles, self.parts))

    def appraise(self, **changes: Any) -> AppraisedEvidence | Refused:
        return super().appraise(**{"collateral": {self.kind: self.collateral}, **changes})


class AzureTee(VtpmTee):
    """A worker in an Azure confidential VM on a simulated AMD platform."""

    kind = AZURE_KIND

    def __init__(self) -> None:
        super().__init__()
        self.vm = Paravisor(_chip().report)
        self.vm.tpm.measure(BOOT_PCR, BOOT_CODE)
        self.vm.tpm.measure(11, digest_bytes(self.measurement()))
        self.collateral = _amd().collateral(vcek=_chip().cert)
        image = {"measurement_in": [_chip().facts.measurement.hex()]}
        self.rule |= {
            "roots": [_pem(_amd().root)], "min_tcb": {"Genoa": {}, "Turin": {}}, "image": image,
            "smt": True,
        }  # fmt: skip
        del self.rule["simulated"]
        self.demands["allow_simulated"] = True

    def honest(self, nonce: bytes) -> dict[str, bytes]:
        return self.vm.evidence(nonce)


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")


def test_a_certified_virtual_tpm_is_accepted_as_no_more_than_that() -> None:
    verdict = VtpmTee().appraise()
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert (verdict.kind, verdict.trust) == (TPM_KIND, "vtpm")


def test_an_azure_vm_is_accepted_and_under_a_root_of_the_policys_own_called_simulated() -> None:
    verdict = AzureTee().appraise()
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert (verdict.kind, verdict.trust) == (AZURE_KIND, "simulated")


@pytest.mark.parametrize("make", [VtpmTee, AzureTee])
def test_evidence_for_another_binding_is_refused(make: type[VtpmTee]) -> None:
    tee = make()
    other = make()
    other.facts["epoch"] = 1
    verdict = tee.appraise(evidence=[other.evidence(other.binding())])
    refused(verdict, "nonce_mismatch")


@pytest.mark.parametrize("make", [VtpmTee, AzureTee])
def test_a_worker_that_measured_something_else_is_refused(make: type[VtpmTee]) -> None:
    tee = make()
    tpm = tee.vm.tpm if isinstance(tee, AzureTee) else tee.tpm
    tpm.measure(11, b"\1" * 32)
    refused(tee.appraise(), "pcr_mismatch")


@pytest.mark.parametrize("make", [VtpmTee, AzureTee])
def test_parts_that_the_register_does_not_hold_are_refused(make: type[VtpmTee]) -> None:
    tee = make()
    binding = tee.binding()
    parts = {**tee.parts, "extra": next(iter(tee.parts.values()))}
    body = encode_container(tee.honest(report32(binding)), parts)
    verdict = tee.appraise(evidence=[Evidence(tee.kind, body)], binding_raw=binding)
    refused(verdict, "pcr_mismatch", "image_mismatch", "measurement_not_accepted")


def test_a_worker_cannot_send_the_key_it_is_to_be_trusted_by() -> None:
    tee = VtpmTee()
    tee.roles = {"ak_spki": tee.tpm.spki}
    refused(tee.appraise(), "evidence_malformed")


def test_without_the_links_to_the_policys_root_nothing_is_accepted() -> None:
    tee = VtpmTee()
    tee.collateral = {}
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "untrusted_root"


def test_a_policy_must_name_the_roots_of_virtual_tpms() -> None:
    tee = VtpmTee()
    del tee.rule["roots"]
    with pytest.raises(PolicyError):
        tee.policy()


@pytest.mark.parametrize("kind", ["tcg-event-log", "cc-event-log"])
def test_no_policy_accepts_a_worker_for_an_event_log(kind: str) -> None:
    tee = VtpmTee()
    tee.rule = {"kind": kind, "measurements": [tee.measurement()], "events": {}, "unchecked": []}
    tee.demands["accept"] = [tee.rule]
    with pytest.raises(PolicyError):
        parse_policy(json.dumps(tee.demands).encode())


def test_an_attestation_key_on_the_deny_list_is_refused() -> None:
    tee = VtpmTee()
    tee.demands["deny"] = {"keys": [hashlib.sha256(tee.tpm.spki).hexdigest()]}
    refused(tee.appraise(), "denied")


def test_another_kinds_collateral_is_not_looked_at() -> None:
    tee = VtpmTee()
    binding = tee.binding()
    verdict = appraise(
        binding,
        [tee.evidence(binding)],
        tee.posture(),
        tee.policy(),
        NOW,
        collateral={AZURE_KIND: tee.collateral},
    )
    assert isinstance(verdict, Refused)
    assert verdict.codes[0] == "untrusted_root"
