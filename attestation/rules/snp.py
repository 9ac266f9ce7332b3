"""What a policy demands of an SEV-SNP platform's and guest's state.

    {"min_tcb": {"Genoa": {"bl": 10, "snp": 23, "ucode": 84}, "Turin": {}},
     "image": {"measurement_in": [hex, …]},               "any" for the conformance index only
     "products"?: ["Genoa", "Turin"],                     the default; Milan only if named
     "signer"?: ["vcek"], "csp_in"?: ["CN=…"] or "any",   a VLEK's provider must be stated
     "vmpl"?: {"max": 0}, "debug"?: false, "migrate_ma"?: false, "smt"?: false,
     "cxl_allowed"?: false, "require"?: ["alias_check_complete"], "forbid"?: [], "policy_require"?:
     [], "min_abi"?: "1.51", "min_committed_fw"?: "1.55.40", "min_guest_svn"?: 1, "revocation"?:
     "required", and lists of hex: "id_key_in"?, "author_key_in"?, "chip_id_in"?}

What is absent has the strictest meaning that a genuine platform can meet: `migrate_ma`, `smt` and
`cxl_allowed` say what the guest's owner may have allowed. Every product accepted needs a floor, an
empty one (`{}`) for none. It holds for the firmware reported, installed, committed and launched
with: a host may go back from any but the committed.

Milan is no default: its keys' seed was extracted (arXiv 2605.12990), reports can be forged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats.snp import (
    PLATFORM_BITS,
    POLICY_BITS,
    POLICY_ONE,
    PRODUCTS,
    TURIN_HWID_LEN,
    decode_tcb,
)
from attestation.members import Members
from wire.errors import AttestationError, PolicyError

from .demands import IMAGE_NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from attestation.formats.amd_certificate import EndorsementKey
    from attestation.formats.snp import Product, Report
    from attestation.ledger import Ledger

KEYS: Final = (
    ("min_tcb", "image"),
    (
        "products", "signer", "csp_in", "vmpl", "debug", "migrate_ma", "smt", "cxl_allowed",
        "require", "forbid", "policy_require", "min_abi", "min_committed_fw", "min_guest_svn",
        "id_key_in", "author_key_in", "chip_id_in", "revocation",
    ),
)  # fmt: skip

ANY: Final = "any"
PRODUCTS_DEFAULT: Final = ("Genoa", "Turin")
REQUIRE_DEFAULT: Final = ("alias_check_complete",)
SIGNERS: Final = ("vcek", "vlek")
REVOCATION: Final = ("required", "as_supplied")
# Bits of the guest policy by which its owner asks for more than the platform does by default.
POLICY_REQUIRABLE: Final = (
    "single_socket", "mem_aes_256_xts", "rapl_dis", "ciphertext_hiding", "page_swap_disable",
)  # fmt: skip
LISTED_MAX: Final = 4096  # chips of a fleet; images and keys are fewer
VMPL_MAX: Final = 3
_LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"fmc": "fmc", "bl": "bootloader", "tee": "tee", "snp": "snp", "ucode": "microcode"}
)
_TCBS: Final = ("reported", "committed", "current", "launch")
_KNOWN_POLICY = 0xFFFF | 1 << POLICY_ONE | sum(1 << bit for bit in POLICY_BITS.values())
_KNOWN_PLATFORM = sum(1 << bit for bit in PLATFORM_BITS.values())
_NUMBER = r"(0|[1-9][0-9]{0,2})"
_HEX = re.compile(r"[0-9a-f]+")


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


@dataclass(frozen=True, slots=True)
class SnpRule:
    """Accepts SEV-SNP reports; the members mean what the module says. None asks nothing.

    Attributes:
        min_tcb: product to component to least version; its keys are the accepted products.
        measurements: accepted launch measurements.
        signers, csps: accepted kinds of endorsement key, and providers of a VLEK.
        vmpl: highest accepted privilege level number; 0 is the most privileged.
        allowed: bits of the guest policy that may be set though they weaken the guest.
        policy_require: bits of the guest policy that must be set.
        require, forbid: bits of the platform info that must and must not be set.
        min_abi, min_fw, min_guest_svn: least versions.
        id_keys, author_keys, chips: accepted digests and chip ids.
        revocation: whether AMD's revocation list must have been checked.
    """

    min_tcb: Mapping[Product, Mapping[str, int]]
    measurements: frozenset[bytes] | None
    signers: frozenset[str]
    csps: frozenset[str] | None
    vmpl: int
    allowed: frozenset[str]
    policy_require: tuple[str, ...]
    require: tuple[str, ...]
    forbid: tuple[str, ...]
    min_abi: tuple[int, ...] | None
    min_fw: tuple[int, ...] | None
    min_guest_svn: int
    id_keys: frozenset[bytes] | None
    author_keys: frozenset[bytes] | None
    chips: frozenset[bytes] | None
    revocation: bool

    @property
    def unsaid(self) -> str:
        """Which images; an ID block's key is no answer, its owner may sign any."""
        wanted = f'image: found "any", expected {{"measurement_in": […]}} {IMAGE_NEEDED}'
        return wanted if self.measurements is None else ""


