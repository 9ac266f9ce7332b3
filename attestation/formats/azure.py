"""Azure evidence: an HCL report, and a quote by the virtual TPM that it names. Parse only.

Roles: `hcl_report`, `quote_msg` (TPMS_ATTEST), `quote_sig` (plain or TPMT_SIGNATURE), `pcrs`
(see `tpm_registers`). Values of a bank that the quote does not cover are dropped: tools list every
bank of a TPM, whatever was quoted, and nothing vouches for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError

from .hcl_report import HclReport, parse_hcl_report
from .tpm_registers import parse_registers
from .tpm_structures import Quote, Signature, parse_any_signature, parse_quote

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES: Final = ("hcl_report", "quote_msg", "quote_sig", "pcrs")
PREFIX_LEN: Final = 32  # of report data, as far as it is a SHA-256 hash


@dataclass(frozen=True, slots=True)
class AzureEvidence:
    """The parsed parts, unverified.

    Attributes:
        hcl: the paravisor's report.
        quote, signature: by the virtual TPM.
        pcrs: bank to register to value, as claimed beside the quote, of the banks it covers.
    """

    hcl: HclReport
    quote: Quote
    signature: Signature
    pcrs: Mapping[str, Mapping[int, bytes]]

    def registers(self, bank: str) -> Mapping[int, bytes]:
        """The registers of one bank; empty if there are none."""
        return self.pcrs.get(bank, MappingProxyType({}))

    def claims(self, report_data: bytes) -> dict[str, Any]:
        """Values by their public names, besides those of the CPU's report."""
        return {
            **self.hcl.claims(),
            "quote_extra_data": self.quote.extra_data.hex(),
            "pcr_digest": self.quote.pcr_digest.hex(),
            "report_data_prefix": report_data[:PREFIX_LEN].hex(),
            "pcrs": {
                bank: {str(number): value.hex() for number, value in values.items()}
                for bank, values in self.pcrs.items()
            },
        }


def parse_azure(roles: Mapping[str, bytes], tee: str) -> AzureEvidence:
    """The evidence in these roles.

    Args:
        roles: as the worker sent them.
        tee: whose report the HCL report must hold.

    Raises:
        MalformedError: a role missing, a structure that does not parse, another TEE's report.
    """
    for role in ROLES:
        if role not in roles:
            raise MalformedError(f"azure: found no {role}, expected one")
    hcl = parse_hcl_report(roles["hcl_report"])
    if hcl.tee != tee:
        raise MalformedError(f"HCL report: found a report of {hcl.tee}, expected {tee}")
    quote, pcrs = parse_quote(roles["quote_msg"]), parse_registers(roles["pcrs"])
    covered = (selection.bank for selection in quote.covered)
    return AzureEvidence(
        hcl,
        quote,
        parse_any_signature(roles["quote_sig"]),
        MappingProxyType({bank: pcrs[bank] for bank in covered if bank in pcrs}),
    )
