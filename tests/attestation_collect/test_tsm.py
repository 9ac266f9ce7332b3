"""configfs-tsm: what a busy, racing, slow or absent kernel may do to a report, and may not."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from simulators.configfs_tsm import LEVELS, SVSM, ULONG, Clock, ConfigfsTsm, Item, Provider

from attestation.collect.files import OsFiles
from attestation.collect.tsm import AUXBLOB_MAX, DEADLINE_S, OUTBLOB_MAX, Tsm
from enclave_worker.port import ANSWER_TIMEOUT_S
from wire.errors import ConfigError, UnavailableError

BASE = Path("/sys/kernel/config/tsm/report")
ASKED = bytes(range(64))
SNP_FILES = LEVELS | {"auxblob"}


def repeat(inblob: bytes, privlevel: int) -> tuple[bytes, bytes]:
    return b"report of " + inblob + bytes([privlevel]), b"table"


class Guest:
    """A guest whose provider repeats what it was asked."""

    def __init__(self, provider: Provider | None) -> None:
        self.kernel = ConfigfsTsm(BASE, provider)
        self.clock = Clock()
        self.tsm = Tsm(BASE, self.kernel, monotonic=self.clock.monotonic, sleep=self.clock.sleep)

    def made(self) -> int:
        return sum(call == "mkdir" for call, _ in self.kernel.calls)


@pytest.fixture
def guest() -> Guest:
    return Guest(Provider("sev_guest", repeat, SNP_FILES))


def test_a_report_is_over_the_bytes_asked_for_and_leaves_no_folder(guest: Guest) -> None:
    report = guest.tsm.report(ASKED, "sev_guest")
    assert report.outblob == b"report of " + ASKED + b"\0"
    assert (report.provider, report.auxblob) == ("sev_guest", b"table")
    assert guest.kernel.items == {}


def test_a_provider_without_auxblob_gives_an_empty_one() -> None:
    guest = Guest(Provider("tdx_guest", lambda data, _: (data, b"")))
    assert guest.tsm.report(ASKED, "tdx_guest").auxblob == b""


def test_every_report_has_a_folder_of_its_own_with_a_new_name(guest: Guest) -> None:
    for _ in range(3):
        guest.tsm.report(ASKED, "sev_guest")
    names = [name for call, name in guest.kernel.calls if call == "mkdir"]
    assert len(set(names)) == 3
    assert all(len(name) == len("anchorhold-") + 16 for name in names)


def test_a_name_that_is_taken_is_tried_no_second_time(guest: Guest) -> None:
    guest.kernel.fail("mkdir", "", errno.EEXIST)
    assert guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 2


@pytest.mark.parametrize("when", ["write inblob", "read outblob", "read auxblob"])
def test_another_writer_in_our_folder_costs_an_attempt_and_never_a_wrong_report(
    guest: Guest, when: str
) -> None:
    call, name = when.split()
    guest.kernel.when(call, name, lambda folder: _write(guest, folder, b"\xff" * 64))
    report = guest.tsm.report(ASKED, "sev_guest")
    assert ASKED in report.outblob
    assert guest.made() == 2
    assert guest.kernel.items == {}


def test_another_writer_between_count_and_input_is_noticed(guest: Guest) -> None:
    guest.kernel.when("read", "generation", lambda folder: _write(guest, folder, b"\xff" * 64))
    assert ASKED in guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 2


def test_a_report_that_changes_between_its_size_and_its_content_is_not_used(guest: Guest) -> None:
    """The kernel then gives the new content at the old size."""
    guest.kernel.provider = Provider("sev_guest", lambda data, _: (data * (1 + data[0] % 2), b""))
    guest.kernel.when("size", "outblob", lambda folder: _write(guest, folder, b"\x01" + ASKED[1:]))
    assert guest.tsm.report(ASKED, "sev_guest").outblob == ASKED
    assert guest.made() == 2


def test_an_input_that_a_full_counter_dropped_in_silence_is_noticed(guest: Guest) -> None:
    def fill(folder: Path) -> None:
        _write(guest, folder, b"\xff" * 64)
        guest.kernel.items[folder.name].write_generation = ULONG - 1

    guest.kernel.when("read", "provider", fill)
    assert ASKED in guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 2


@pytest.mark.parametrize(
    "when", ["read provider", "read generation", "write inblob", "size outblob", "read outblob"]
)
def test_a_folder_that_somebody_removes_is_made_again(guest: Guest, when: str) -> None:
    call, name = when.split()
    guest.kernel.when(call, name, guest.kernel.rmdir)
    assert ASKED in guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 2
    assert guest.kernel.items == {}


def test_folders_of_killed_and_of_other_processes_are_left_alone(guest: Guest) -> None:
    others = {"anchorhold-0011223344556677": Item(inblob=b"x" * 64), "report0": Item()}
    guest.kernel.items |= others
    guest.tsm.report(ASKED, "sev_guest")
    assert guest.kernel.items == others


def test_a_driver_that_goes_away_is_said_not_waited_for(guest: Guest) -> None:
    def unload(_: Path) -> None:
        guest.kernel.provider = None

    guest.kernel.when("read", "privlevel_floor", unload)
    with pytest.raises(UnavailableError, match="outblob: No such device") as caught:
        guest.tsm.report(ASKED, "sev_guest")
    assert "not loaded" in caught.value.hint
    assert guest.made() == 1


class Counting(ConfigfsTsm):
    """A kernel that says what no counter of its can be."""

    def read(self, path: Path, limit: int) -> bytes:
        return b"7" * 21 if path.name == "generation" else super().read(path, limit)


def test_a_count_that_no_counter_holds_is_refused() -> None:
    kernel = Counting(BASE, Provider("sev_guest", repeat, SNP_FILES))
    with pytest.raises(UnavailableError, match="generation: found no number"):
        Tsm(BASE, kernel).report(ASKED, "sev_guest")


def test_a_short_write_is_tried_again_in_a_new_folder(guest: Guest) -> None:
    guest.kernel.take_only(40)
    assert ASKED in guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 2


class Deaf(ConfigfsTsm):
    """A kernel that takes nothing of a level, once."""

    deaf = True

    def write(self, path: Path, data: bytes) -> int:
        if path.name == "privlevel" and self.deaf:
            self.deaf = False
            return 0
        return super().write(path, data)


def test_a_level_that_was_not_taken_is_tried_again_in_a_new_folder() -> None:
    kernel, clock = Deaf(BASE, Provider("sev_guest", repeat, SNP_FILES)), Clock()
    tsm = Tsm(BASE, kernel, monotonic=clock.monotonic, sleep=clock.sleep)
    assert tsm.report(ASKED, "sev_guest", privlevel=2).outblob[-1] == 2


@pytest.mark.parametrize(
    "number", [errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ETIMEDOUT]
)
def test_what_may_pass_is_tried_again(guest: Guest, number: int) -> None:
    guest.kernel.fail("read", "outblob", number, times=3)
    assert ASKED in guest.tsm.report(ASKED, "sev_guest").outblob
    assert guest.made() == 4
    assert guest.kernel.items == {}


def test_a_provider_that_stays_busy_ends_at_the_deadline(guest: Guest) -> None:
    guest.kernel.fail("read", "outblob", errno.EBUSY, times=1000)
    with pytest.raises(UnavailableError, match="busy") as caught:
        guest.tsm.report(ASKED, "sev_guest")
    assert guest.clock.now <= DEADLINE_S
    assert "attempts" in caught.value.message
    assert guest.kernel.items == {}


def waits(guest: Guest, seconds: float, number: int) -> None:
    """The provider waits so long for its host, and then fails."""

    def slow(inblob: bytes, _: int) -> tuple[bytes, bytes]:
        guest.clock.now += seconds
        raise OSError(number, os.strerror(number))

    guest.kernel.provider = Provider("tdx_guest", slow)


def test_a_slow_provider_uses_the_deadline_up_not_the_attempts(guest: Guest) -> None:
    waits(guest, 10.0, errno.ETIMEDOUT)
    with pytest.raises(UnavailableError, match="in 3 attempts"):
        guest.tsm.report(ASKED, "tdx_guest")


@pytest.mark.parametrize("busy", range(25))
def test_a_worker_hears_why_a_tdx_host_gave_no_quote(guest: Guest, busy: int) -> None:
    """The driver waits 30 s for it, whenever it is asked; the worker waits for its evidence."""
    waits(guest, 30.0, errno.ETIMEDOUT)
    guest.kernel.fail("write", "inblob", errno.EBUSY, times=busy)
    with pytest.raises(UnavailableError, match="found no report"):
        guest.tsm.report(ASKED, "tdx_guest")
    assert guest.clock.now < ANSWER_TIMEOUT_S


@pytest.mark.parametrize(
    ("call", "number", "hint"),
    [
        ("mkdir ", errno.ENXIO, "no security module"),
        ("mkdir ", errno.ENOENT, "mount -t configfs"),
        ("mkdir ", errno.EACCES, "as root"),
        ("mkdir ", errno.EPERM, "as root"),
        ("read outblob", errno.ENOTTY, "new VM"),
        ("read outblob", errno.EINVAL, "64 bytes"),
        ("read outblob", errno.EFBIG, "larger"),
        ("write inblob", errno.ENOSPC, "kernel's log"),
    ],
)
def test_what_cannot_pass_is_said_at_once_with_what_to_do(
    guest: Guest, call: str, number: int, hint: str
) -> None:
    action, _, name = call.partition(" ")
    guest.kernel.fail(action, name, number)
    with pytest.raises(UnavailableError) as caught:
        guest.tsm.report(ASKED, "sev_guest")
    assert os.strerror(number) in caught.value.message
    assert hint in caught.value.hint
    assert guest.made() == 1
    assert guest.kernel.items == {}


def test_without_a_provider_there_is_no_report() -> None:
    with pytest.raises(UnavailableError, match="No such device") as caught:
        Guest(None).tsm.report(ASKED, "sev_guest")
    assert "no security module" in caught.value.hint


def test_a_report_beyond_the_limit_is_refused(guest: Guest) -> None:
    guest.kernel.provider = Provider("sev_guest", lambda *_: (bytes(OUTBLOB_MAX + 1), b""))
    with pytest.raises(UnavailableError, match="too large"):
        guest.tsm.report(ASKED, "sev_guest")


def test_a_table_beyond_the_limit_is_refused(guest: Guest) -> None:
    guest.kernel.provider = Provider(
        "sev_guest", lambda data, _: (data, bytes(AUXBLOB_MAX + 1)), SNP_FILES
    )
    with pytest.raises(UnavailableError, match="too large"):
        guest.tsm.report(ASKED, "sev_guest")


def test_an_empty_report_is_a_failed_one(guest: Guest) -> None:
    replies = iter([b"", b"report"])
    guest.kernel.provider = Provider("sev_guest", lambda *_: (next(replies), b""))
    assert guest.tsm.report(ASKED, "sev_guest").outblob == b"report"
    assert guest.made() == 2


def test_a_report_of_another_provider_is_refused_by_name(guest: Guest) -> None:
    with pytest.raises(ConfigError, match='found provider "sev_guest", expected "tdx_guest"'):
        guest.tsm.report(ASKED, "tdx_guest")
    assert guest.kernel.items == {}


def test_a_level_is_set_before_the_input_and_shows_in_the_report(guest: Guest) -> None:
    assert guest.tsm.report(ASKED, "sev_guest", privlevel=2).outblob[-1] == 2


@pytest.mark.parametrize("floor", [1, 2, 3])
def test_a_guest_below_level_0_asks_for_the_highest_it_is_granted(guest: Guest, floor: int) -> None:
    """The kernel would ask for 0, which the firmware refuses it."""
    guest.kernel.provider = Provider("sev_guest", repeat, SNP_FILES | SVSM, floor=floor)
    assert guest.tsm.report(ASKED, "sev_guest").outblob[-1] == floor


def test_a_guest_at_level_0_writes_no_level(guest: Guest) -> None:
    guest.tsm.report(ASKED, "sev_guest")
    assert ("write", "privlevel") not in guest.kernel.calls


def test_the_processors_own_report_is_asked_for_never_that_of_a_service_module(
    guest: Guest,
) -> None:
    guest.kernel.provider = Provider("sev_guest", repeat, SNP_FILES | SVSM, floor=2)
    guest.tsm.report(ASKED, "sev_guest")
    assert not {name for call, name in guest.kernel.calls if call == "write"} & SVSM


def test_a_level_below_the_floor_is_refused(guest: Guest) -> None:
    assert guest.kernel.provider is not None
    guest.kernel.provider.floor = 2
    with pytest.raises(ConfigError, match="found 1, expected at least the floor 2"):
        guest.tsm.report(ASKED, "sev_guest", privlevel=1)
    assert guest.kernel.items == {}


def test_a_level_of_a_provider_without_levels_is_refused() -> None:
    guest = Guest(Provider("tdx_guest", lambda data, _: (data, b"")))
    with pytest.raises(ConfigError, match="without levels"):
        guest.tsm.report(ASKED, "tdx_guest", privlevel=0)


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_an_input_of_another_length_is_the_callers_mistake(guest: Guest, length: int) -> None:
    with pytest.raises(ValueError, match=f"found {length} bytes, expected 64"):
        guest.tsm.report(bytes(length), "sev_guest")
    assert guest.kernel.calls == []


def test_a_level_that_cannot_be_is_the_callers_mistake(guest: Guest) -> None:
    with pytest.raises(ValueError, match="expected 0 to 3"):
        guest.tsm.report(ASKED, "sev_guest", privlevel=4)


def test_a_folder_that_cannot_be_removed_does_not_cost_the_report(guest: Guest) -> None:
    guest.kernel.fail("rmdir", "", errno.EBUSY)
    assert guest.tsm.report(ASKED, "sev_guest").outblob


def test_the_provider_is_found_without_making_a_report(guest: Guest) -> None:
    assert guest.tsm.provider() == "sev_guest"
    assert ("read", "outblob") not in guest.kernel.calls
    assert guest.kernel.items == {}


def test_the_operating_systems_files_write_once_and_create_nothing(tmp_path: Path) -> None:
    files = OsFiles()
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "absent", b"x")
    (tmp_path / "file").write_bytes(b"longer")
    assert files.write(tmp_path / "file", b"new") == 3
    assert files.read(tmp_path / "file", 6) == b"newger"
    with pytest.raises(OSError, match="too large"):
        files.read(tmp_path / "file", 5)
    files.mkdir(tmp_path / "folder")
    assert files.exists(tmp_path / "folder")
    files.rmdir(tmp_path / "folder")
    assert not files.exists(tmp_path / "folder")


def test_content_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    os.mkfifo(path)

    def give() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in (b"one ", b"two ", b"three"):
                pipe.write(piece)
                time.sleep(0.01)

    giver = threading.Thread(target=give)
    giver.start()
    assert OsFiles().read(path, 64) == b"one two three"
    giver.join()


def test_what_fails_on_an_open_file_names_it_too(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        OsFiles().read(tmp_path, 8)
    assert caught.value.filename == str(tmp_path)


def test_a_machine_without_configfs_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        Tsm(tmp_path / "report").report(ASKED, "tdx_guest")
    assert "mount -t configfs" in caught.value.hint


def _write(guest: Guest, folder: Path, data: bytes) -> None:
    guest.kernel.write(folder / "inblob", data)
