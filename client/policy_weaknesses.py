"""What a policy's rules accept although it is weaker than need be, a sentence each.

None of it is an error: there are machines that cannot be used otherwise. Whoever holds the policy
should have decided it, so `anchorhold policy check` says it. Defaults are never among these, but
for what has no default that is safe. What a rule may not say at all is refused when it is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.rules.azure import AzureRule
from attestation.rules.hardware import HardwareRule
from attestation.rules.nvidia import NvidiaRule
from attestation.rules.snp import SnpRule
from attestation.rules.tdx import TdxRule
from attestation.rules.tpm_quote import TpmQuoteRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attestation.policy import Policy
    from attestation.rules.intel import TcbRule


def weaknesses(policy: Policy) -> list[str]:
    """The sentences about all rules, each once, in the order of the rules."""
    found = [
        sentence
        for rule in policy.accept
        if isinstance(rule, HardwareRule)
        for sentence in (*_of(rule.demands), *_of_vtpm(rule), *_of(rule.gpu))
    ]
    return list(dict.fromkeys(found))


def _of(demands: object) -> Iterator[str]:
    if isinstance(demands, AzureRule):
        yield from _of(demands.report)
        if demands.configuration.get("secure-boot") is not True:
            yield "vm_configuration demands no secure boot: boot code may be unsigned"
    elif isinstance(demands, SnpRule):
        yield from _of_snp(demands)
    elif isinstance(demands, TdxRule):
        yield from _of_tcb(demands.tcb)
        yield from _of_tdx(demands)
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
        if not any(floor.values()):
            yield f"min_tcb.{product} sets no floor: firmware with known holes is accepted"
    if not rule.revocation:
        yield "revocation is as_supplied: certificates that AMD revoked may pass"
    if "alias_check_complete" not in rule.require:
        yield "require leaves out alias_check_complete: memory may be aliased (BadRAM)"
    if "migrate_ma" in rule.allowed:
        yield "migrate_ma is true: a migration agent may move the guest with its keys"
    if rule.vmpl:
        yield f"vmpl.max is {rule.vmpl}: software above the worker's kernel may be anybody's"


def _of_tcb(rule: TcbRule) -> Iterator[str]:
    weaker = sorted(rule.statuses - {"UpToDate"})
    if weaker:
        yield f"tcb.statuses accepts {', '.join(weaker)}: known holes may be open"
    if rule.grace_days:
        yield f"tcb.grace_days is {rule.grace_days}: known holes may be open that long"
    if not rule.min_eval_number:
        yield "tcb.min_eval_number is 0: old statements of Intel's hide newer holes"


def _of_tdx(rule: TdxRule) -> Iterator[str]:
    if not rule.sept_ve_disable:
        yield "td.sept_ve_disable is false: the host can interrupt the TD by #VE at will"
    if "migratable" in rule.allowed or rule.service_tds:
        yield "td.migratable or td.service_td: another TD may move the worker with its keys"
    if rule.extension.origins:
        yield "td.origin names other platforms: what held the worker there nobody judged"


def _of_gpus(rule: NvidiaRule) -> Iterator[str]:
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
