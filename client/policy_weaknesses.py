"""What a policy's rules accept although it is weaker than need be, a sentence each.

None of it is an error: there are machines that cannot be used otherwise. Whoever holds the policy
should have decided it, so `anchorhold policy check` says it. The measure are the examples of
docs/operate/policies.md: what is laxer there is named here, a default too where an example says
more. What a rule may not say at all is refused when it is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.formats import dcap_bodies as bits
from attestation.rules.azure import AzureRule
from attestation.rules.hardware import HardwareRule
from attestation.rules.nitro import NitroRule
from attestation.rules.nvidia import NvidiaRule
from attestation.rules.snp import LEVELS, SnpRule
from attestation.rules.tdx import ATTRIBUTES_KNOWN, CLEAR, XFAM_KNOWN, TdxRule
from attestation.rules.tpm_quote import TpmQuoteRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attestation.policy import Policy, Rule
    from attestation.rules.intel import PlatformRule, TcbRule

# Parts of AMD's firmware whose holes reach into a guest; `tee` and `fmc` are zero in the field.
_FLOORS: Final = ("bl", "snp", "ucode")


def weaknesses(policy: Policy) -> list[str]:
    """The sentences about all rules, each once, in the order of the rules."""
    found = [sentence for rule in policy.accept for sentence in _of_rule(rule)]
    return list(dict.fromkeys(found))


def _of_rule(rule: Rule) -> Iterator[str]:
    if not rule.posture:
        yield "posture demands no control: the worker need not have confined itself"
    for name, state in sorted(rule.posture.items()):
        if state != "applied":
            yield f"posture.{name} is {state}: the worker may run without that control"
    if isinstance(rule, HardwareRule):
        yield from _of(rule.demands)
        yield from _of_vtpm(rule)
        yield from _of(rule.gpu)


def _of(demands: object) -> Iterator[str]:
    if isinstance(demands, AzureRule):
        yield from _of(demands.report)
        if demands.configuration.get("secure-boot") is not True:
            yield "vm_configuration demands no secure boot: boot code may be unsigned"
    elif isinstance(demands, SnpRule):
        yield from _of_snp(demands)
    elif isinstance(demands, TdxRule):
        yield from _of_tcb(demands.tcb)
        yield from _of_platform(demands.platform)
        yield from _of_tdx(demands)
    elif isinstance(demands, NitroRule):
        yield from _of_nitro(demands)
    elif isinstance(demands, NvidiaRule):
        yield from _of_gpus(demands)


def _of_vtpm(rule: HardwareRule) -> Iterator[str]:
    # Only a key certified under roots has a list it could be on; others the policy lists itself.
    if isinstance(rule.demands, TpmQuoteRule) and rule.roots and not rule.demands.revocation:
        yield "revocation is as_supplied: a revoked virtual TPM's certificate may pass"


def _of_snp(rule: SnpRule) -> Iterator[str]:
    if "Milan" in rule.min_tcb:
        yield "accepts AMD Milan: its keys were extracted, reports can be forged"
    for product, floor in rule.min_tcb.items():
        lacking = [name for name in _FLOORS if not floor.get(LEVELS[name])]
        if not any(floor.values()):
            yield f"min_tcb.{product} sets no floor: firmware with known holes is accepted"
        elif lacking:
            yield f"min_tcb.{product} sets no floor for {', '.join(lacking)}: holes may be open"
    if rule.min_abi is None:
        yield "min_abi is absent: the guest may allow firmware of any ABI"
    if rule.min_fw is None:
        yield "min_committed_fw is absent: the host may go back to firmware of any version"
    if not rule.revocation:
        yield "revocation is as_supplied: certificates that AMD revoked may pass"
    if "vlek" in rule.signers:
        yield "signer accepts vlek: a provider's key for its whole fleet, which names no chip"
        if rule.csps is None:
            yield "csp_in is any: the key of any provider will do"
    if "alias_check_complete" not in rule.require:
        yield "require leaves out alias_check_complete: memory may be aliased (BadRAM)"
    if "ecc_en" not in rule.require:
        yield "require leaves out ecc_en: memory may be without error correction"
    if "migrate_ma" in rule.allowed:
        yield "migrate_ma is true: a migration agent may move the guest with its keys"
    if "cxl_allowed" in rule.allowed:
        yield "cxl_allowed is true: memory may be on devices outside of the package"
    if rule.vmpl:
        yield f"vmpl.max is {rule.vmpl}: software above the worker's kernel may be anybody's"


def _of_tcb(rule: TcbRule) -> Iterator[str]:
    weaker = sorted(rule.statuses - {"UpToDate"})
    if weaker:
        yield f"tcb.statuses accepts {', '.join(weaker)}: known holes may be open"
    if rule.allow_advisories:
        yield "tcb.allow_advisories is not empty: the holes it names may be open"
    if rule.grace_days:
        yield f"tcb.grace_days is {rule.grace_days}: known holes may be open that long"
    if not rule.min_eval_number:
        yield "tcb.min_eval_number is 0: old statements of Intel's hide newer holes"


def _of_platform(rule: PlatformRule) -> Iterator[str]:
    if rule.ppid_allow is None:
        yield "platform.ppid_allow is absent: any genuine machine will do, a stranger's too"


def _of_tdx(rule: TdxRule) -> Iterator[str]:
    if rule.attributes is None:
        yield from _of_attributes(rule)
    else:
        yield from _of_exact_attributes(rule.attributes)
    if rule.service_tds or (rule.attributes is None and "migratable" in rule.allowed):
        yield "td.migratable or td.service_td: another TD may move the worker with its keys"
    if rule.xfam_mask & ~XFAM_KNOWN:
        yield "td.xfam_allow_mask allows features of no known use"
    if rule.extension.vmids:
        yield "td.vmid names virtual machines within a TD: what is above them nobody judged"
    if rule.extension.devices:
        yield "td.dev_info names devices: they are outside of what the report measures"
    if rule.extension.origins:
        yield "td.origin names other platforms: what held the worker there nobody judged"


def _of_attributes(rule: TdxRule) -> Iterator[str]:
    if not rule.sept_ve_disable:
        yield "td.sept_ve_disable is false: the host can interrupt the TD by #VE at will"
    for name in sorted(rule.allowed - {"migratable"}):
        yield f"td.{name} is true: the TD may use more of the CPU than a worker needs"


def _of_exact_attributes(attributes: int) -> Iterator[str]:
    """All 64 bits are demanded, and no other demand on them counts; so they are judged here."""
    where = "td.attributes_eq"
    if not attributes & bits.SEPT_VE_DISABLE:
        yield f"{where} has no SEPT_VE_DISABLE: the host can interrupt the TD by #VE"
    for bit, name, _ in CLEAR:
        if attributes & bit and bit == bits.MIGRATABLE:
            yield f"{where} has MIGRATABLE: another TD may move the worker with its keys"
        elif attributes & bit:
            yield f"{where} has {name.upper()}: the TD may use more than a worker needs"
    if attributes & bits.SERVTD_EXT:
        yield f"{where} has SERVTD_EXT: service TDs may be bound anew"
    if attributes & ~ATTRIBUTES_KNOWN & ~bits.SERVTD_EXT:
        yield f"{where} has bits of no known use"


def _of_nitro(rule: NitroRule) -> Iterator[str]:
    if rule.max_age_s is None:
        yield "max_age_s is any: a document counts however old it was when it was bound"
    if rule.signers is None:
        yield "pcr8_in is absent: whoever can build the same image may sign it"


def _of_gpus(rule: NvidiaRule) -> Iterator[str]:
    for name, accepted in (
        ("models", rule.models),
        ("driver_in", rule.drivers),
        ("vbios_in", rule.vbios),
    ):
        if accepted is None:
            yield f"gpu.{name} is any: nobody decided on what passes"
    if rule.count is None:
        yield "gpu.count is any: GPUs may be fewer than those that were given to the worker"
    if not rule.rim:
        yield "gpu.rim is not_checked: a GPU in developer mode or with other firmware passes"
    if not rule.ocsp:
        yield "gpu.ocsp is not_checked: a GPU whose certificates NVIDIA revoked passes"
    if rule.rim and not rule.rim_ocsp:
        yield "gpu.rim_ocsp is not_checked: manifests of a revoked signer pass"
    if rule.accept_hold:
        yield "gpu.ocsp_hold is accept: certificates that NVIDIA has suspended pass"
    if rule.accept_unknown:
        yield "gpu.unknown_fields is accept: reports may say what nobody understands"
    if rule.modes is None or "ppcie" in rule.modes:
        yield "gpu.modes accepts ppcie: links between GPUs are in clear text"
    if rule.modes is None or "unstated" in rule.modes:
        yield "gpu.modes accepts unstated: nobody knows how links between GPUs are kept"