def parse(members: Members) -> SnpRule:
    """The rule of an `accept` item.

    Raises:
        PolicyError: another type or value, a product without a floor, a VLEK without its provider.
    """
    if members.flag("debug", default=False):
        raise members.fail("debug", "false: the host can read a debug guest's memory")
    signers = _words(members, "signer", SIGNERS, ("vcek",), low=1)
    vmpl = Members(members.value("vmpl"), "policy.accept.vmpl", required=("max",),
                   error=PolicyError) if "vmpl" in members else None  # fmt: skip
    revocation = members.text("revocation") if "revocation" in members else REVOCATION[0]
    if revocation not in REVOCATION:
        raise members.fail("revocation", " or ".join(REVOCATION))
    return SnpRule(
        min_tcb=_floors(members),
        measurements=_image(members),
        signers=frozenset(signers),
        csps=_csps(members, signers),
        vmpl=0 if vmpl is None else vmpl.integer("max", 0, VMPL_MAX),
        allowed=frozenset(
            bit for bit in ("migrate_ma", "smt", "cxl_allowed") if members.flag(bit, default=False)
        ),
        policy_require=_words(members, "policy_require", POLICY_REQUIRABLE),
        require=_words(members, "require", tuple(PLATFORM_BITS), REQUIRE_DEFAULT),
        forbid=_words(members, "forbid", tuple(PLATFORM_BITS)),
        min_abi=_version(members, "min_abi", 2),
        min_fw=_version(members, "min_committed_fw", 3),
        min_guest_svn=members.integer("min_guest_svn", 0, 2**32 - 1)
        if "min_guest_svn" in members
        else 0,
        id_keys=_hexes(members, "id_key_in", (48,)),
        author_keys=_hexes(members, "author_key_in", (48,)),
        chips=_hexes(members, "chip_id_in", (64, TURIN_HWID_LEN)),
        revocation=revocation == REVOCATION[0],
    )


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


def _floors(members: Members) -> Mapping[Product, Mapping[str, int]]:
    products = _words(members, "products", PRODUCTS, PRODUCTS_DEFAULT, low=1)
    inner = Members(
        members.value("min_tcb"), "policy.accept.min_tcb", required=products, error=PolicyError
    )
    found: dict[Product, Mapping[str, int]] = {}
    for product in PRODUCTS:
        if product not in products:
            continue
        names = tuple(name for name in _LEVELS if name != "fmc" or product == "Turin")
        where = f"policy.accept.min_tcb.{product}"
        floor = Members(inner.value(product), where, optional=names, error=PolicyError)
        found[product] = MappingProxyType(
            {_LEVELS[name]: floor.integer(name, 0, 0xFF) for name in names if name in floor}
        )
    return MappingProxyType(found)


def _image(members: Members) -> frozenset[bytes] | None:
    value = members.value("image")
    if value == ANY:
        return None
    inner = Members(value, "policy.accept.image", required=("measurement_in",), error=PolicyError)
    return _hexes(inner, "measurement_in", (48,))


def _csps(members: Members, signers: Iterable[str]) -> frozenset[str] | None:
    if "vlek" not in signers:
        if "csp_in" in members:
            raise members.fail("csp_in", 'none without "vlek" among the signers')
        return None
    if members.value("csp_in") == ANY:
        return None
    return frozenset(members.texts("csp_in", LISTED_MAX, 1))


def _words(
    members: Members, key: str, known: tuple[str, ...], default: tuple[str, ...] = (), low: int = 0
) -> tuple[str, ...]:
    found = members.texts(key, len(known), low) if key in members else default
    for word in found:
        if word not in known:
            raise members.fail_item(key, word, f"only {', '.join(known)}")
    return found


def _hexes(members: Members, key: str, lengths: tuple[int, ...]) -> frozenset[bytes] | None:
    if key not in members:
        return None
    found = members.texts(key, LISTED_MAX, 1)
    for text in found:
        if len(text) // 2 not in lengths or len(text) % 2 or _HEX.fullmatch(text) is None:
            raise members.fail_item(key, text, f"{lengths} bytes in lower-case hex")
        if not text.strip("0"):  # what is absent reads as zero
            raise members.fail_item(key, text, "values other than zero")
    return frozenset(bytes.fromhex(text).ljust(max(lengths), b"\0") for text in found)


def _version(members: Members, key: str, parts: int) -> tuple[int, ...] | None:
    if key not in members:
        return None
    match = re.fullmatch(r"\.".join([_NUMBER] * parts), members.text(key))
    if match is None or any(int(part) > 0xFF for part in match.groups()):
        raise members.fail(key, f"{parts} numbers up to 255 with dots between")
    return tuple(int(part) for part in match.groups())


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(f"SNP: {detail}", reasons=(code,))
