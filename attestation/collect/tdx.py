"""A TDX guest (`intel-tdx-quote`): the measurement in RTMR3, quotes through configfs-tsm.

    1 RTMR3   must be zero (a fresh VM) or hold exactly this measurement (the launcher started
              again); anything else means that somebody else extended it, and no later value could
              prove ours
    2 extend  48 bytes in one write, only from zero; a busy module is asked again, after 1
    3 read    it back: it must hold exactly this measurement
    4 quote   over the binding's report data; it must repeat that data and RTMR3, or it is no
              quote of this VM for this binding

The boot's event log (CCEL, `read_ccel`) explains RTMR0 to 2 to who wants to replay it. It is a file
nobody signed, worth only what the registers in a quote confirm, and not part of this kind.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attestation.binding import report_data
from attestation.registers import rtmr_event, rtmr_value
from wire.errors import ConfigError, UnavailableError

from .files import OsFiles
from .tsm import Tsm

if TYPE_CHECKING:
    from .files import Files

KIND: Final = "intel-tdx-quote"
PROVIDER: Final = "tdx_guest"
MEASUREMENTS: Final = Path("/sys/class/misc/tdx_guest/measurements")
CCEL: Final = Path("/sys/firmware/acpi/tables/data/CCEL")
RTMR: Final = "rtmr3:sha384"  # 0 and 1 belong to firmware and loader, 2 to the kernel's own users
RTMR_LEN: Final = 48
ATTEMPTS: Final = 4  # the module is busy only while another processor extends a register
CCEL_MAX: Final = 128 * 1024  # firmware reserves 64 KiB; with the quote it must fit one body

# TDX quote: 48 bytes of header, then the body, in version 5 behind six bytes of type and length.
_BODY_AT: Final = {4: 48, 5: 54}
_REPORT_DATA_AT: Final = 520
_RTMR3_AT: Final = 472


class TdxGuest:
    """A TDX guest.

    Args:
        tsm: configfs-tsm.
        measurements: the folder of the measurement registers (Linux 6.16 and later).
        files: file operations.
    """

    kind = KIND

    def __init__(
        self,
        tsm: Tsm | None = None,
        measurements: Path = MEASUREMENTS,
        files: Files | None = None,
    ) -> None:
        self._tsm = Tsm() if tsm is None else tsm
        self._register = measurements / RTMR
        self._files: Files = OsFiles() if files is None else files

    def place(self, measurement: bytes) -> None:
        """Put the measurement into RTMR3.

        Raises:
            ConfigError: the register holds something else: this VM must be started again.
            UnavailableError: the register cannot be read or extended.
        """
        wanted = rtmr_value(measurement)
        busy: OSError | None = None
        for _ in range(ATTEMPTS):
            # 1
            before = self._read()
            if before == wanted:
                return
            if before != bytes(RTMR_LEN):
                raise ConfigError(
                    "RTMR3: found another value, expected zeros or this worker's measurement",
                    hint="A register only grows. Start the VM again to run another worker in it.",
                )
            # 2
            try:
                taken = self._files.write(self._register, rtmr_event(measurement))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise _unreachable(error) from error
                busy = error
                continue
            if taken != RTMR_LEN:
                raise UnavailableError(f"RTMR3: found {taken} bytes taken, expected {RTMR_LEN}")
            # 3
            if self._read() != wanted:
                raise ConfigError(
                    "RTMR3: found another value after extending it once",
                    hint="Something else in this VM extends RTMR3. Remove it and start the VM "
                    "again.",
                )
            return
        raise UnavailableError(f"RTMR3: found it busy {ATTEMPTS} times") from busy

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """A fresh quote for one binding.

        Raises:
            UnavailableError: no quote, or one of something else.
        """
        asked = report_data(binding_raw)
        # 4
        quote = self._tsm.report(asked, PROVIDER).outblob
        _check_quote(quote, asked, rtmr_value(measurement))
        return {"quote": quote}

    def close(self) -> None:
        """Nothing is held open."""

    def _read(self) -> bytes:
        try:
            value = self._files.read(self._register, RTMR_LEN)
        except OSError as error:
            raise _unreachable(error) from error
        if len(value) != RTMR_LEN:
            raise UnavailableError(f"RTMR3: found {len(value)} bytes, expected {RTMR_LEN}")
        return value


def read_ccel(files: Files | None = None, path: Path = CCEL) -> bytes:
    """The boot's event log, as firmware left it: unverified, padded with 0xFF to its table's size.

    Raises:
        UnavailableError: it cannot be read, or is too long.
    """
    source: Files = OsFiles() if files is None else files
    try:
        log = source.read(path, CCEL_MAX)
    except OSError as error:
        raise UnavailableError(
            f"CCEL: found {os.strerror(error.errno or 0)}, expected up to {CCEL_MAX} bytes of log",
            hint="Firmware without CC measurement events gives none; leave the event log out.",
        ) from error
    if not log:
        raise UnavailableError("CCEL: found nothing, expected a log")
    return log


def _unreachable(error: OSError) -> UnavailableError:
    """Why the register cannot be used; its absence has one usual cause."""
    hint = "Run the launcher as root, or give its user this file."
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        hint = "The register files came with Linux 6.16; this VM needs a kernel with them."
    found = os.strerror(error.errno or 0)
    return UnavailableError(f"RTMR3: found {found}, expected to read and extend it", hint=hint)


def _check_quote(quote: bytes, asked: bytes, rtmr3: bytes) -> None:
    """Step 4: what cannot be right is not sent; whether it is genuine is the verifier's to say."""
    body = _BODY_AT.get(int.from_bytes(quote[:2], "little"))
    if body is None or len(quote) < body + _REPORT_DATA_AT + len(asked):
        raise UnavailableError("quote: found another format, expected a TDX quote, version 4 or 5")
    at = body + _REPORT_DATA_AT
    if quote[at : at + len(asked)] != asked:
        raise UnavailableError("quote: found other report data, expected this binding's")
    at = body + _RTMR3_AT
    if quote[at : at + RTMR_LEN] != rtmr3:
        raise UnavailableError(
            "quote: found another RTMR3, expected this worker's measurement",
            hint="Something else in this VM extended RTMR3. Start the VM again.",
        )
