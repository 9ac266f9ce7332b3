"""The TDX attester: one extension of RTMR3, quotes of this VM for this binding and nothing else."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.configfs_tsm import Clock, ConfigfsTsm, Provider, Registers

from attestation.binding import report_data
from attestation.collect.hardware import HardwareAttester
from attestation.collect.tdx import CCEL_MAX, RTMR, TdxGuest, read_ccel
from attestation.collect.tsm import Tsm
from attestation.formats.container import parse_container
from attestation.measurement import combine, digest_bytes
from attestation.registers import rtmr_event, rtmr_value
from wire.errors import ConfigError, UnavailableError

BASE = Path("/sys/kernel/config/tsm/report")
MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
PARTS = {"model": "sha256:" + "ab" * 32, "args": "sha256:" + "cd" * 32}
OTHER_PARTS = {**PARTS, "args": "sha256:" + "ef" * 32}
BINDING = b'{"a":"binding"}'
WANTED = rtmr_value(digest_bytes(combine(PARTS)))

Edit = Callable[[bytes], bytes]


class Td:
    """A TD with registers, quotes and one attester."""

    def __init__(self, version: int = 4) -> None:
        self.version = version
        self.edit: Edit = lambda quote: quote
        self.registers = Registers(MEASUREMENTS)
        self.kernel = ConfigfsTsm(BASE, Provider("tdx_guest", self._quote))
        clock = Clock()
        self.tsm = Tsm(BASE, self.kernel, monotonic=clock.monotonic, sleep=clock.sleep)
        self.attester = self.new_attester()

    def new_attester(self) -> HardwareAttester:
        return HardwareAttester(TdxGuest(self.tsm, MEASUREMENTS, self.registers))

    def _quote(self, asked: bytes, _: int) -> tuple[bytes, bytes]:
        body = bytearray(584 if self.version == 4 else 648)
        body[472:520] = self.registers.values[RTMR]
        body[520:584] = asked
        header = self.version.to_bytes(2, "little") + bytes(46)
        if self.version == 5:
            header += (3).to_bytes(2, "little") + len(body).to_bytes(4, "little")
        return self.edit(header + bytes(body) + b"signature"), b""


@pytest.fixture
def td() -> Td:
    return Td()


def test_rtmr3_holds_exactly_one_extension_by_the_measurement(td: Td) -> None:
    assert td.attester.measure(PARTS) == combine(PARTS)
    assert td.registers.values[RTMR] == WANTED
    event = rtmr_event(digest_bytes(combine(PARTS)))
    assert hashlib.sha384(bytes(48) + event).digest() == WANTED
    assert td.registers.writes == 1


def test_measuring_twice_extends_once(td: Td) -> None:
    td.attester.measure(PARTS)
    td.attester.measure(PARTS)
    assert td.registers.writes == 1


def test_a_launcher_that_starts_again_in_the_same_vm_finds_its_own_value(td: Td) -> None:
    td.attester.measure(PARTS)
    assert td.new_attester().measure(PARTS) == combine(PARTS)
    assert td.registers.writes == 1


def test_another_worker_in_the_same_vm_is_refused(td: Td) -> None:
    td.attester.measure(PARTS)
    with pytest.raises(ConfigError, match="found another value") as caught:
        td.new_attester().measure(OTHER_PARTS)
    assert "Start the VM again" in caught.value.hint
    assert td.registers.writes == 1


def test_a_register_somebody_extended_before_is_refused(td: Td) -> None:
    td.registers.extend(RTMR, bytes(48))
    with pytest.raises(ConfigError, match="found another value"):
        td.attester.measure(PARTS)
    assert td.registers.writes == 0


def test_a_register_somebody_extends_in_between_is_refused(td: Td) -> None:
    td.registers.after_write = lambda: td.registers.extend(RTMR, b"x" * 48)
    with pytest.raises(ConfigError, match="after extending it once"):
        td.attester.measure(PARTS)


def test_other_parts_in_the_same_run_are_a_mistake(td: Td) -> None:
    td.attester.measure(PARTS)
    with pytest.raises(RuntimeError, match="other parts"):
        td.attester.measure(OTHER_PARTS)


def test_a_short_write_to_the_register_is_refused(td: Td) -> None:
    td.registers.short.append(32)
    with pytest.raises(UnavailableError, match="found 32 bytes taken, expected 48"):
        td.attester.measure(PARTS)


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOENT, "Linux 6.16"), (errno.EACCES, "as root")]
)
def test_a_register_out_of_reach_is_said_with_what_to_do(td: Td, number: int, hint: str) -> None:
    td.registers.fails.append(number)
    with pytest.raises(UnavailableError) as caught:
        td.attester.measure(PARTS)
    assert hint in caught.value.hint


def test_a_busy_module_is_asked_again_and_extended_once(td: Td) -> None:
    td.registers.write_fails.extend([errno.EBUSY] * 3)
    td.attester.measure(PARTS)
    assert td.registers.values[RTMR] == WANTED
    assert td.registers.writes == 1


def test_a_module_that_stays_busy_ends_in_an_error(td: Td) -> None:
    td.registers.write_fails.extend([errno.EBUSY] * 100)
    with pytest.raises(UnavailableError, match="busy 4 times"):
        td.attester.measure(PARTS)
    assert td.registers.values[RTMR] == bytes(48)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.EINVAL])
def test_a_module_that_refuses_is_not_asked_again(td: Td, number: int) -> None:
    td.registers.write_fails.append(number)
    with pytest.raises(UnavailableError, match="expected to read and extend"):
        td.attester.measure(PARTS)
    assert td.registers.writes == 0


def test_what_the_kernel_extended_unseen_is_seen_when_ours_is_read_back(td: Td) -> None:
    """The files answer from a copy: it still says zero when the register no longer is."""
    assert td.registers.read(MEASUREMENTS / RTMR, 48) == bytes(48)
    td.registers.extend_inside(RTMR, b"k" * 48)
    with pytest.raises(ConfigError, match="after extending it once"):
        td.attester.measure(PARTS)


def test_what_the_kernel_extends_later_is_seen_in_the_quote(td: Td) -> None:
    td.attester.measure(PARTS)
    td.registers.extend_inside(RTMR, b"k" * 48)
    with pytest.raises(UnavailableError, match="another RTMR3"):
        td.attester.attest(BINDING, 0)


def test_a_register_of_another_size_is_refused(td: Td) -> None:
    td.registers.values[RTMR] = bytes(32)
    with pytest.raises(UnavailableError, match="found 32 bytes"):
        td.attester.measure(PARTS)


@pytest.mark.parametrize("version", [4, 5])
def test_a_quote_goes_out_with_the_parts_it_was_measured_from(version: int) -> None:
    td = Td(version)
    td.attester.measure(PARTS)
    evidence = td.attester.attest(BINDING, 0)
    assert evidence.kind == "intel-tdx-quote"
    found = parse_container(evidence.body, ("quote",), ())
    assert found.parts == PARTS
    assert report_data(BINDING) in found.roles["quote"]


def test_nothing_is_attested_before_it_is_measured(td: Td) -> None:
    with pytest.raises(RuntimeError, match="measure the worker first"):
        td.attester.attest(BINDING, 0)


def test_a_host_that_does_not_quote_at_first_is_asked_again(td: Td) -> None:
    td.attester.measure(PARTS)
    td.kernel.fail("read", "outblob", errno.EIO, times=2)
    td.kernel.fail("read", "outblob", errno.EBUSY)
    assert td.attester.attest(BINDING, 0).body


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda q: q[:568] + bytes(64) + q[632:], "other report data"),
        (lambda q: q[:520] + bytes(48) + q[568:], "another RTMR3"),
        (lambda q: b"\6\0" + q[2:], "another format"),
        (lambda q: q[:600], "another format"),
        (lambda q: b"\4", "another format"),
    ],
    ids=["report data", "rtmr3", "version", "cut", "cut to a byte"],
)
def test_a_quote_of_something_else_is_not_sent(td: Td, edit: Edit, sentence: str) -> None:
    td.attester.measure(PARTS)
    td.edit = edit
    with pytest.raises(UnavailableError, match=sentence):
        td.attester.attest(BINDING, 0)


def test_a_register_extended_after_the_start_stops_the_evidence(td: Td) -> None:
    td.attester.measure(PARTS)
    td.registers.extend(RTMR, b"y" * 48)
    with pytest.raises(UnavailableError, match="another RTMR3"):
        td.attester.attest(BINDING, 0)


def test_a_credential_challenge_is_refused(td: Td) -> None:
    with pytest.raises(UnavailableError, match="no TPM"):
        td.attester.activate({})
    assert td.attester.trust_anchor() == "vendor"
    td.attester.close()


def test_the_boot_log_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "CCEL"
    with pytest.raises(UnavailableError, match="No such file") as caught:
        read_ccel(path=path)
    assert "Firmware" in caught.value.hint
    path.write_bytes(b"")
    with pytest.raises(UnavailableError, match="found nothing"):
        read_ccel(path=path)
    path.write_bytes(b"log" + b"\xff" * 100)
    assert read_ccel(path=path) == b"log" + b"\xff" * 100
    path.write_bytes(bytes(CCEL_MAX + 1))
    with pytest.raises(UnavailableError, match="too large"):
        read_ccel(path=path)
