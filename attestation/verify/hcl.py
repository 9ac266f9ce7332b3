"""What an HCL report proves, once the CPU report in it is verified: which vTPM key is the VM's.

The vendor's report carries the hash of the variable data, the variable data names the attestation
key, and that key signs the quote. Each function is one step.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import partial
from typing import TYPE_CHECKING, Final

from wire.errors import refused

if TYPE_CHECKING:
    from attestation.formats.dcap_bodies import TdReport
    from attestation.formats.hcl_report import HclReport

_refused: Final = partial(refused, about="HCL report")
REPORT_DATA_LEN: Final = 64


def check_variable_data(report_data: bytes, hcl: HclReport) -> str:
    """The vendor's report carries the hash of the variable data, and nothing else.

    Raises:
        AttestationError: `report_data_mismatch`.
    """
    digest = hashlib.new(hcl.hash_name, hcl.variable).digest()
    if not hmac.compare_digest(report_data, digest.ljust(REPORT_DATA_LEN, b"\0")):
        raise _refused(
            "report_data_mismatch", "the report data is not the hash of the variable data"
        )
    return f"{hcl.hash_name} of {len(hcl.variable)} bytes"


def check_td_report(hcl: HclReport, quoted: TdReport) -> str:
    """The quote speaks about the TD whose report the paravisor wrote.

    Raises:
        AttestationError: `td_report_mismatch`.
    """
    same = (hcl.td_report_data, hcl.td_mr_td) == (quoted.report_data, quoted.mr_td)
    if not same:
        raise _refused("td_report_mismatch", "the TD quote and the TD report are two TDs'")
    return "the same TD"
