"""The state of an SEV-SNP platform and its guest, judged by a rule (`snp`): steps 12 to 22."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.formats.snp import PLATFORM_BITS, POLICY_BITS, POLICY_ONE, decode_tcb
from wire.errors import refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.formats.amd_certificate import EndorsementKey
    from attestation.formats.snp import Product, Report
    from attestation.ledger import Ledger

    from .snp import SnpRule

_refused: Final = partial(refused, about="SNP")
_TCBS: Final = ("reported", "committed", "current", "launch")
_KNOWN_POLICY = 0xFFFF | 1 << POLICY_ONE | sum(1 << bit for bit in POLICY_BITS.values())
_KNOWN_PLATFORM = sum(1 << bit for bit in PLATFORM_BITS.values())


@dataclass(frozen=True, slots=True)
class SnpFacts:
    """What is judged.

    Attributes:
        report: as parsed.
        product: of the pinned chain; None if there is none, and then nothing is accepted.
        endorsement: what the endorsement key's certificate says; None if it does not parse.
        revocation: whether AMD's list for the product was at hand and checked.
    """

    report: Report
    product: Product | None
    endorsement: EndorsementKey | None
    revocation: bool


def judge(ledger: Ledger, facts: SnpFacts, rule: SnpRule, now: int) -> None:
    """Steps 12 to 22: the state of a platform and its guest.

    Reasons: `product_unknown`, `product_not_accepted` (12), `signer_not_accepted`,
    `csp_not_accepted` (13), `revocation_not_checked` (14), `debug_enabled` (15),
    `policy_bits_unknown`, `guest_policy_weak`, `guest_policy_bit_missing`, `guest_abi_too_old`
    (16), `vmpl_not_accepted` (17), `platform_bits_unknown`, `alias_check_not_complete`,
    `platform_bit_missing`, `platform_bit_forbidden` (18), `tcb_out_of_date` (19),
    `firmware_out_of_date` (20), `measurement_zero`, `image_not_accepted`,
    `guest_svn_too_low` (21), `id_key_not_accepted`, `author_key_not_accepted`,
    `chip_not_accepted` (22).
    """
    del now  # the state of a platform has no time; certificates and lists were examined
    report = facts.report
    ledger.run("snp 12 product", lambda: _check_product(facts.product, rule))
    ledger.run("snp 13 signer", lambda: _check_signer(facts, rule))
    ledger.run("snp 14 revocation", lambda: _check_revocation(facts, rule))
    ledger.run("snp 15 debug", lambda: _check_debug(report))
    ledger.run("snp 16 guest policy", lambda: _check_policy(report, rule))
    ledger.run("snp 17 vmpl", lambda: _check_vmpl(report, rule))
    ledger.run("snp 18 platform", lambda: _check_platform(report, rule))
    ledger.run("snp 19 tcb", lambda: _check_tcb(facts, rule))
    ledger.run("snp 20 firmware", lambda: _check_firmware(report, rule))
    ledger.run("snp 21 image", lambda: _check_image(report, rule))
    ledger.run("snp 22 identity", lambda: _check_identity(report, rule))


def _check_product(product: Product | None, rule: SnpRule) -> str:  # 12
    if product is None:
        raise _refused("product_unknown", "found no pinned chain that names a product")
    if product not in rule.min_tcb:
        raise _refused(
            "product_not_accepted", f"found {product}, expected {' or '.join(rule.min_tcb)}"
        )
    return product


def _check_signer(facts: SnpFacts, rule: SnpRule) -> str:  # 13
    signer = facts.report.signing_key
    if signer not in rule.signers:
        raise _refused(
            "signer_not_accepted", f"signed by {signer}, expected {' or '.join(rule.signers)}"
        )
    csp = None if facts.endorsement is None else facts.endorsement.csp
    if signer == "vlek" and rule.csps is not None and csp not in rule.csps:
        raise _refused("csp_not_accepted", f"its provider is none of {len(rule.csps)} accepted")
    return signer


def _check_revocation(facts: SnpFacts, rule: SnpRule) -> str:  # 14
    if facts.revocation:
        return "checked"
    if rule.revocation:
        raise _refused("revocation_not_checked", "found no valid list of AMD's, expected one")
    return "no list supplied, and none demanded"


def _check_debug(report: Report) -> str:  # 15
    if report.allows("debug"):
        raise _refused("debug_enabled", "the guest policy lets the host read the guest's memory")
    return "off"


def _check_policy(report: Report, rule: SnpRule) -> str:  # 16
    if report.policy & ~_KNOWN_POLICY or not report.policy >> POLICY_ONE & 1:
        raise _refused("policy_bits_unknown", f"guest policy {report.policy:#x} has reserved bits")
    for bit in ("migrate_ma", "smt", "cxl_allowed"):
        if report.allows(bit) and bit not in rule.allowed:
            raise _refused("guest_policy_weak", f"the guest policy allows {bit}, expected not")
    for bit in rule.policy_require:
        if not report.allows(bit):
            raise _refused("guest_policy_bit_missing", f"the guest policy does not ask for {bit}")
    if rule.min_abi is not None and report.abi < rule.min_abi:
        raise _refused(
            "guest_abi_too_old",
            f"the guest policy allows ABI {_dotted(report.abi)}, expected {_dotted(rule.min_abi)}",
        )
    return f"{report.policy:#x}"


def _check_vmpl(report: Report, rule: SnpRule) -> str:  # 17
    # Less privileged code could get a report for a key of its own; a report that the host asked
    # for has level 0xFFFFFFFF.
    if report.vmpl > rule.vmpl:
        raise _refused("vmpl_not_accepted", f"found VMPL {report.vmpl}, expected ≤ {rule.vmpl}")
    return str(report.vmpl)


def _check_platform(report: Report, rule: SnpRule) -> str:  # 18
    if report.platform_info & ~_KNOWN_PLATFORM:
        raise _refused(
            "platform_bits_unknown", f"platform info {report.platform_info:#x} has unknown bits"
        )
    for bit in rule.require:
        if not report.has(bit):
            alias = bit == "alias_check_complete"
            code = "alias_check_not_complete" if alias else "platform_bit_missing"
            raise _refused(code, f"the platform has no {bit}, expected it")
    for bit in rule.forbid:
        if report.has(bit):
            raise _refused("platform_bit_forbidden", f"the platform has {bit}, expected not")
    for name, vector in (("launch", report.launch_mit), ("now", report.current_mit)):
        if rule.mitigations & ~(vector or 0):
            raise _refused("platform_bit_missing", f"{name}: a mitigation demanded is not there")
    return f"{report.platform_info:#x}"


def _check_tcb(facts: SnpFacts, rule: SnpRule) -> str:  # 19
    product = facts.product
    if product is None or product not in rule.min_tcb:
        raise _refused("tcb_out_of_date", "there is no floor for the product, expected one")
    for name in _TCBS:
        found = decode_tcb(getattr(facts.report, f"{name}_tcb"), product).numbers()
        for component, least in rule.min_tcb[product].items():
            if found[component] < least:
                raise _refused(
                    "tcb_out_of_date",
                    f"{name} {component}: found {found[component]}, expected {least} or more",
                )
    return f"{len(rule.min_tcb[product])} components at or above {product}'s floor"


def _check_firmware(report: Report, rule: SnpRule) -> str:  # 20
    for name, version in (("committed", report.committed_fw), ("current", report.current_fw)):
        if rule.min_fw is not None and version < rule.min_fw:
            raise _refused(
                "firmware_out_of_date",
                f"{name} firmware: found {_dotted(version)}, expected {_dotted(rule.min_fw)}",
            )
    return _dotted(report.committed_fw)


def _check_image(report: Report, rule: SnpRule) -> str:  # 21
    if not any(report.measurement):
        raise _refused("measurement_zero", "the launch measurement is zero: nothing was measured")
    if rule.measurements is not None and report.measurement not in rule.measurements:
        raise _refused(
            "image_not_accepted", f"the image is none of {len(rule.measurements)} accepted"
        )
    if report.guest_svn < rule.min_guest_svn:
        raise _refused(
            "guest_svn_too_low", f"found SVN {report.guest_svn}, expected {rule.min_guest_svn}"
        )
    return "any image" if rule.measurements is None else f"one of {len(rule.measurements)}"


def _check_identity(report: Report, rule: SnpRule) -> str:  # 22
    if rule.id_keys is not None and report.id_key_digest not in rule.id_keys:
        raise _refused("id_key_not_accepted", "the ID block's key is not accepted")
    if rule.author_keys is not None and not (
        report.author_key_en and report.author_key_digest in rule.author_keys
    ):
        raise _refused("author_key_not_accepted", "the author key is absent or not accepted")
    if rule.chips is not None and report.chip_id not in rule.chips:
        raise _refused("chip_not_accepted", "the chip is masked or not accepted")
    return "as the rule demands"


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
