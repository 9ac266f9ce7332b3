"""Days of grace are for a platform that is out of date, and for nothing that is worse."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.intel import NOW, Intel

from attestation.ledger import Ledger
from attestation.members import Members
from attestation.rules import sgx as sgx_rules
from attestation.rules import tdx as tdx_rules
from attestation.schemes import SCHEMES
from wire.errors import PolicyError

RULES: dict[str, Any] = {"tdx": tdx_rules, "sgx": sgx_rules}


def codes(tee: str, status: str, statuses: tuple[str, ...] = ("UpToDate",)) -> list[str]:
    """What is refused of a platform of this status, within days of grace."""
    intel, rules = Intel(tee), RULES[tee]
    newest = intel.tcb_info["tcbLevels"][0]
    # What the newest level needs is beyond this platform, for less than a year.
    below = {**newest, "tcbStatus": status, "tcbDate": "2024-10-13T00:00:00Z"}
    components = newest["tcb"]["sgxtcbcomponents"]
    higher = {**newest["tcb"], "sgxtcbcomponents": [{**c, "svn": 255} for c in components]}
    intel.tcb_info["tcbLevels"] = [{**newest, "tcb": higher}, below]
    scheme = SCHEMES[f"intel-{tee}-quote"]
    examined = scheme.examine(intel.question())
    assert examined.authentic is True, examined.reasons
    required, optional = rules.KEYS
    demands = dict.fromkeys(required, "any")
    demands["tcb"] = {"grace_days": 366, "statuses": list(statuses)}
    members = Members(
        demands, "policy.accept", required=required, optional=optional, error=PolicyError
    )
    ledger = Ledger()
    scheme.judge(ledger, examined.facts, rules.parse(members), NOW)
    return [reason.code for reason in ledger.reasons]


@pytest.mark.parametrize("tee", ["tdx", "sgx"])
def test_grace_stands_in_for_no_configuration(tee: str) -> None:
    assert codes(tee, "OutOfDate") == []
    worse = "OutOfDateConfigurationNeeded"
    assert codes(tee, worse) == ["tcb_out_of_date_configuration_needed"]
    assert codes(tee, worse, ("UpToDate", worse)) == []
