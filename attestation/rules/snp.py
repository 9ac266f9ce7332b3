"""What a policy demands of an SEV-SNP platform's and guest's state (judged in `snp_state`).

    {"min_tcb": {"Genoa": {"bl": 10, "snp": 23, "ucode": 84}, "Turin": {}},
     "image": {"measurement_in": [hex, …]},               "any" for the conformance index only
     "products"?: ["Genoa", "Turin"],                     the default; Milan only if named
     "signer"?: ["vcek"], "csp_in"?: ["CN=…"] or "any",   a VLEK's provider must be stated
     "vmpl"?: {"max": 0}, "debug"?: false, "migrate_ma"?: false, "smt"?: false,
     "cxl_allowed"?: false, "require"?: ["alias_check_complete"], "forbid"?: [], "policy_require"?:
     [], "min_abi"?: "1.51", "min_committed_fw"?: "1.55.40", "min_guest_svn"?: 1, "revocation"?:
     "required", "mitigations"?: hex 8, and lists of hex: "id_key_in"?, "author_key_in"?,
     "chip_id_in"?}

What is absent has the strictest meaning that a genuine platform can meet: `migrate_ma`, `smt` and
`cxl_allowed` say what the guest's owner may have allowed. Every product accepted needs a floor, an
empty one (`{}`) for none. It holds for the firmware reported, installed, committed and launched
with: a host may go back from any but the committed. `mitigations` are bits, as the claims write
the vectors, that both the vector of launch and that of now must have; reports before version 5
have none. What bits there are depends on product and firmware, so there is no default.

Milan is no default: its keys' seed was extracted (arXiv 2605.12990), reports can be forged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats.snp import PLATFORM_BITS, PRODUCTS, TURIN_HWID_LEN
from attestation.members import Members
from wire.errors import PolicyError

from .demands import IMAGE_NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from attestation.formats.snp import Product

KEYS: Final = (
    ("min_tcb", "image"),
    (
        "products", "signer", "csp_in", "vmpl", "debug", "migrate_ma", "smt", "cxl_allowed",
        "require", "forbid", "policy_require", "min_abi", "min_committed_fw", "min_guest_svn",
        "id_key_in", "author_key_in", "chip_id_in", "revocation", "mitigations",
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
LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"fmc": "fmc", "bl": "bootloader", "tee": "tee", "snp": "snp", "ucode": "microcode"}
)
_NUMBER = r"(0|[1-9][0-9]{0,2})"
_HEX = re.compile(r"[0-9a-f]+")
_VECTOR = re.compile(r"[0-9a-f]{16}")


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
        mitigations: bits that both mitigation vectors must have.
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
    mitigations: int

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
        mitigations=_mitigations(members),
    )


def _floors(members: Members) -> Mapping[Product, Mapping[str, int]]:
    products = _words(members, "products", PRODUCTS, PRODUCTS_DEFAULT, low=1)
    inner = Members(
        members.value("min_tcb"), "policy.accept.min_tcb", required=products, error=PolicyError
    )
    found: dict[Product, Mapping[str, int]] = {}
    for product in PRODUCTS:
        if product not in products:
            continue
        names = tuple(name for name in LEVELS if name != "fmc" or product == "Turin")
        where = f"policy.accept.min_tcb.{product}"
        floor = Members(inner.value(product), where, optional=names, error=PolicyError)
        found[product] = MappingProxyType(
            {LEVELS[name]: floor.integer(name, 0, 0xFF) for name in names if name in floor}
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


def _mitigations(members: Members) -> int:
    if "mitigations" not in members:
        return 0
    text = members.text("mitigations")
    bits = int(text, 16) if _VECTOR.fullmatch(text) else 0
    if not bits:
        raise members.fail("mitigations", "8 bytes in lower-case hex, not zero")
    return bits


def _version(members: Members, key: str, parts: int) -> tuple[int, ...] | None:
    if key not in members:
        return None
    match = re.fullmatch(r"\.".join([_NUMBER] * parts), members.text(key))
    if match is None or any(int(part) > 0xFF for part in match.groups()):
        raise members.fail(key, f"{parts} numbers up to 255 with dots between")
    return tuple(int(part) for part in match.groups())
