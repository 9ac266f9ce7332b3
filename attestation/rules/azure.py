"""The demands on an Azure confidential VM: those on its CPU's report, and on its virtual TPM.

    {…the members of the rule for the report's own kind…,
     "pcrs": {…}, "bank": "sha256", "vm_configuration": {"secure-boot": true}}

`pcrs` must be stated, for workers with register 4 (`rules.registers`): the CPU's report names the
paravisor, and only the virtual TPM what that started.
`vm_configuration` names members of what the paravisor says of the VM and the one value each may
have; without it, secure boot is demanded.

Steps and codes, after those of the report's own kind:
 azure 8 configuration  as demanded                   vm_configuration_not_accepted
 azure 9 bank           `rules.registers`             bank_not_accepted
 azure 10 registers     `rules.registers`             pcr_selection, pcr_not_accepted
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.members import Members
from wire.errors import AttestationError, PolicyError

from .registers import (
    MEASUREMENT_BANK,
    RegisterRule,
    check_bank,
    check_measurement,
    check_values,
    parse_registers_rule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attestation.formats.azure import AzureEvidence
    from attestation.ledger import Ledger

REQUIRED: Final = ("pcrs",)
OPTIONAL: Final = ("bank", "vm_configuration")
CONFIGURATION_MAX: Final = 32
CONFIGURATION_DEFAULT: Final[Mapping[str, Any]] = MappingProxyType({"secure-boot": True})


@dataclass(frozen=True, slots=True)
class AzureRule:
    """Demands on an Azure VM.

    Attributes:
        report: the rule of the CPU report's kind.
        registers: demanded register values.
        configuration: member to its one accepted value.
    """

    report: Any
    registers: RegisterRule
    configuration: Mapping[str, Any]

    @property
    def unsaid(self) -> str:
        """Which paravisors, and which images under them."""
        found: str = self.report.unsaid or self.registers.unsaid
        return found


@dataclass(frozen=True, slots=True)
class AzureFacts:
    """What the judgement takes: the parsed evidence, and the facts of the CPU report's kind."""

    evidence: AzureEvidence
    report: Any


def parse(members: Members, report: Callable[[Members], Any]) -> AzureRule:
    """The rule in an `accept` item.

    Args:
        members: of the whole item.
        report: the parser of the CPU report's kind, which reads its members from the same item.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    return AzureRule(report(members), parse_registers_rule(members), _configuration(members))


def judge(ledger: Ledger, facts: AzureFacts, rule: AzureRule) -> None:
    """Run the steps of the module docstring; the report's own are its kind's to run."""
    hcl, quoted = facts.evidence.hcl, facts.evidence.registers
    ledger.run("azure 8 configuration", lambda: _check_configuration(hcl.vm_configuration, rule))
    ledger.run("azure 9 bank", lambda: check_bank(rule.registers, quoted))
    ledger.run("azure 10 registers", lambda: check_values(rule.registers, quoted))


def carries(facts: AzureFacts, measurement: bytes) -> str:
    """Register 11 of the SHA-256 bank holds exactly the worker's measurement.

    Raises:
        AttestationError: `pcr_selection` or `pcr_mismatch`.
    """
    return check_measurement(facts.evidence.registers(MEASUREMENT_BANK), measurement)


def _check_configuration(found: Mapping[str, Any], rule: AzureRule) -> str:  # azure 8
    for name, value in sorted(rule.configuration.items()):
        if name not in found or type(found[name]) is not type(value) or found[name] != value:
            raise AttestationError(
                f"VM configuration: {name} is absent or has another value than demanded",
                reasons=("vm_configuration_not_accepted",),
            )
    return f"{len(rule.configuration)} demanded members"


def _configuration(members: Members) -> Mapping[str, Any]:
    if "vm_configuration" not in members:
        return CONFIGURATION_DEFAULT
    obj = members.value("vm_configuration")
    if not isinstance(obj, dict) or len(obj) > CONFIGURATION_MAX:
        raise members.fail("vm_configuration", f"an object of at most {CONFIGURATION_MAX} members")
    inner = Members(obj, "policy.accept.vm_configuration", optional=tuple(obj), error=PolicyError)
    for name, value in obj.items():
        if not isinstance(value, bool | str):
            raise inner.fail(name, "true, false or a text")
    return MappingProxyType(dict(obj))
