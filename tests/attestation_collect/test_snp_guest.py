"""The SNP attester: only the worker the VM was launched for; reports of this guest, for us."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulators.configfs_tsm import ULONG, Clock, ConfigfsTsm, Provider
from simulators.snp_report import GUIDS, table

from attestation.binding import report_data
from attestation.collect.hardware import HardwareAttester
from attestation.collect.snp import SnpGuest
from attestation.collect.tsm import Tsm
from attestation.formats.container import parse_container
from attestation.measurement import combine, digest_bytes
from attestation.registers import host_data_value
from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = Path("/sys/kernel/config/tsm/report")
PARTS = {"model": "sha256:" + "ab" * 32, "args": "sha256:" + "cd" * 32}
HOST_DATA = host_data_value(digest_bytes(combine(PARTS)))
BINDING = b'{"a":"binding"}'


class Snp:
    """A guest launched with some host data."""

    def __init__(self) -> None:
        self.host_data = HOST_DATA
        self.edit: Callable[[bytes], bytes] = lambda report: report
        self.auxblob = b""
        files = frozenset({"auxblob", "privlevel", "privlevel_floor"})
        self.kernel = ConfigfsTsm(BASE, Provider("sev_guest", self._report, files))
        clock = Clock()
        tsm = Tsm(BASE, self.kernel, monotonic=clock.monotonic, sleep=clock.sleep)
        self.attester = HardwareAttester(SnpGuest(tsm))

    def _report(self, asked: bytes, level: int) -> tuple[bytes, bytes]:
        report = bytearray(1184)
        report[0x30] = level
        report[0x50:0x90], report[0xC0:0xE0] = asked, self.host_data
        return self.edit(bytes(report)), self.auxblob


@pytest.fixture
def snp() -> Snp:
    return Snp()


def test_the_worker_the_vm_was_launched_for_may_start(snp: Snp) -> None:
    assert snp.attester.measure(PARTS) == combine(PARTS)


@pytest.mark.parametrize(
    "host_data", [bytes(32), HOST_DATA[:-1] + b"\0", digest_bytes(combine(PARTS))]
)
def test_any_other_worker_may_not_and_the_operator_hears_the_value(
    snp: Snp, host_data: bytes
) -> None:
    snp.host_data = host_data
    with pytest.raises(ConfigError, match="HOST_DATA") as caught:
        snp.attester.measure(PARTS)
    assert HOST_DATA.hex() in caught.value.hint


def test_the_first_report_is_over_random_bytes_not_a_replayed_one(snp: Snp) -> None:
    old = bytearray(1184)
    old[0xC0:0xE0] = HOST_DATA
    snp.edit = lambda _: bytes(old)
    with pytest.raises(UnavailableError, match="other report data"):
        snp.attester.measure(PARTS)


def test_a_report_goes_out_with_the_parts(snp: Snp) -> None:
    snp.attester.measure(PARTS)
    evidence = snp.attester.attest(BINDING, 0)
    assert evidence.kind == "amd-sev-snp-report"
    found = parse_container(evidence.body, ("report",), ())
    assert found.parts == PARTS
    assert found.roles["report"][0x50:0x90] == report_data(BINDING)


def test_the_hosts_certificates_go_along(snp: Snp) -> None:
    snp.auxblob = table({"vcek": b"certificate"})
    snp.attester.measure(PARTS)
    found = parse_container(snp.attester.attest(BINDING, 0).body, ("report",), ("auxblob",))
    assert found.roles["auxblob"] == snp.auxblob


@pytest.mark.parametrize(
    "auxblob",
    [b"", bytes(24), bytes(4096), b"\xff" * 23, table({"vcek": b"x"})[:-1], GUIDS["vcek"] * 100],
)
def test_a_table_of_no_use_does_not_go_along_and_stops_nothing(snp: Snp, auxblob: bytes) -> None:
    snp.auxblob = auxblob
    snp.attester.measure(PARTS)
    parse_container(snp.attester.attest(BINDING, 0).body, ("report",), ())


@pytest.mark.parametrize("length", [1183, 1185, 4000])
def test_a_report_of_another_length_is_not_sent(snp: Snp, length: int) -> None:
    snp.attester.measure(PARTS)
    snp.edit = lambda report: (report + bytes(4000))[:length]
    with pytest.raises(UnavailableError, match=f"found {length} bytes, expected 1184"):
        snp.attester.attest(BINDING, 0)


def test_a_guest_below_level_0_reports_its_own_level(snp: Snp) -> None:
    assert snp.kernel.provider is not None
    snp.kernel.provider.floor = 2
    snp.attester.measure(PARTS)
    found = parse_container(snp.attester.attest(BINDING, 0).body, ("report",), ())
    assert found.roles["report"][0x30] == 2


def test_a_report_for_another_binding_is_not_sent(snp: Snp) -> None:
    snp.attester.measure(PARTS)
    snp.edit = lambda report: report[:0x50] + bytes(64) + report[0x90:]
    with pytest.raises(UnavailableError, match="other report data"):
        snp.attester.attest(BINDING, 0)


def test_an_input_the_kernel_dropped_in_silence_gives_no_evidence(snp: Snp) -> None:
    """On close a refused write is thrown away; the count alone would then pass another's input."""
    snp.attester.measure(PARTS)

    def take_the_place_of_ours(folder: Path) -> None:
        snp.kernel.write(folder / "inblob", b"\xee" * 64)
        item = snp.kernel.items[folder.name]
        item.read_generation = (item.write_generation + 1) % ULONG

    snp.kernel.when("read", "generation", take_the_place_of_ours)
    with pytest.raises(UnavailableError, match="other report data"):
        snp.attester.attest(BINDING, 0)


def test_nothing_is_attested_before_it_is_measured(snp: Snp) -> None:
    with pytest.raises(RuntimeError, match="measure the worker first"):
        snp.attester.attest(BINDING, 0)


def test_a_credential_challenge_is_refused(snp: Snp) -> None:
    with pytest.raises(UnavailableError, match="no TPM"):
        snp.attester.activate({})
    assert snp.attester.trust_anchor() == "vendor"
    snp.attester.close()
