"""The `amd-sev-snp-report` attester: reports through configfs-tsm, the measurement in HOST_DATA.

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
from attestation.evidence import Evidence
from attestation.formats.certificate_table import parse_table
from attestation.formats.container import encode_container
from attestation.measurement import digest_bytes
from attestation.registers import host_data_value
from wire.errors import ConfigError, MalformedError, UnavailableError

from .run_parts import RunParts
from .tsm import INBLOB_LEN, Tsm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .tsm import TsmReport

KIND: Final = "amd-sev-snp-report"
PROVIDER: Final = "sev_guest"
REPORT_LEN: Final = 1184
_REPORT_DATA: Final = slice(0x50, 0x90)
_HOST_DATA: Final = slice(0xC0, 0xE0)


class SnpAttester:
    """Makes `amd-sev-snp-report` evidence in an SEV-SNP guest.

    Args:
        tsm: configfs-tsm.
        rng: random bytes, for the first report.
    """

    kind = KIND
    trust = "hardware"

    def __init__(self, tsm: Tsm | None = None, rng: Callable[[int], bytes] = os.urandom) -> None:
        self._tsm = Tsm() if tsm is None else tsm
        self._rng = rng
        self._run = RunParts()

    def measure(self, parts: Mapping[str, str]) -> str:
        """Check that this VM was launched for the measurement of `parts`; returns it.

        Raises:
            ConfigError: it was launched for another one.
            UnavailableError: no report.
            RuntimeError: called again with other parts.
        """
        tag = self._run.take(parts)
        wanted = host_data_value(digest_bytes(tag))
        # 1
        report = self._report(self._rng(INBLOB_LEN)).outblob
        # 2
        if report[_HOST_DATA] != wanted:
            raise ConfigError(
                f"HOST_DATA: found {report[_HOST_DATA].hex()}, expected {wanted.hex()}",
                hint=f"Launch the VM with host data {wanted.hex()} for worker {tag}.",
            )
        return tag

    def attest(self, binding_raw: bytes, now_ms: int) -> Evidence:
        """A fresh report for one binding.

        Args:
            binding_raw: the binding's bytes.
            now_ms: unused; a report states no time. Here so that attesters are alike.

        Raises:
            RuntimeError: `measure` was not called.
            UnavailableError: no report, or one of something else.
        """
        del now_ms
        parts = self._run.known()
        # 3
        made = self._report(report_data(binding_raw))
        # 4
        return Evidence(KIND, encode_container({"report": made.outblob, **_hint(made)}, parts))

    def activate(self, credential: object) -> dict[str, str]:
        """Refused: there is no TPM whose keys could be linked.

        Raises:
            UnavailableError: always.
        """
        del credential
        raise UnavailableError(f"activation: {KIND} evidence has no TPM, expected kind tpm2")

    def trust_anchor(self) -> str:
        """Nothing to list: a policy's rule for this kind pins AMD's roots by itself."""
        return "vendor"

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
