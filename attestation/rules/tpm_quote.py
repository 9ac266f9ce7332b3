"""The demands on a TPM whose quote is authentic.

    {"pcrs": {…}, "bank": "sha256", "aks": [hex SHA-256 of SubjectPublicKeyInfo] | "as_supplied",
     "revocation": "required" | "as_supplied", "event_log": "required" | "optional"}

`pcrs` must be stated, for workers with register 4 (`rules.registers`). A fingerprint in `aks` makes
its key trusted, whoever shows the key; in a policy, "as_supplied" names none, because nobody but
the policy supplies keys there.

A log that is required must explain what is quoted: it is of the demanded bank, and every quoted
register of it that is not as reset is the log's replay. Register 11 needs no explaining: it is
extended after the firmware's log has ended, and `carries` proves what with.

Steps and codes of the judgement, after those of the examination:
  8 bank             `rules.registers`                                  bank_not_accepted
  9 registers        `rules.registers`                    pcr_selection, pcr_not_accepted
 10 attestation key  certified, or listed in `aks`                      ak_not_accepted
 11 revocation       a list vouched for each certificate         revocation_not_checked
 12 event log        there is one of the bank, if required            event_log_missing
                     and it explains every register that was extended event_log_mismatch
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.replay import replay, reset_values
from wire.errors import refused

from .registers import (
    MEASUREMENT_BANK,
    MEASUREMENT_PCR,
    RegisterRule,
    check_bank,
    check_measurement,
    check_values,
    demanded_bank,
    parse_registers_rule,
)

if TYPE_CHECKING:
    from attestation.formats.tpm_quote import TpmQuotes
    from attestation.ledger import Ledger
    from attestation.members import Members
    from attestation.verify.tpm_key import TrustedKey

KEYS: Final = (("pcrs",), ("bank", "aks", "revocation", "event_log"))
AKS_MAX: Final = 4096  # one an own machine
AS_SUPPLIED: Final = "as_supplied"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TpmQuoteRule:
    """Demands on a quote.

    Attributes:
        registers: demanded register values.
        aks: fingerprints of keys trusted without a certificate; None for whichever key the
            relying party brings.
        revocation: whether every certificate below the root needs a list.
        event_log: whether a log that replays is demanded.
    """

    registers: RegisterRule
    aks: frozenset[bytes] | None
    revocation: bool
    event_log: bool

    @property
    def unsaid(self) -> str:
        """Which images."""
        return self.registers.unsaid


@dataclass(frozen=True, slots=True)
class TpmQuoteFacts:
    """What the judgement takes: the parsed quotes, and the key they were verified with."""

    parsed: TpmQuotes
    key: TrustedKey | None


def parse(members: Members) -> TpmQuoteRule:
    """The rule in an `accept` item.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    return TpmQuoteRule(
        parse_registers_rule(members),
        _aks(members),
        _choice(members, "revocation", ("required", AS_SUPPLIED)) == "required",
        _choice(members, "event_log", ("optional", "required")) == "required",
    )


def judge(ledger: Ledger, facts: TpmQuoteFacts, rule: TpmQuoteRule, now: int) -> None:
    """Run the steps of the module docstring."""
    del now  # a TPM knows no time of day
    quoted = facts.parsed.registers
    ledger.run("tpm 8 bank", lambda: check_bank(rule.registers, quoted))
    ledger.run("tpm 9 registers", lambda: check_values(rule.registers, quoted))
    key = facts.key
    if key is None:
        ledger.skip("tpm 10-11", "no attestation key is trusted")
    else:
        ledger.run("tpm 10 attestation key", lambda: _key(key, rule))
        ledger.run("tpm 11 revocation", lambda: _revocation(key, rule))
    ledger.run("tpm 12 event log", lambda: _event_log(facts, rule))


def carries(facts: TpmQuoteFacts, measurement: bytes) -> str:
    """Register 11 of the SHA-256 bank holds exactly the worker's measurement.

    Raises:
        AttestationError: `pcr_selection` or `pcr_mismatch`.
    """
    return check_measurement(facts.parsed.registers(MEASUREMENT_BANK), measurement)


def _key(key: TrustedKey, rule: TpmQuoteRule) -> str:  # 10
    if key.certified:
        return "certified"
    if rule.aks is not None and key.fingerprint not in rule.aks:
        raise refused("ak_not_accepted", "attestation key: without certificate, and not listed")
    return "trusted beforehand"


def _revocation(key: TrustedKey, rule: TpmQuoteRule) -> str:  # 11
    if not key.certified:
        return "a key trusted beforehand is revoked by no longer listing it"
    if rule.revocation and not key.revocation_checked:
        raise refused("revocation_not_checked", "certificates: expected a list for each of them")
    return "checked" if key.revocation_checked else "not demanded"


def _event_log(facts: TpmQuoteFacts, rule: TpmQuoteRule) -> str:  # 12
    log, quoted = facts.parsed.event_log, facts.parsed.registers
    if not rule.event_log:
        return "none demanded"
    bank = demanded_bank(rule.registers, quoted)
    if log is None or bank is None or bank not in log.banks:
        raise refused("event_log_missing", "event log: found none of the bank, expected one")
    replayed = replay(log, bank)
    for number, value in sorted(quoted(bank).items()):
        if number in (MEASUREMENT_PCR, *replayed):
            continue  # what replays was compared when the evidence was examined
        # Without this a log cut short, or of nothing, would explain registers that it leaves out.
        if value not in reset_values(log, bank, number):
            raise refused(
                "event_log_mismatch", f"event log: found no event of register {number}, extended"
            )
    return f"{len(replayed)} registers of {bank} explained"


def _aks(members: Members) -> frozenset[bytes] | None:
    if members.value("aks") == AS_SUPPLIED:
        return None
    texts = members.texts("aks", AKS_MAX)
    for text in texts:
        if _FINGERPRINT.fullmatch(text) is None:
            raise members.fail_item("aks", text, "SHA-256 fingerprints in lower-case hex")
    return frozenset(bytes.fromhex(text) for text in texts)


def _choice(members: Members, key: str, choices: tuple[str, str]) -> str:
    """The first choice is the default."""
    if key not in members:
        return choices[0]
    value = members.text(key)
    if value not in choices:
        raise members.fail(key, " or ".join(f'"{choice}"' for choice in choices))
    return value
