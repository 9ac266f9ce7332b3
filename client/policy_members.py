"""A parsed policy in the members that a policy file has, its defaults and constants too.

What `parse_policy` would take for the same policy, but for roots: these are certificates, and stand
beside the rest. None is a member that is absent and then asks nothing; what asks something when it
is absent has its default. So nobody has to know how a rule is kept to read what it demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.rules import nitro, nvidia, snp
from attestation.rules.azure import AzureRule
from attestation.rules.hardware import HardwareRule
from attestation.rules.intel import FLAGS
from attestation.rules.nitro import NitroRule
from attestation.rules.nvidia import NvidiaRule
from attestation.rules.snp import SnpRule
from attestation.rules.tdx import CLEAR, TdxRule
from attestation.rules.tpm import TpmRule
from attestation.rules.tpm_quote import AS_SUPPLIED, TpmQuoteRule
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.policy import Deny, Policy, Rule
    from attestation.rules.registers import RegisterRule

Obj = dict[str, Any]
ANY: Final = "any"
_GUEST_BITS: Final = ("migrate_ma", "smt", "cxl_allowed")
# Member, class of identity, and its digits where it is no number (`proof.canonical_identity`).
_CLASSES: Final = (
    ("chip_ids", "chip_id", 1),
    ("ppids", "ppid", 32),
    ("serials", "serial", 1),
    ("keys", "key", 64),
)


def policy_members(policy: Policy) -> Obj:
    """All but `accept`, `deny`, and what a policy is named and dated by."""
    logged = policy.log_origin is not None
    return {
        "aud": policy.aud,
        "min_version": policy.min_version,
        "require_pq": policy.require_pq,
        "k": policy.k,
        "min_workers": policy.min_workers,
        "allow_software": policy.allow_software,
        "allow_simulated": policy.allow_simulated,
        "models": [{"name": model.name, "digest": model.digest} for model in policy.models],
        "service_policies": sorted(policy.service_policies),
        "directory": {
            "keys": [
                {"kid": key.kid, "alg": "ed25519", "pk": b64u(key.pk)}
                for key in policy.directory_keys
            ]
        },
        "log": {"origin": policy.log_origin, "vkeys": list(policy.log_vkeys)} if logged else {},
        "freshness": {
            "beacon_max_age_s": policy.beacon_max_age_s,
            "require_beacon": policy.require_beacon,
            "directory_max_age_s": policy.directory_max_age_s,
            "result_ttl_s": policy.result_ttl_s,
            "collateral_max_age_s": policy.collateral_max_age_s,
        },
    }


def deny_members(deny: Deny) -> Obj:
    """The member `deny`."""
    named = [name.partition(":") for name in sorted(deny.identities)]
    return {
        "bh": sorted(map(b64u, deny.bh)),
        "measurements": sorted(deny.measurements),
        "kids": sorted(map(b64u, deny.kids)),
        **{
            member: [value.zfill(digits) for found, _, value in named if found == name]
            for member, name, digits in _CLASSES
        },
    }


def rule_members(rule: Rule) -> Obj:
    """An item of `accept`, without its roots."""
    shared = {
        "kind": rule.kind,
        "measurements": sorted(rule.measurements),
        "posture": dict(sorted(rule.posture.items())),
    }
    if isinstance(rule, HardwareRule):
        gpu = None if rule.gpu is None else _of(rule.gpu)
        return shared | {"simulated": rule.anchors.simulated} | _of(rule.demands) | {"gpu": gpu}
    if isinstance(rule, TpmRule):
        return shared | {"pcr": rule.pcr, "trust": "simulated"}
    return shared


def _of(demands: object) -> Obj:
    match demands:
        case SnpRule():
            return _of_snp(demands)
        case TdxRule():
            return _of_tdx(demands)
        case NitroRule():
            return _of_nitro(demands)
        case NvidiaRule():
            return _of_gpus(demands)
        case AzureRule():
            configuration = dict(sorted(demands.configuration.items()))
            registers = _of_registers(demands.registers)
            return _of(demands.report) | registers | {"vm_configuration": configuration}
        case TpmQuoteRule():
            return _of_registers(demands.registers) | {
                "aks": AS_SUPPLIED if demands.aks is None else _hexes(demands.aks),
                "revocation": _word(demands.revocation, *snp.REVOCATION),
                "event_log": _word(demands.event_log, "required", "optional"),
            }
    raise TypeError(f"no words for the demands of {type(demands).__name__}")


def _of_snp(rule: SnpRule) -> Obj:
    names = {component: name for name, component in snp.LEVELS.items()}
    vlek = "vlek" in rule.signers
    return {
        "products": sorted(rule.min_tcb),
        "min_tcb": {
            product: {names[part]: level for part, level in floor.items()}
            for product, floor in rule.min_tcb.items()
        },
        "image": ANY
        if rule.measurements is None
        else {"measurement_in": _hexes(rule.measurements)},
        "signer": sorted(rule.signers),
        "csp_in": _any_or(rule.csps) if vlek else None,
        "vmpl": {"max": rule.vmpl},
        "debug": False,
        **{bit: bit in rule.allowed for bit in _GUEST_BITS},
        "policy_require": list(rule.policy_require),
        "require": list(rule.require),
        "forbid": list(rule.forbid),
        "min_abi": _dotted(rule.min_abi),
        "min_committed_fw": _dotted(rule.min_fw),
        "min_guest_svn": rule.min_guest_svn,
        "id_key_in": _listed(rule.id_keys),
        "author_key_in": _listed(rule.author_keys),
        "chip_id_in": _listed(rule.chips),
        "revocation": _word(rule.revocation, *snp.REVOCATION),
        "mitigations": f"{rule.mitigations:016x}" if rule.mitigations else None,
    }


def _of_tdx(rule: TdxRule) -> Obj:
    tcb, platform, extension = rule.tcb, rule.platform, rule.extension
    return {
        "tcb": {
            "statuses": sorted(tcb.statuses),
            "allow_advisories": sorted(tcb.allow_advisories),
            "deny_advisories": sorted(tcb.deny_advisories),
            "min_eval_number": tcb.min_eval_number,
            "grace_days": tcb.grace_days,
        },
        "platform": {
            "fmspc_allow": _listed(platform.fmspc_allow),
            "fmspc_deny": _hexes(platform.fmspc_deny),
            "ppid_allow": _listed(platform.ppid_allow),
            **{flag: "deny" if flag in platform.off else None for flag in FLAGS},
        },
        "td": {
            "debug": False,
            "sept_ve_disable": rule.sept_ve_disable,
            **{name: name in rule.allowed for _, name, _ in CLEAR},
            "attributes_eq": None if rule.attributes is None else _register(rule.attributes),
            "xfam_allow_mask": _register(rule.xfam_mask),
            "mr_seam": _listed(rule.mr_seam),
            "service_td": _hexes(rule.service_tds) or "none",
            "service_td_attributes": _hexes(extension.service_td_attributes),
            "vmid": _hexes(extension.vmids),
            "dev_info": _hexes(extension.devices),
            "origin": _hexes(extension.origins),
        },
        "image": ANY
        if rule.images is None
        else {
            "any_of": [
                {name: value.hex() for name, value in image.items()} for image in rule.images
            ]
        },
    }


def _of_nitro(rule: NitroRule) -> Obj:
    return {
        "image": ANY
        if rule.images is None
        else {
            "any_of": [
                {f"pcr{number}": value.hex() for number, value in image.items()}
                for image in rule.images
            ]
        },
        "pcr8_in": _listed(rule.signers),
        "pcr3_in": _listed(rule.roles),
        "max_age_s": nitro.ANY if rule.max_age_s is None else rule.max_age_s,
        "digest": rule.digest,
        "debug": False,
    }


def _of_gpus(rule: NvidiaRule) -> Obj:
    def checked(asked: bool) -> str:
        return _word(asked, nvidia.REQUIRED, nvidia.NOT_CHECKED)

    def accepted(passes: bool) -> str:
        return _word(passes, nvidia.ACCEPT, nvidia.REFUSE)

    return {
        "architectures": sorted(rule.architectures),
        "models": _any_or(rule.models),
        "driver_in": _any_or(rule.drivers),
        "vbios_in": _any_or(rule.vbios),
        "modes": _any_or(rule.modes),
        "rim": checked(rule.rim),
        "rim_ocsp": checked(rule.rim_ocsp) if rule.rim else None,
        "ocsp": checked(rule.ocsp),
        "ocsp_hold": accepted(rule.accept_hold),
        "unknown_fields": accepted(rule.accept_unknown),
        "count": nvidia.ANY if rule.count is None else rule.count,
    }


def _of_registers(rule: RegisterRule) -> Obj:
    values = {str(number): _hexes(accepted) for number, accepted in sorted(rule.values.items())}
    return {"bank": rule.bank or None, "pcrs": values}


def _hexes(values: Iterable[bytes]) -> list[str]:
    return sorted(value.hex() for value in values)


def _listed(values: Iterable[bytes] | None) -> list[str] | None:
    return None if values is None else _hexes(values)


def _any_or(values: Iterable[str] | None) -> list[str] | str:
    return ANY if values is None else sorted(values)


def _word(first: bool, word: str, other: str) -> str:
    return word if first else other


def _dotted(version: Iterable[int] | None) -> str | None:
    return None if version is None else ".".join(map(str, version))


def _register(bits: int) -> str:
    """64 bits as they stand in a report, and in a policy."""
    return bits.to_bytes(8, "little").hex()
