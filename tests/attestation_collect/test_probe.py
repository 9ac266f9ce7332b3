"""Probing: every place is looked at once, a choice that is not there is an error with findings."""

from pathlib import Path

import pytest
from simulators.configfs_tsm import Clock, ConfigfsTsm, Provider

from attestation.collect.probe import Findings, probe
from attestation.collect.tsm import Tsm
from wire.errors import ConfigError

BASE = Path("/sys/kernel/config/tsm/report")


class Machine:
    """Places a probe looks at, empty at first."""

    def __init__(self, folder: Path) -> None:
        self.kernel = ConfigfsTsm(BASE)
        self.nsm, self.tpm, self.gpu = folder / "nsm", folder / "tpm0", folder / "nvidiactl"

    def driver(self, name: str) -> None:
        self.kernel.provider = Provider(name, lambda data, _: (data, b""))

    def probe(self) -> Findings:
        clock = Clock()
        tsm = Tsm(BASE, self.kernel, monotonic=clock.monotonic, sleep=clock.sleep)
        return probe(tsm, self.nsm, (self.tpm,), (self.gpu,))


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
    for kind in ("intel-tdx-quote", "amd-sev-snp-report", "aws-nitro-document"):
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
    assert len(probe().items) == 4
