"""What a policy demands of an Intel platform, under a TD or an enclave alike.

    tcb: {statuses: ["UpToDate"], allow_advisories: [], deny_advisories: [],
          min_eval_number: 18, grace_days: 0}
    platform: {fmspc_allow: [], fmspc_deny: [], ppid_allow: [], dynamic, cached_keys, smt: "deny"}

A rule for workers must state `min_eval_number`: no number of ours would stay a good one. All else
is optional; what is written above is the default, except that an absent allow list allows any and
an absent "deny" allows it (every cloud's platform is dynamic, with cached keys and SMT).

Steps, run by the kinds' own `judge` after their numbers:
 t1. the converged TCB status is one of `statuses`; out of date passes also within `grace_days` of
     the publication of something newer;
 t2. a status other than UpToDate has only advisories of `allow_advisories`; none is denied;
 t3. the TCB evaluation number is at least `min_eval_number` (rollback of collateral);
 t4. the platform is on no deny list and on the allow lists, and is configured as demanded.

Reason codes: `tcb_not_proved`, `tcb_out_of_date`, `tcb_configuration_needed`,
`tcb_sw_hardening_needed`, `tcb_configuration_and_sw_hardening_needed`,
`tcb_out_of_date_configuration_needed`, `tcb_td_relaunch_advised`,
`tcb_td_relaunch_advised_configuration_needed`, `tcb_status_not_accepted` (t1),
`advisory_not_accepted` (t2), `tcb_eval_number_too_low` (t3), `platform_denied`,
`platform_not_accepted` (t4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.members import Members
from attestation.verify.intel_tcb import VERDICTS
from wire.errors import PolicyError, refused

if TYPE_CHECKING:
    from attestation.formats.pck import Pck
    from attestation.ledger import Ledger
    from attestation.verify.intel_tcb import TcbVerdict

LIST_MAX: Final = 4096
GRACE_MAX_DAYS: Final = 366  # longer is not a grace, it is another status to name
DAY: Final = 24 * 3600
FLAGS: Final = ("dynamic", "cached_keys", "smt")

_CODES: Final = {
    "OutOfDate": "tcb_out_of_date",
    "ConfigurationNeeded": "tcb_configuration_needed",
    "SWHardeningNeeded": "tcb_sw_hardening_needed",
    "ConfigurationAndSWHardeningNeeded": "tcb_configuration_and_sw_hardening_needed",
    "OutOfDateConfigurationNeeded": "tcb_out_of_date_configuration_needed",
    "TDRelaunchAdvised": "tcb_td_relaunch_advised",
    "TDRelaunchAdvisedConfigurationNeeded": "tcb_td_relaunch_advised_configuration_needed",
    "UpToDate": "tcb_status_not_accepted",
}
_HEX: Final = re.compile(r"[0-9a-f]+")
_ADVISORY: Final = re.compile(r"INTEL-SA-[0-9]{5}")


@dataclass(frozen=True, slots=True)
class TcbRule:
    """How up to date the platform must be.

    Attributes:
        statuses: accepted converged statuses; never Revoked.
        allow_advisories: what may be open where the status is not UpToDate.
        deny_advisories: what must not be open whatever the status.
        min_eval_number: least TCB evaluation number of the collateral; None if not stated.
        grace_days: how long a platform may stay after something newer was published.
    """

    statuses: frozenset[str]
    allow_advisories: frozenset[str]
    deny_advisories: frozenset[str]
    min_eval_number: int | None
    grace_days: int

    @property
    def unsaid(self) -> str:
        """How new Intel's statements must be."""
        if self.min_eval_number is None:
            return (
                "tcb.min_eval_number: found nothing, expected the least evaluation number of "
                "Intel's statements: older ones, still in date, do not know the newest holes"
            )
        return ""


@dataclass(frozen=True, slots=True)
class PlatformRule:
    """Which platforms may be under it.

    Attributes:
        fmspc_allow, ppid_allow: None allows any.
        fmspc_deny: wins over both.
        off: configuration flags that must be stated as false.
    """

    fmspc_allow: frozenset[bytes] | None
    fmspc_deny: frozenset[bytes]
    ppid_allow: frozenset[bytes] | None
    off: tuple[str, ...]


def parse_tcb(members: Members) -> TcbRule:
    """The member `tcb` of a rule; absent, the defaults.

    Raises:
        PolicyError: unknown, missing or of another type; "Revoked" is no status to accept.
    """
    tcb = Members(
        members.value("tcb") if "tcb" in members else {},
        "policy.accept.tcb",
        optional=(
            "statuses", "allow_advisories", "deny_advisories", "min_eval_number", "grace_days",
        ),
        error=PolicyError,
    )  # fmt: skip
    statuses = tcb.texts("statuses", len(VERDICTS), 1) if "statuses" in tcb else ("UpToDate",)
    for status in statuses:
        if status not in _CODES:
            raise tcb.fail_item("statuses", status, " or ".join(_CODES))
    return TcbRule(
        frozenset(statuses),
        _advisory_ids(tcb, "allow_advisories"),
        _advisory_ids(tcb, "deny_advisories"),
        tcb.integer("min_eval_number") if "min_eval_number" in tcb else None,
        tcb.integer("grace_days", 0, GRACE_MAX_DAYS) if "grace_days" in tcb else 0,
    )


def _advisory_ids(tcb: Members, key: str) -> frozenset[str]:
    """Advisories as Intel's statements name them: another spelling would never match one."""
    found = tcb.texts(key, LIST_MAX)
    for name in found:
        if _ADVISORY.fullmatch(name) is None:
            raise tcb.fail_item(key, name, "only INTEL-SA- and five digits")
    return frozenset(found)


