"""What a policy demands of an Intel SGX enclave.

    tcb, platform: as `rules.intel`
    enclave: "any" | {mrenclave: [hex 32]} | {mrsigner: [hex 32], isvprodid: n, min_isvsvn: n}
        and beside either, optionally, config_id: [hex 64], min_config_svn: n
    attributes_allow: hex 8, flags that may be set; default INIT, MODE64BIT, CET, KSS, AEX_NOTIFY

`enclave` must be stated: either exact enclaves, or a signer with its product and least version.
CONFIGID and CONFIGSVN are chosen by who starts an enclave and are in no measurement, so they are
zero unless `config_id` names the one that is there.

Steps after `rules.intel`'s t1 to t4:
 1. no debugger: the DEBUG flag is clear;
 2. attributes: initialised, and no flag outside `attributes_allow`;
 3. enclave: as demanded; MRENCLAVE is not all zero; its configuration is none, or one named.

Reason codes: those of `rules.intel`, `debug_enabled` (1), `sgx_attributes_not_accepted` (2),
`measurement_zero`, `enclave_not_accepted`, `isvsvn_too_low` (3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.formats.dcap_bodies import SGX_DEBUG, SGX_INIT, SGX_MODE64
from attestation.members import Members
from wire.errors import PolicyError, refused

from . import intel
from .intel import hex_set, hex_value

if TYPE_CHECKING:
    from attestation.formats.dcap_bodies import EnclaveReport
    from attestation.ledger import Ledger

KEYS: Final = (("enclave",), ("tcb", "platform", "attributes_allow"))
SVN_MAX: Final = 0xFFFF
_CONFIG: Final = ("config_id", "min_config_svn")

_CET, _KSS, _AEX_NOTIFY = 1 << 6, 1 << 7, 1 << 10
_ALLOWED: Final = SGX_INIT | SGX_MODE64 | _CET | _KSS | _AEX_NOTIFY


@dataclass(frozen=True, slots=True)
class SgxRule:
    """Demands on an enclave.

    Attributes:
        tcb, platform: on what it runs on.
        flags: attribute flags that may be set.
        mrenclave: accepted enclaves, or None.
        mrsigner: accepted signers, with `isvprodid` and `min_isvsvn`; or None. Both None: any.
        configs: accepted CONFIGIDs besides none, with `min_config_svn`.
    """

    tcb: intel.TcbRule
    platform: intel.PlatformRule
    flags: int
    mrenclave: frozenset[bytes] | None = None
    mrsigner: frozenset[bytes] | None = None
    isvprodid: int = 0
    min_isvsvn: int = 0
    configs: frozenset[bytes] = frozenset()
    min_config_svn: int = 0


def parse(members: Members) -> SgxRule:
    """The demands in an `accept` item.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    flags = _ALLOWED
    if "attributes_allow" in members:
        flags = int.from_bytes(hex_value(members, "attributes_allow", 8), "little")
        if flags & SGX_DEBUG:
            raise members.fail("attributes_allow", "a mask without the debug flag")
    tcb, platform = intel.parse_tcb(members), intel.parse_platform(members)
    value = members.value("enclave")
    if value == "any":
        return SgxRule(tcb, platform, flags)
    where = "policy.accept.enclave"
    if isinstance(value, dict) and "mrenclave" in value:
        exact = Members(value, where, required=("mrenclave",), optional=_CONFIG, error=PolicyError)
        return SgxRule(
            tcb,
            platform,
            flags,
            mrenclave=_measured(exact, "mrenclave"),
            configs=_configs(exact),
            min_config_svn=_config_svn(exact),
        )
    signed = Members(
        value,
        where,
        required=("mrsigner", "isvprodid", "min_isvsvn"),
        optional=_CONFIG,
        error=PolicyError,
    )
    return SgxRule(
        tcb,
        platform,
        flags,
        mrsigner=_measured(signed, "mrsigner"),
        isvprodid=signed.integer("isvprodid", 0, SVN_MAX),
        min_isvsvn=signed.integer("min_isvsvn", 0, SVN_MAX),
        configs=_configs(signed),
        min_config_svn=_config_svn(signed),
    )


def judge(ledger: Ledger, facts: Any, rule: SgxRule, now: int) -> int | None:
    """Steps t1 to t4 and 1 to 3; returns the end of a grace that they rest on."""
    enclave: EnclaveReport = facts.quote.body
    end = intel.judge_tcb(ledger, "sgx", facts.tcb, rule.tcb, now)
    intel.judge_platform(ledger, "sgx", facts.pck, rule.platform)
    ledger.run("sgx judge 1 debug", lambda: _debug(enclave))
    ledger.run("sgx judge 2 attributes", lambda: _attributes(enclave, rule))
    ledger.run("sgx judge 3 enclave", lambda: _enclave(enclave, rule))
    return end


def _measured(members: Members, key: str) -> frozenset[bytes]:
    values = hex_set(members, key, 32)
    if bytes(32) in values:
        raise members.fail(key, "measurements; all zeros measure nothing")
    return values


def _configs(members: Members) -> frozenset[bytes]:
    found = hex_set(members, "config_id", 64) if "config_id" in members else frozenset()
    if bytes(64) in found:
        raise members.fail("config_id", "values other than zero: none needs no naming")
    return found


def _config_svn(members: Members) -> int:
    if "min_config_svn" not in members:
        return 0
    if "config_id" not in members:
        raise members.fail("min_config_svn", "none without config_id")
    return members.integer("min_config_svn", 0, SVN_MAX)


def _debug(enclave: EnclaveReport) -> str:  # step 1
    if enclave.flags & SGX_DEBUG:
        raise refused("debug_enabled", "enclave: found the debug flag, expected it clear")
    return "no debugger"


def _attributes(enclave: EnclaveReport, rule: SgxRule) -> str:  # step 2
    other = enclave.flags & ~rule.flags & ~SGX_DEBUG
    if other or not enclave.flags & SGX_INIT:
        raise refused("sgx_attributes_not_accepted", f"enclave: found flags {enclave.flags:#x}")
    return f"flags {enclave.flags:#x}"


def _enclave(enclave: EnclaveReport, rule: SgxRule) -> str:  # step 3
    if not any(enclave.mrenclave):
        raise refused("measurement_zero", "enclave: found an MRENCLAVE of zeros")
    if rule.mrenclave is not None:
        if enclave.mrenclave not in rule.mrenclave:
            raise refused("enclave_not_accepted", "enclave: MRENCLAVE is not on the list")
    elif rule.mrsigner is not None:
        if enclave.mrsigner not in rule.mrsigner or enclave.isvprodid != rule.isvprodid:
            raise refused("enclave_not_accepted", "enclave: of another signer or product")
        if enclave.isvsvn < rule.min_isvsvn:
            raise refused(
                "isvsvn_too_low",
                f"enclave: found version {enclave.isvsvn}, expected ≥ {rule.min_isvsvn}",
            )
    else:
        return "any, as stated"
    none = not any(enclave.config_id) and not enclave.config_svn
    if not none and (
        enclave.config_id not in rule.configs or enclave.config_svn < rule.min_config_svn
    ):
        raise refused("enclave_not_accepted", "enclave: its configuration is not one named")
    return f"MRENCLAVE {enclave.mrenclave.hex()[:16]}"
