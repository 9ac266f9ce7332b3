"""Reports of the platform's security module through configfs-tsm (Linux 6.7 and later).

One report is a folder of its own under /sys/kernel/config/tsm/report. Two facts of the kernel shape
what happens here. The write of `inblob` takes effect when the file is *closed*, and its result is
thrown away: only `generation` tells whether it happened. And the pair of write and read is not
atomic: whoever else may write into the folder can put his input under our output.

    1 folder      a fresh one with a random name; nobody else knows it
    2 provider    the format the caller understands
    3 level       privlevel: the one asked for, else the provider's floor, where it has levels. The
                  kernel's own default is 0, which a guest that runs below 0 is refused
    4 before      generation
    5 input       one write of 64 bytes
    6 output      outblob, then auxblob: reading makes the report
    7 after       generation, exactly one more than before: one write happened
    8 remove      the folder, whatever happened

Whose write it was, 7 cannot tell: ours may have been dropped in silence while another's was taken
(the folder replaced under us by root, the counter full). So a caller must also see its input in the
report before it uses it; the attesters do.

What may pass by itself (a busy provider, a host that did not answer, a race) is tried again in a
new folder until a deadline; so is a folder that somebody removed under us. A read can block inside
the kernel for as long as the provider waits for its host (30 s for TDX, 60 s for SNP); nothing here
can cut that short.

https://docs.kernel.org/ABI/testing/configfs-tsm-report
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from wire.errors import ConfigError, UnavailableError

from .files import OsFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from .files import Files

REPORTS: Final = Path("/sys/kernel/config/tsm/report")
INBLOB_LEN: Final = 64
# Reports take 1,184 bytes, quotes 8 KiB. Newer kernels allow more, for formats not verified here.
OUTBLOB_MAX: Final = 32 * 1024
AUXBLOB_MAX: Final = 32 * 1024  # SNP certificate tables take 8 KiB
WORD_MAX: Final = 256  # provider names and numbers
PRIVLEVEL_MAX: Final = 3  # TSM_REPORT_PRIVLEVEL_MAX: SNP has four levels

# The worker waits 60 s for its evidence. An attempt that starts by now ends before, also where TDX
# waits its 30 s for the host, so that the worker hears why. SNP's 60 s it does not outwait.
DEADLINE_S: Final = 29.0
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0
ATTEMPTS_MAX: Final = 40

# May pass: EBUSY another request or a full counter, EAGAIN a stale report, EINTR a signal, EIO and
# ETIMEDOUT the host's quoting service.
_PASSING: Final = frozenset(
    {errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ETIMEDOUT, errno.EEXIST}
)
_FINAL: Final = {
    errno.ENXIO: "This machine has no security module, its driver is not loaded, or its firmware "
    "refused the request: see the kernel's log.",
    errno.ENOENT: "Mount it (mount -t configfs none /sys/kernel/config) and load tsm_report.",
    errno.EACCES: "Run the launcher as root or give its user this folder by a udev rule.",
    errno.EPERM: "Run the launcher as root or give its user this folder by a udev rule.",
    errno.EFBIG: "The report is larger than this version accepts.",
    errno.EINVAL: "The provider does not take 64 bytes of input, or this privilege level.",
    errno.ENOTTY: "The guest's key to the module is disabled; only a new VM gets another.",
}


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class TsmReport:
    """One report.

    Attributes:
        provider: the driver, which names the format: "tdx_guest", "sev_guest".
        outblob: the report or quote.
        auxblob: what the host added (an SNP certificate table), unverified; empty if nothing.
    """

    provider: str
    outblob: bytes
    auxblob: bytes


class _PassingError(Exception):
    """An attempt failed in a way that a new one may not."""


class Tsm:
    """Makes reports.

    Args:
        base: the configfs folder.
        files: file operations.
        rng: random bytes, for names.
        monotonic, sleep: the clock that retries go by.
        deadline_s: no attempt is started later than this after the call.

    Attributes:
        base: as given.
    """

    def __init__(
        self,
        base: Path = REPORTS,
        files: Files | None = None,
        *,
        rng: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.base = base
        self._files: Files = OsFiles() if files is None else files
        self._rng = rng
        self._monotonic = monotonic
        self._sleep = sleep
        self._deadline_s = deadline_s

    def provider(self) -> str:
        """The provider's name, found by making a folder and removing it again.

        Raises:
            UnavailableError: there is none, or it cannot be reached.
        """
        return self._until(lambda folder: self._word(folder / "provider"))

    def report(self, inblob: bytes, provider: str, *, privlevel: int | None = None) -> TsmReport:
        """One report over exactly `inblob`.

        Args:
            inblob: 64 bytes.
            provider: the only provider whose format the caller understands.
            privlevel: SNP VMPL to report as, 0 to 3; None for the highest that it grants.

        Raises:
            ValueError: `inblob` or `privlevel` is impossible.
            ConfigError: another provider, or a level below its floor.
            UnavailableError: no report within the deadline, or never.
        """
        if len(inblob) != INBLOB_LEN:
            raise ValueError(f"inblob: found {len(inblob)} bytes, expected {INBLOB_LEN}")
        if privlevel is not None and not 0 <= privlevel <= PRIVLEVEL_MAX:
            raise ValueError(f"privlevel: found {privlevel}, expected 0 to {PRIVLEVEL_MAX}")
        return self._until(lambda folder: self._made(folder, inblob, provider, privlevel))

    def _until(self, act: Callable[[Path], _Result]) -> _Result:
        """Steps 1 and 8 around `act`, again and again while it fails in a passing way."""
        until = self._monotonic() + self._deadline_s
        pause = PAUSE_FIRST_S
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return self._once(act)
            except _PassingError as failure:
                if attempt == ATTEMPTS_MAX or self._monotonic() + pause > until:
                    raise UnavailableError(
                        f"{self.base}: found no report in {attempt} attempts, the last: {failure}",
                        hint="On TDX the host's quoting service (QGS) must run; see its log. On "
                        "SNP the host's certificates may not fit into 16 KiB.",
                    ) from failure
            self._sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_S)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, act: Callable[[Path], _Result]) -> _Result:
        # 1
        folder = self.base / f"anchorhold-{self._rng(8).hex()}"
        made = False
        try:
            self._files.mkdir(folder)
            made = True
            try:
                return act(folder)
            finally:
                # 8: a folder that cannot be removed costs a little kernel memory, no secret, and
                # must not hide what happened before.
                with contextlib.suppress(OSError):
                    self._files.rmdir(folder)
        except OSError as error:
            number = error.errno or 0
            said = f"{Path(str(error.filename or folder)).name}: {os.strerror(number)}"
            # No file in a folder that was there: the folder, or the provider, was taken away.
            if number in _PASSING or (made and number == errno.ENOENT):
                raise _PassingError(said) from error
            raise UnavailableError(
                f"{self.base}: {said}, expected a report",
                hint=_FINAL.get(number, "See the kernel's log."),
            ) from error

    def _made(self, folder: Path, inblob: bytes, provider: str, privlevel: int | None) -> TsmReport:
        # 2
        found = self._word(folder / "provider")
        if found != provider:
            raise ConfigError(f'{self.base}: found provider "{found}", expected "{provider}"')
        # 3
        self._level(folder, privlevel)
        # 4
        before = self._generation(folder)
        # 5
        taken = self._files.write(folder / "inblob", inblob)
        if taken != INBLOB_LEN:
            raise _PassingError(f"inblob: found {taken} bytes taken, expected {INBLOB_LEN}")
        # 6
        outblob = self._files.read(folder / "outblob", OUTBLOB_MAX)
        auxblob = self._optional(folder / "auxblob")
        # 7
        after = self._generation(folder)
        if after != before + 1:
            raise _PassingError(f"generation: found {after} after {before}, expected {before + 1}")
        if not outblob:
            # Older TDX drivers report a failed quote as an empty one.
            raise _PassingError("outblob: found nothing, expected a report")
        return TsmReport(found, outblob, auxblob)

    def _level(self, folder: Path, privlevel: int | None) -> None:
        try:
            floor = self._number(folder / "privlevel_floor")
        except FileNotFoundError:
            if privlevel is None:
                return
            raise ConfigError(
                f"privlevel: found a provider without levels, expected one with level {privlevel}"
            ) from None
        level = floor if privlevel is None else privlevel
        if level < floor:
            raise ConfigError(f"privlevel: found {level}, expected at least the floor {floor}")
        if level == 0:
            return  # as a fresh folder has it
        text = str(level).encode("ascii")
        taken = self._files.write(folder / "privlevel", text)
        if taken != len(text):
            raise _PassingError(f"privlevel: found {taken} bytes taken, expected {len(text)}")

    def _generation(self, folder: Path) -> int:
        return self._number(folder / "generation")

    def _number(self, path: Path) -> int:
        word = self._word(path)
        if not (word.isascii() and word.isdigit() and len(word) <= len(str(2**64))):
            raise UnavailableError(f"{path.name}: found no number, expected one")
        return int(word)

    def _word(self, path: Path) -> str:
        raw = self._files.read(path, WORD_MAX)
        word = raw.decode("ascii", "replace").removesuffix("\n")
        if not word or not word.isprintable():
            raise UnavailableError(f"{path.name}: found no printable word, expected one")
        return word

    def _optional(self, path: Path) -> bytes:
        """A blob that only some providers show."""
        try:
            return self._files.read(path, AUXBLOB_MAX)
        except FileNotFoundError:
            return b""
