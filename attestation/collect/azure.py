"""An Azure confidential VM (`azure-vtpm-snp`, `azure-vtpm-tdx`): through its virtual TPM.

The guest does not speak to the CPU: the paravisor did at boot, and left the CPU's report and the
name of the TPM's attestation key in an index of that TPM.

    1 report   NV 0x01400001: an HCL report with a report of the TEE that was chosen
    2 key      the key at 0x81000003 is the one that report names
    3 quote    over the binding's report, with the registers (`tpm_device`)
    4 TDX      a TD report proves nothing elsewhere: the host's service makes a quote of it, once
               for each report; it must be of this TD

0x01400002, with which a guest has the paravisor write a new report with 64 bytes of its own, is not
touched: the nonce is in the quote, and nothing judges those bytes. Certificates of AMD's and
Intel's come by way of the collateral, as for any other report and quote of theirs.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from attestation.binding import report32
from attestation.formats.dcap_bodies import TdReport
from attestation.formats.dcap_quote import parse_quote
from attestation.formats.hcl_report import parse_hcl_report
from attestation.verify.hcl import check_td_report
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

from .metadata import MetadataService
from .tpm_device import open_device
from .tpm_quote import persistent_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.hcl_report import HclReport
    from attestation.formats.tpm_structures import Public

    from .tpm_device import TpmDevice

SNP_KIND: Final = "azure-vtpm-snp"
TDX_KIND: Final = "azure-vtpm-tdx"
TEES: Final[Mapping[str, str]] = MappingProxyType({"SEV-SNP": SNP_KIND, "TDX": TDX_KIND})
AK: Final = "0x81000003"
HCL_REPORT: Final = "0x01400001"


class Quoting(Protocol):
    """The host's service that makes quotes."""

    def td_quote(self, report: bytes) -> bytes:
        """A quote of this TD report.

        Raises:
            UnavailableError: none.
        """


class AzureGuest:
    """An Azure confidential VM.

    Args:
        kind: one of the two.
        device: its TPM; closed with the guest.
        quoting: the host's service, for TDX.
    """

    def __init__(
        self, kind: str, device: TpmDevice | None = None, quoting: Quoting | None = None
    ) -> None:
        self.kind = kind
        self._device = open_device() if device is None else device
        self._quoting: Quoting = MetadataService() if quoting is None else quoting
        self._td_quote: tuple[bytes, bytes] = (b"", b"")  # of a report, and that report

    def place(self, measurement: bytes) -> None:
        """Put the measurement into PCR 11, once the rest is as it must be.

        Raises:
            ConfigError: another machine than was chosen, or the register holds something else:
                the VM must be started again.
            UnavailableError: the TPM does not answer.
        """
        self._report()
        self._device.measure(measurement)

    def pieces(self, binding_raw: bytes, measurement: bytes) -> dict[str, bytes]:
        """The report, a fresh quote for one binding, and for TDX the quote of the report.

        Raises:
            UnavailableError: no quote, or one of something else.
        """
        # 1 and 2
        raw, hcl, key = self._report()
        # 3
        hash_name = key.scheme_hash or "sha256"
        quoted = self._device.quote(AK, hash_name, report32(binding_raw), measurement)
        found = {"hcl_report": raw, **quoted.pieces()}
        # 4
        return {**found, "td_quote": self._quote_of(hcl)} if self.kind == TDX_KIND else found

    def close(self) -> None:
        """Close the TPM."""
        self._device.close()

    def _report(self) -> tuple[bytes, HclReport, Public]:
        found = read_report(self._device)
        if found is None:
            raise ConfigError(
                f"NV {HCL_REPORT}: found no such index, expected the paravisor's report",
                hint="Only Azure's confidential VMs have one. A VM with Trusted Launch is of kind "
                "tpm2-quote.",
            )
        raw, hcl = found
        if TEES[hcl.tee] != self.kind:
            raise ConfigError(
                f"NV {HCL_REPORT}: found a report of {hcl.tee}, expected one for {self.kind}",
                hint=f'Set attester = "{TEES[hcl.tee]}".',
            )
        key = persistent_key(self._device, AK)
        if key.key != hcl.ak:
            raise UnavailableError(
                f"TPM: {AK}: found another key than the paravisor's report names",
                hint="The VM's TPM was cleared or its key replaced: restart the VM.",
            )
        return raw, hcl, key

    def _quote_of(self, hcl: HclReport) -> bytes:
        quote, report = self._td_quote
        if report == hcl.report:
            return quote
        quote = self._quoting.td_quote(hcl.report)
        try:
            body = parse_quote(quote).body
            if not isinstance(body, TdReport):
                raise UnavailableError("td quote: found a quote of an enclave, expected a TD's")
            check_td_report(hcl, body)
        except (MalformedError, AttestationError) as error:
            raise UnavailableError(f"td quote: {error.message}") from error
        self._td_quote = (quote, hcl.report)
        return quote


def read_report(device: TpmDevice) -> tuple[bytes, HclReport] | None:
    """The HCL report as it stands in the TPM, and what it says; None if there is no such index.

    Raises:
        UnavailableError: it cannot be read, or is none.
    """
    raw = device.index(HCL_REPORT)
    if raw is None:
        return None
    try:
        return raw, parse_hcl_report(raw)
    except MalformedError as error:
        raise UnavailableError(f"NV {HCL_REPORT}: {error.message}") from error