def parse_platform(members: Members) -> PlatformRule:
    """The member `platform` of a rule; absent, any platform.

    Raises:
        PolicyError: unknown, missing or of another type.
    """
    platform = Members(
        members.value("platform") if "platform" in members else {},
        "policy.accept.platform",
        optional=("fmspc_allow", "fmspc_deny", "ppid_allow", *FLAGS),
        error=PolicyError,
    )
    for flag in FLAGS:
        if flag in platform and platform.value(flag) != "deny":
            raise platform.fail(flag, '"deny", or nothing to allow it')
    return PlatformRule(
        hex_set(platform, "fmspc_allow", 6) if "fmspc_allow" in platform else None,
        hex_set(platform, "fmspc_deny", 6) if "fmspc_deny" in platform else frozenset(),
        hex_set(platform, "ppid_allow", 16) if "ppid_allow" in platform else None,
        tuple(flag for flag in FLAGS if flag in platform),
    )


def judge_tcb(
    ledger: Ledger, name: str, tcb: TcbVerdict | None, rule: TcbRule, now: int
) -> int | None:
    """Steps t1 to t3.

    Returns:
        Unix second at which the grace ends that step t1 needed; None where it needed none.
    """
    if tcb is None:
        ledger.missing(f"{name} t1-t3", "tcb_not_proved", "no collateral says how up to date it is")
        return None
    ledger.run(f"{name} t1 tcb status", lambda: _status(tcb, rule, now))
    ledger.run(f"{name} t2 advisories", lambda: _advisories(tcb, rule))
    ledger.run(f"{name} t3 evaluation number", lambda: _evaluation(tcb, rule))
    return _grace_end(tcb, rule)


def judge_platform(ledger: Ledger, name: str, pck: Pck | None, rule: PlatformRule) -> None:
    """Step t4."""
    if pck is None:
        ledger.missing(f"{name} t4", "platform_not_accepted", "no certificate says which it is")
        return
    ledger.run(f"{name} t4 platform", lambda: _platform(pck, rule))


def hex_set(members: Members, key: str, length: int) -> frozenset[bytes]:
    """An array of at least one distinct value of `length` bytes, in lower-case hex.

    Raises:
        PolicyError: anything else; an empty list would demand nothing or accept nothing.
    """
    items = members.texts(key, LIST_MAX, 1)
    for item in items:
        if len(item) != 2 * length or _HEX.fullmatch(item) is None:
            raise members.fail_item(key, item, f"only {length} bytes in lower-case hex")
    return frozenset(bytes.fromhex(item) for item in items)


def hex_value(members: Members, key: str, length: int) -> bytes:
    """A value of `length` bytes, in lower-case hex.

    Raises:
        PolicyError: anything else.
    """
    value = members.text(key)
    if len(value) != 2 * length or _HEX.fullmatch(value) is None:
        raise members.fail(key, f"{length} bytes in lower-case hex")
    return bytes.fromhex(value)


def _status(tcb: TcbVerdict, rule: TcbRule, now: int) -> str:  # step t1
    if tcb.status in rule.statuses:
        return tcb.status
    end = _grace_end(tcb, rule)
    if end is not None and tcb.outdated_since is not None and tcb.outdated_since <= now < end:
        days = (now - tcb.outdated_since) // DAY
        return f"OutOfDate for {days} days, within {rule.grace_days} of grace"
    raise refused(
        _CODES[tcb.status],
        f"TCB status: found {tcb.status}, expected {' or '.join(sorted(rule.statuses))}",
    )


def _grace_end(tcb: TcbVerdict, rule: TcbRule) -> int | None:
    if tcb.status != "OutOfDate" or tcb.status in rule.statuses or tcb.outdated_since is None:
        return None
    return tcb.outdated_since + rule.grace_days * DAY


def _advisories(tcb: TcbVerdict, rule: TcbRule) -> str:  # step t2
    found = frozenset(tcb.advisories)
    wrong = found & rule.deny_advisories
    if tcb.status != "UpToDate":
        wrong |= found - rule.allow_advisories
    if wrong:
        raise refused("advisory_not_accepted", f"advisories: found {', '.join(sorted(wrong))}")
    return f"{len(found)} advisories, none refused"


def _evaluation(tcb: TcbVerdict, rule: TcbRule) -> str:  # step t3
    if rule.min_eval_number is not None and tcb.eval_number < rule.min_eval_number:
        raise refused(
            "tcb_eval_number_too_low",
            f"TCB evaluation: found {tcb.eval_number}, expected ≥ {rule.min_eval_number}",
        )
    return f"TCB evaluation {tcb.eval_number}"


def _platform(pck: Pck, rule: PlatformRule) -> str:  # step t4
    family = pck.fmspc.hex()
    if pck.fmspc in rule.fmspc_deny:
        raise refused("platform_denied", f"platform: FMSPC {family} is denied")
    if rule.fmspc_allow is not None and pck.fmspc not in rule.fmspc_allow:
        raise refused("platform_not_accepted", f"platform: FMSPC {family} is not on the list")
    if rule.ppid_allow is not None and pck.ppid not in rule.ppid_allow:
        raise refused("platform_not_accepted", "platform: its PPID is not on the list")
    for flag in rule.off:
        if getattr(pck, flag) is not False:  # unstated is not off
            raise refused("platform_not_accepted", f"platform: {flag} is not off")
    return f"FMSPC {family}"
