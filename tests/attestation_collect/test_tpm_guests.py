"""Machines with a TPM, from a real swtpm through the collector to the verdict of an appraisal."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.event_log import EventLog
from simulators.hardware_tee import BOOT_CODE, pem
from simulators.intel import Intel
from simulators.tee import refused
from simulators.tpm_machine import (
    ECC_AK,
    INDEX_MAX,
    RSA_AK,
    QuotingService,
    TpmMachine,
    azure_snp,
    azure_tdx,
    quoting,
)
from simulators.vtpm import VtpmMaker, rsa_key

from attestation.binding import report32
from attestation.collect.azure import TDX_KIND, AzureGuest
from attestation.collect.hardware import HardwareAttester
from attestation.collect.tpm_device import TpmDevice
from attestation.collect.tpm_quote import TpmQuoteGuest
from attestation.collect.tpm_tools import TpmTools
from attestation.formats.container import parse_container
from attestation.formats.tpm_structures import parse_quote
from attestation.result import AppraisedEvidence, Refused
from attestation.schemes import SCHEMES
from wire.errors import ConfigError, UnavailableError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from simulators.hardware_tee import HardwareTee

    from attestation.evidence import Evidence

pytestmark = pytest.mark.tpm


def accepted(verdict: AppraisedEvidence | Refused) -> AppraisedEvidence:
    assert isinstance(verdict, AppraisedEvidence), verdict
    return verdict


def measured(tee: Any) -> Any:
    tee.attester.measure(tee.parts)
    return tee


def roles(evidence: Evidence) -> Mapping[str, bytes]:
    return parse_container(evidence.body, *SCHEMES[evidence.kind].evidence).roles


# ---------------------------------------------------------------- tpm2-quote


@pytest.mark.parametrize("ak", [RSA_AK, ECC_AK])
def test_a_machine_with_a_certified_key_is_accepted_as_a_virtual_tpm_and_no_more(
    booted: TpmMachine, ak: str
) -> None:
    tee = measured(quoting(booted, ak))
    verdict = accepted(tee.appraise())
    assert (verdict.kind, verdict.trust) == ("tpm2-quote", "vtpm")
    assert tee.attester.trust == "vtpm"


def test_the_quote_covers_boot_and_worker_and_not_what_a_running_system_measures(
    booted: TpmMachine,
) -> None:
    tee = measured(quoting(booted))
    found = roles(tee.evidence(tee.binding()))
    quote = parse_quote(found["quote_msg"])
    assert quote.extra_data == report32(tee.binding())
    (selection,) = quote.selections
    assert (selection.bank, selection.registers) == ("sha256", (*range(10), *range(11, 15)))
    assert set(json.loads(found["pcrs"])["sha256"]) == {str(n) for n in selection.registers}


def test_a_key_that_the_policy_lists_needs_no_certificate(booted: TpmMachine) -> None:
    tee = measured(quoting(booted, certificate=""))
    guest = TpmQuoteGuest(booted.device(), certificate="")
    assert "ak_cert" not in roles(tee.evidence(tee.binding()))
    del tee.rule["roots"]
    tee.rule["aks"] = [guest.fingerprint]
    assert accepted(tee.appraise()).trust == "vtpm"


def test_a_known_index_with_a_certificate_of_another_key_is_passed_over(
    booted: TpmMachine,
) -> None:
    tee = quoting(booted, ECC_AK)
    booted.define("0x01c10002", tee.maker.certify(booted.key(RSA_AK)))
    guest = TpmQuoteGuest(booted.device(), chain=tee.maker.issuer)
    tee.attester = HardwareAttester(guest, trust="vtpm")
    accepted(measured(tee).appraise())


def test_a_certificate_in_the_index_that_was_named_goes_along(booted: TpmMachine) -> None:
    tee = quoting(booted)
    booted.define("0x01c20000", tee.maker.certify(booted.key(ECC_AK)), size=1024)
    guest = TpmQuoteGuest(
        booted.device(), ak=ECC_AK, certificate="0x01c20000", chain=tee.maker.issuer
    )
    tee.attester = HardwareAttester(guest, trust="vtpm")
    accepted(measured(tee).appraise())


def test_a_named_index_must_certify_the_key(booted: TpmMachine) -> None:
    maker = VtpmMaker()
    booted.define("0x01c10000", maker.certify(rsa_key("somebody's")))
    with pytest.raises(ConfigError, match="found a certificate of another key"):
        TpmQuoteGuest(booted.device(), certificate="0x01c10000")
    booted.define("0x01c10002", b"no certificate")
    booted.define("0x01c10006", b"\x30\x82\x00\x04junk")
    for index, what in (
        ("0x01c10002", "no certificate"),
        ("0x01c10004", "no certificate"),
        ("0x01c10006", "a certificate of another key"),
    ):
        with pytest.raises(ConfigError, match=f"NV {index}: found {what}") as caught:
            TpmQuoteGuest(booted.device(), certificate=index)
        assert caught.value.hint


@pytest.mark.parametrize("measured_code", [b"boot loader and kernel", b"another kernel"])
def test_the_firmwares_log_goes_along_and_must_explain_the_boot(
    booted: TpmMachine, tmp_path: Path, measured_code: bytes
) -> None:
    log = EventLog(("sha256",))
    log.measure(4, measured_code)
    path = tmp_path / "log"
    path.write_bytes(log.encode())
    tee = measured(quoting(booted, log=path))
    tee.rule["event_log"] = "required"
    assert roles(tee.evidence(tee.binding()))["event_log"] == log.encode()
    if hashlib.sha256(measured_code).digest() == BOOT_CODE:
        accepted(tee.appraise())
    else:
        refused(tee.appraise(), "event_log_mismatch")


@pytest.mark.parametrize("content", [None, b"", b"no log at all, but bytes"])
def test_a_log_that_cannot_be_read_or_is_none_stays_behind(
    booted: TpmMachine, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    tee = measured(quoting(booted, log=path))
    assert "event_log" not in roles(tee.evidence(tee.binding()))
    accepted(tee.appraise())


def test_a_chain_that_is_no_certificates_stops_the_start(booted: TpmMachine) -> None:
    with pytest.raises(
        ConfigError, match="attestation key's chain: expected certificates"
    ) as caught:
        TpmQuoteGuest(booted.device(), chain=b"no certificates")
    assert "DER or PEM" in caught.value.hint


def test_another_boot_is_refused(booted: TpmMachine) -> None:
    booted.extend(4, BOOT_CODE)
    refused(measured(quoting(booted)).appraise(), "pcr_not_accepted")


def test_a_quote_for_another_binding_is_refused(booted: TpmMachine) -> None:
    tee = measured(quoting(booted))
    evidence = tee.evidence(tee.binding())
    tee.facts["epoch"] = 1
    refused(tee.appraise(evidence=[evidence]), "nonce_mismatch")


def test_a_certificate_of_another_cloud_is_refused(booted: TpmMachine) -> None:
    tee = measured(quoting(booted))
    tee.rule["roots"] = [pem(VtpmMaker("look-alike", tee.now).root)]
    refused(tee.appraise(), "untrusted_root")


def test_a_key_that_is_no_attestation_key_is_refused_at_once(booted: TpmMachine) -> None:
    with pytest.raises(ConfigError, match="0x81010001") as caught:
        TpmQuoteGuest(booted.device(), ak="0x81010001")
    assert "tpm2_createak" in caught.value.hint


# ---------------------------------------------------------------- the register


@pytest.mark.parametrize("make", [quoting, azure_snp])
def test_the_register_is_extended_once_however_often_the_launcher_starts(
    booted: TpmMachine, make: Any
) -> None:
    tee = measured(make(booted))
    again = HardwareAttester(tee.attester._guest)
    again.measure(tee.parts)
    accepted(tee.appraise())


@pytest.mark.parametrize("make", [quoting, azure_snp])
def test_a_register_that_somebody_else_extended_stops_the_start(
    booted: TpmMachine, make: Any
) -> None:
    booted.extend(11, b"\1" * 32)
    tee = make(booted)
    with pytest.raises(ConfigError, match="PCR 11: found another value") as caught:
        tee.attester.measure(tee.parts)
    assert "restart the guest" in caught.value.hint


@pytest.mark.parametrize("make", [quoting, azure_snp])
def test_a_register_extended_after_the_start_gives_no_evidence(
    booted: TpmMachine, make: Any
) -> None:
    tee = measured(make(booted))
    booted.extend(11, b"\1" * 32)
    with pytest.raises(UnavailableError, match="found another value of PCR 11"):
        tee.evidence(tee.binding())


# ---------------------------------------------------------------- Azure


def test_an_azure_vm_on_amd_is_accepted(booted: TpmMachine) -> None:
    tee = measured(azure_snp(booted))
    verdict = accepted(tee.appraise())
    assert (verdict.kind, verdict.trust) == ("azure-vtpm-snp", "simulated")
    assert set(roles(tee.evidence(tee.binding()))) == {
        "hcl_report", "quote_msg", "quote_sig", "pcrs",
    }  # fmt: skip


def test_an_azure_vm_on_intel_is_accepted_with_the_hosts_quote(
    booted: TpmMachine, quoting_service: QuotingService
) -> None:
    tee = measured(azure_tdx(booted, quoting_service))
    verdict = accepted(tee.appraise())
    assert (verdict.kind, verdict.trust) == ("azure-vtpm-tdx", "simulated")
    tee.evidence(tee.binding())
    assert [path for path, _ in quoting_service.asked] == ["/acc/tdquote"], "once a report"


@pytest.mark.parametrize("make", [azure_snp, azure_tdx])
def test_another_boot_of_an_azure_vm_is_refused(
    booted: TpmMachine, quoting_service: QuotingService, make: Any
) -> None:
    tee: HardwareTee = measured(
        make(booted) if make is azure_snp else make(booted, quoting_service)
    )
    booted.extend(4, b"\1" * 32)
    refused(tee.appraise(), "pcr_not_accepted")


def test_another_paravisor_is_refused(booted: TpmMachine) -> None:
    tee = measured(azure_snp(booted))
    tee.rule["image"] = {"measurement_in": ["11" * 48]}
    refused(tee.appraise(), "image_not_accepted")


def test_a_vm_whose_key_is_not_the_reports_is_refused_at_once(booted: TpmMachine) -> None:
    tee = azure_snp(booted)
    booted.remove(RSA_AK)
    tools = booted.tpm.tools
    tools.tool(
        "createak", "-C", "0x81010001", "-c", "work/ak.ctx", "-G", "rsa", "-g", "sha256",
        "-s", "rsassa", "-u", "work/ak.pub",
    )  # fmt: skip
    tools.tool("flushcontext", "-t")
    tools.tool("evictcontrol", "-C", "o", "-c", "work/ak.ctx", RSA_AK)
    tools.tool("flushcontext", "-t")
    with pytest.raises(UnavailableError, match="another key than the paravisor's report names"):
        tee.attester.measure(tee.parts)
    assert booted.device().registers((11,))[11] == bytes(32), "nothing was extended"


def test_a_vm_of_the_other_vendor_is_refused_with_the_right_name(booted: TpmMachine) -> None:
    tee = azure_snp(booted)
    guest = AzureGuest(TDX_KIND, booted.device())
    with pytest.raises(ConfigError, match="found a report of SEV-SNP") as caught:
        HardwareAttester(guest).measure(tee.parts)
    assert "azure-vtpm-snp" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, ConfigError, "found no such index"),
        (b"HCLA" + bytes(100), UnavailableError, "HCL report: found"),
        (b"X" * INDEX_MAX, UnavailableError, "HCL report: found"),
    ],
)
def test_an_index_without_a_report_is_no_azure_vm(
    booted: TpmMachine, content: bytes | None, error: type[Exception], said: str
) -> None:
    if content is not None:
        booted.define("0x01400001", content)
    guest = AzureGuest(TDX_KIND, booted.device())
    with pytest.raises(error, match=said):
        HardwareAttester(guest).measure({"model": "sha256:" + "ab" * 32})


def test_a_quote_of_another_td_does_not_leave_the_vm(
    booted: TpmMachine, quoting_service: QuotingService
) -> None:
    tee = measured(azure_tdx(booted, quoting_service))
    wrong = quoting_service.quote(bytes(1024))
    body = json.dumps({"quote": b64u(wrong)}).encode()
    quoting_service.answers = [(200, body)]
    with pytest.raises(UnavailableError, match="two TDs'"):
        tee.evidence(tee.binding())


@pytest.mark.parametrize("made", [b"no quote", Intel("sgx").quote()])
def test_what_is_no_quote_of_a_td_does_not_leave_the_vm(
    booted: TpmMachine, quoting_service: QuotingService, made: bytes
) -> None:
    tee = measured(azure_tdx(booted, quoting_service))
    quoting_service.answers = [(200, json.dumps({"quote": b64u(made)}).encode())]
    with pytest.raises(UnavailableError, match="found"):
        tee.evidence(tee.binding())
    accepted(tee.appraise())


def test_the_guest_and_its_tpm_are_closed_with_the_attester(made_tpm: Path) -> None:
    del made_tpm  # tpm2-tools are there
    for guest in (AzureGuest(TDX_KIND), AzureGuest("azure-vtpm-snp")):
        folder = guest._device._tools.folder
        assert folder.exists()
        HardwareAttester(guest).close()
        assert not folder.exists()


def test_an_attestation_key_that_fails_closes_its_tpm(booted: TpmMachine, tmp_path: Path) -> None:
    folder = tmp_path / "made for the tools"
    folder.mkdir()
    socket = tmp_path / "t" / "s"
    device = TpmDevice(TpmTools(folder, f"swtpm:path={socket}"), own=True)
    with pytest.raises(ConfigError, match="found no persistent key"):
        TpmQuoteGuest(device, ak="0x81001234")
    assert not folder.exists()
