"""Probing: every place is looked at once, a choice that is not there is an error with findings."""

from pathlib import Path

import pytest
from simulators.configfs_tsm import Clock, ConfigfsTsm, Provider
from simulators.tpm_machine import TpmMachine, azure_snp

from attestation.collect.probe import AZURE_TAG, HARDWARE, Findings, probe, reported
from attestation.collect.tpm_device import TpmDevice
from attestation.collect.tpm_tools import TpmTools
from attestation.collect.tsm import Tsm
from wire.errors import AnchorholdError, ConfigError, UnavailableError

BASE = Path("/sys/kernel/config/tsm/report")


class Machine:
    """Places a probe looks at, empty at first."""

    def __init__(self, folder: Path) -> None:
        self.kernel = ConfigfsTsm(BASE)
        self.nsm, self.tpm, self.gpu = folder / "nsm", folder / "tpmrm0", folder / "nvidiactl"
        self.tag = folder / "chassis_asset_tag"
        self.report: str | AnchorholdError | None = None
        self.asked = 0

    def driver(self, name: str) -> None:
        self.kernel.provider = Provider(name, lambda data, _: (data, b""))

    def probe(self) -> Findings:
        clock = Clock()
        tsm = Tsm(BASE, self.kernel, monotonic=clock.monotonic, sleep=clock.sleep)
        return probe(
            tsm, self.nsm, self.tpm, (self.gpu,), report=self._reported, asset_tag=self.tag
        )

    def azure(self, report: str | AnchorholdError | None) -> None:
        self.tpm.write_bytes(b"")
        self.tag.write_bytes(AZURE_TAG + b"\n")
        self.report = report

    def _reported(self) -> str | None:
        self.asked += 1
        if isinstance(self.report, AnchorholdError):
            raise self.report
        return self.report


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("driver", "kind"),
    [("tdx_guest", "intel-tdx-quote"), ("sev_guest", "amd-sev-snp-report")],
)
def test_the_configfs_provider_decides(machine: Machine, driver: str, kind: str) -> None:
    machine.driver(driver)
    assert machine.probe().choose() == kind
    assert machine.kernel.items == {}


def test_an_nsm_device_is_a_nitro_enclave(machine: Machine) -> None:
    machine.nsm.write_bytes(b"")
    assert machine.probe().choose() == "aws-nitro-document"


def test_nothing_found_names_every_place(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="found none") as caught:
        machine.probe().choose()
    for place in (str(BASE), str(machine.nsm), str(machine.tpm), str(machine.gpu)):
        assert place in caught.value.message
    assert "No such device" in caught.value.message
    assert caught.value.hint


def test_a_tpm_is_said_and_not_chosen(machine: Machine) -> None:
    machine.tpm.write_bytes(b"")
    assert "names no CPU" in machine.probe().describe()
    with pytest.raises(ConfigError, match="found none"):
        machine.probe().choose()


def test_a_tpm_is_taken_where_it_is_named(machine: Machine) -> None:
    with pytest.raises(ConfigError, match=r"expected tpm2-quote, found .*absent"):
        machine.probe().choose("tpm2-quote")
    machine.tpm.write_bytes(b"")
    assert machine.probe().choose("tpm2-quote") == "tpm2-quote"


@pytest.mark.parametrize("kind", ["azure-vtpm-snp", "azure-vtpm-tdx"])
def test_a_paravisors_report_is_an_azure_vm(machine: Machine, kind: str) -> None:
    machine.azure(kind)
    assert machine.probe().choose() == kind
    assert machine.probe().choose(kind) == kind
    assert "NV 0x01400001: in an Azure VM: a paravisor's report" in machine.probe().describe()
    machine.tag.unlink()
    assert machine.probe().choose() == kind, "the report decides, not the tag"


def test_the_asset_tag_alone_is_no_confidential_vm(machine: Machine) -> None:
    machine.azure(None)
    assert "in an Azure VM: no report" in machine.probe().describe()
    with pytest.raises(ConfigError, match="found none"):
        machine.probe().choose()


def test_a_report_that_cannot_be_read_is_said_and_not_chosen(machine: Machine) -> None:
    machine.azure(UnavailableError("tpm2 nvread: does not end, expected it within 10 s"))
    findings = machine.probe()
    assert "in an Azure VM: cannot be read (tpm2 nvread: does not end" in findings.describe()
    with pytest.raises(ConfigError, match="found none"):
        findings.choose()


def test_no_tpm_is_asked_where_there_is_none(machine: Machine) -> None:
    machine.report = "azure-vtpm-snp"
    assert "NV 0x01400001: no TPM" in machine.probe().describe()
    assert machine.asked == 0


def test_the_cpus_own_evidence_comes_before_a_virtual_tpms(machine: Machine) -> None:
    machine.azure("azure-vtpm-snp")
    machine.driver("sev_guest")
    assert machine.probe().choose() == "amd-sev-snp-report"
    assert machine.probe().choose("azure-vtpm-snp") == "azure-vtpm-snp"


def test_gpus_are_said_and_not_chosen(machine: Machine) -> None:
    assert f"{machine.gpu}: absent" in machine.probe().describe()
    machine.gpu.write_bytes(b"")
    assert f"{machine.gpu}: GPUs, which attest only beside a CPU" in machine.probe().describe()
    with pytest.raises(ConfigError, match="found none"):
        machine.probe().choose()


def test_a_provider_this_version_does_not_know_is_said_and_not_chosen(machine: Machine) -> None:
    machine.driver("arm_cca_guest")
    with pytest.raises(ConfigError, match="provider arm_cca_guest, which this version does not"):
        machine.probe().choose()


def test_an_explicit_choice_that_is_here_is_taken(machine: Machine) -> None:
    machine.driver("tdx_guest")
    assert machine.probe().choose("intel-tdx-quote") == "intel-tdx-quote"


@pytest.mark.parametrize("wanted", ["bogus", "tpm2", "software", ""])
def test_a_kind_that_no_machine_has_is_told_from_one_that_is_not_here(
    machine: Machine, wanted: str
) -> None:
    machine.driver("tdx_guest")
    with pytest.raises(ConfigError, match=f"found '{wanted}', expected auto, ") as refused:
        machine.probe().choose(wanted)
    for kind in HARDWARE:
        assert kind in refused.value.message


@pytest.mark.parametrize("wanted", ["amd-sev-snp-report", "aws-nitro-document"])
def test_an_explicit_choice_that_is_not_here_is_never_replaced(
    machine: Machine, wanted: str
) -> None:
    machine.driver("tdx_guest")
    with pytest.raises(ConfigError, match=f"expected {wanted}, found .*tdx_guest"):
        machine.probe().choose(wanted)


def test_two_kinds_at_once_must_be_chosen_between(machine: Machine) -> None:
    machine.driver("tdx_guest")
    machine.nsm.write_bytes(b"")
    with pytest.raises(ConfigError, match="intel-tdx-quote and aws-nitro-document"):
        machine.probe().choose()


def test_this_very_machine_can_be_probed() -> None:
    assert len(probe().items) == 5


@pytest.mark.tpm
def test_a_paravisors_report_is_found_in_a_real_tpm(booted: TpmMachine) -> None:
    assert reported(booted.device()) is None
    tee = azure_snp(booted)
    folder = booted.tpm.work / "made for the tools"
    folder.mkdir()
    tools = TpmTools(folder, f"swtpm:path={booted.tpm.tools.folder / 's'}")
    assert reported(TpmDevice(tools, own=True)) == tee.kind
    assert not folder.exists()
