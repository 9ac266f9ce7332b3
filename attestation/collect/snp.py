"""An SEV-SNP guest (`amd-sev-snp-report`): reports by configfs-tsm, the measurement in HOST_DATA.

SNP has no register that a running guest can extend. The host states HOST_DATA when it launches the
VM, the processor signs it into every report, and this launcher, part of the measured image, refuses
to start a worker of any other measurement. A host that states something else stops its own worker.

    1 probe    a report over random data must repeat that data
    2 host     its HOST_DATA must be this measurement's value
    3 report   over the binding's report data, which it must repeat
    4 table    the host's certificates go along as a hint; a table that does not parse does not
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from attestation.binding import report_data
from attestation.formats.certificate_table import parse_table
from attestation.registers import host_data_value
from wire.errors import ConfigError, MalformedError, UnavailableError

from .tsm import INBLOB_LEN, Tsm

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tsm import TsmReport

KIND: Final = "amd-sev-snp-report"
PROVIDER: Final = "sev_guest"
REPORT_LEN: Final = 1184
_REPORT_DATA: Final = slice(0x50, 0x90)
_HOST_DATA: Final = slice(0xC0, 0xE0)


class SnpGuest:
    """An SEV-SNP guest.

    Args:
        tsm: configfs-tsm.
        rng: random bytes, for the first report.
    """

    kind = KIND

    def __init__(self, tsm: Tsm | None = None, rng: Callable[[int], bytes] = os.urandom) -> None:
        self._tsm = Tsm() if tsm is None else tsm
        self._rng = rng

    def place(self, measurement: bytes) -> None:
        """Check that this VM was launched for this measurement.

        Raises:
            ConfigError: it was launched for another one.
            UnavailableError: no report.
        """
        wanted = host_data_value(measurement)
        # 1
        report = self._report(self._rng(INBLOB_LEN)).outblob
        # 2
        if report[_HOST_DATA] != wanted:
            raise ConfigError(
                f"HOST_DATA: found {report[_HOST_DATA].hex()}, expected {wanted.hex()}",
                hint=f"Launch the VM with host data {wanted.hex()} "
                f"for worker sha256:{measurement.hex()}.",
            )

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """A fresh report for one binding, and the host's table if there is one.

        Raises:
            UnavailableError: no report, or one of something else.
        """
        del measurement  # HOST_DATA does not change while the VM runs
        # 3
        made = self._report(report_data(binding_raw))
        # 4
        return {"report": made.outblob, **_hint(made)}

    def close(self) -> None:
        """Nothing is held open."""

    def _report(self, asked: bytes) -> TsmReport:
        made = self._tsm.report(asked, PROVIDER)
        if len(made.outblob) != REPORT_LEN:
            raise UnavailableError(
                f"report: found {len(made.outblob)} bytes, expected {REPORT_LEN}"
            )
        if made.outblob[_REPORT_DATA] != asked:
            raise UnavailableError("report: found other report data, expected what was asked for")
        return made


def _hint(made: TsmReport) -> dict[str, bytes]:
    try:
        found = parse_table(made.auxblob)
    except MalformedError:
        return {}
    return {"auxblob": made.auxblob} if found else {}
