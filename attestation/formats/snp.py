"""AMD SEV-SNP attestation reports: 1184 bytes, little-endian, versions 2 to 5. Parse only.

Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860), tables ATTESTATION_REPORT,
GUEST_POLICY, PLATFORM_INFO and TCB_VERSION. A version, key or reserved field this module does not
know is refused: it may mean that the bytes around it mean something else. Bits of the guest policy
and the platform info are parsed whole, and unknown ones left to the rule to refuse: they change
what the platform does, not what the report says.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_LEN: Final = 1184
SIGNED_LEN: Final = 0x2A0
SIGNATURE_ALGORITHM: Final = 1  # ECDSA on P-384 with SHA-384; the only one there is
# AMD published no table for 4, which firmware 1.55.31 sends: by every field and every zero it is 3.
VERSIONS: Final = (2, 3, 4, 5)
TURIN_HWID_LEN: Final = 8  # the chip id of older products fills all 64 bytes

Product = Literal["Milan", "Genoa", "Turin"]
SigningKey = Literal["vcek", "vlek", "none"]
PRODUCTS: Final[tuple[Product, ...]] = ("Milan", "Genoa", "Turin")

# CPU family and model, with their extended parts added.
CPUS: Final[Mapping[tuple[int, int], Product]] = MappingProxyType(
    {
        (0x19, 0x01): "Milan",
        (0x19, 0x11): "Genoa",
        (0x19, 0xA0): "Genoa",
        (0x1A, 0x02): "Turin",
        (0x1A, 0x11): "Turin",
    }
)
POLICY_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "smt": 16,
        "migrate_ma": 18,
        "debug": 19,
        "single_socket": 20,
        "cxl_allowed": 21,
        "mem_aes_256_xts": 22,
        "rapl_dis": 23,
        "ciphertext_hiding": 24,
        "page_swap_disable": 25,
    }
)
POLICY_ONE: Final = 17  # reserved, and always set
PLATFORM_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "smt_en": 0,
        "tsme_en": 1,
        "ecc_en": 2,
        "rapl_dis": 3,
        "ciphertext_hiding_en": 4,
        "alias_check_complete": 5,  # no two addresses reach the same memory: BadRAM
        "iommu_write_safe": 6,  # writes through the IOMMU are checked: CVE-2023-20585
        "tio_en": 7,
    }
)
_CLAIMED_PLATFORM = tuple(name for name in PLATFORM_BITS if name != "iommu_write_safe")
_SIGNING_KEYS: Final[Mapping[int, SigningKey]] = MappingProxyType({0: "vcek", 1: "vlek", 7: "none"})

# TCB_VERSION: component to its byte. The bytes between are reserved.
_TCB: Final[Mapping[str, int]] = MappingProxyType(
    {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
)
_TCB_TURIN: Final[Mapping[str, int]] = MappingProxyType(
    {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
)


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security version numbers of a platform's firmware.

    Attributes:
        bootloader, tee, snp, microcode: of the components every product has.
        fmc: of the one that came with Turin; None before.
        reserved: whether a reserved byte is set, so that the numbers are not to be relied on.
    """

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None
    reserved: bool = False

    def numbers(self) -> dict[str, int]:
        """Component name to number."""
        found = {} if self.fmc is None else {"fmc": self.fmc}
        return found | {
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }


def decode_tcb(raw: bytes, product: Product) -> Tcb:
    """TCB_VERSION bytes; the product decides what each means, so it must be known before."""
    layout = _TCB_TURIN if product == "Turin" else _TCB
    numbers = {name: raw[at] for name, at in layout.items()}
    rest = (value for at, value in enumerate(raw) if at not in layout.values())
    return Tcb(**numbers, reserved=any(rest))


@dataclass(frozen=True, slots=True)
class Report:
    """A parsed, unverified report.

    Attributes:
        version: of the format.
        guest_svn: the guest's own security version, from its ID block.
        policy: GUEST_POLICY bits: what the guest's owner allowed at launch.
        family_id, image_id: 16 bytes each, from the ID block.
        vmpl: privilege level that asked; 0xFFFFFFFF where the host did.
        platform_info: PLATFORM_INFO bits: what the host's platform does.
        author_key_en: whether `author_key_digest` means anything.
        mask_chip_key: whether the firmware left its reports unsigned.
        signing_key: what signed it.
        report_data: 64 bytes of the guest's.
        measurement: 48 bytes, of what was launched.
        host_data: 32 bytes, given by the host at launch.
        id_key_digest, author_key_digest: 48 bytes each, of the ID block's signers.
        report_id, report_id_ma: 32 bytes each, of this guest and its migration agent.
        current_tcb, reported_tcb, committed_tcb, launch_tcb: TCB_VERSION, 8 bytes each, for
            `decode_tcb`: installed, vouched for by the endorsement key, irrevocable, at launch.
        cpuid: CPU family, model and stepping; None in version 2.
        chip_id: 64 bytes; zero where the host masks it.
        current_fw, committed_fw: firmware version, (major, minor, build).
        launch_mit, current_mit: mitigation vectors; None before version 5.
        signed: the bytes under the signature.
        r, s: the signature.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    current_fw: tuple[int, int, int]
    committed_fw: tuple[int, int, int]
    launch_mit: int | None
    current_mit: int | None
    signed: bytes
    r: int
    s: int

    @property
    def product(self) -> Product | None:
        """What the CPU says it is; None if it does not say, or names one unknown."""
        return None if self.cpuid is None else CPUS.get(self.cpuid[:2])

    @property
    def abi(self) -> tuple[int, int]:
        """Least firmware ABI the guest's owner allowed, (major, minor)."""
        return self.policy >> 8 & 0xFF, self.policy & 0xFF

    def allows(self, bit: str) -> bool:
        """Whether a bit of the guest policy is set."""
        return bool(self.policy >> POLICY_BITS[bit] & 1)

    def has(self, bit: str) -> bool:
        """Whether a bit of the platform info is set."""
        return bool(self.platform_info >> PLATFORM_BITS[bit] & 1)

    def claims(self, product: Product | None) -> dict[str, Any]:
        """What the report says, JSON-able; without TCB numbers where no product decodes them."""
        found: dict[str, Any] = {
            "version": self.version,
            "guest_svn": self.guest_svn,
            "policy": self.policy,
            "vmpl": self.vmpl,
            "platform_info": self.platform_info,
            "signing_key": self.signing_key,
            "mask_chip_key": self.mask_chip_key,
            "author_key_en": self.author_key_en,
            "current_fw": ".".join(map(str, self.current_fw)),
            "committed_fw": ".".join(map(str, self.committed_fw)),
            "cpuid_fam_mod_step": None if self.cpuid is None else list(self.cpuid),
            "product": product,
            "policy_decoded": {
                "abi_major": self.abi[0],
                "abi_minor": self.abi[1],
                **{name: self.allows(name) for name in POLICY_BITS},
            },
            "platform_info_decoded": {name: self.has(name) for name in _CLAIMED_PLATFORM},
            "iommu_write_safe": self.has("iommu_write_safe"),
        }
        for name in ("report_data", "measurement", "host_data", "id_key_digest",
                     "author_key_digest", "family_id", "image_id", "report_id", "report_id_ma",
                     "chip_id"):  # fmt: skip
            found[name] = getattr(self, name).hex()
        for name in ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb"):
            raw = getattr(self, name)
            found[name] = None if product is None else decode_tcb(raw, product).numbers()
        if self.launch_mit is not None and self.current_mit is not None:
            found["launch_mit_vector"] = f"{self.launch_mit:016x}"  # 64 bits are no JSON number
            found["current_mit_vector"] = f"{self.current_mit:016x}"
        return found


def report_version(raw: bytes) -> int:
    """The version of the report in `raw`, which may be one that is not accepted.

    Raises:
        MalformedError: another length.
    """
    if len(raw) != REPORT_LEN:
        raise MalformedError(f"SNP report: found {len(raw)} bytes, expected {REPORT_LEN}")
    return int.from_bytes(raw[:4], "little")


def parse_report(raw: bytes) -> Report:
    """The report in `raw`, unverified.

    Raises:
        MalformedError: another length, version, signature algorithm or signing key than this
            module knows, or a reserved field that is not zero.
    """
    version = report_version(raw)
    if version not in VERSIONS:
        raise MalformedError(f"SNP report: found version {version}, expected {VERSIONS}")
    raw = bytes(raw)
    with_cpuid, with_mitigations = version >= 3, version >= 5  # when the fields came
    _reserved(raw, version)
    algorithm = _uint(raw, 0x34, 4)
    if algorithm != SIGNATURE_ALGORITHM:
        raise MalformedError(
            f"SNP report: found signature algorithm {algorithm}, expected {SIGNATURE_ALGORITHM}"
        )
    flags = _uint(raw, 0x48, 4)
    signing_key = _SIGNING_KEYS.get(flags >> 2)
    if signing_key is None:
        raise MalformedError(f"SNP report: found key information {flags:#x}, expected a known key")
    return Report(
        version=version,
        guest_svn=_uint(raw, 0x04, 4),
        policy=_uint(raw, 0x08, 8),
        family_id=raw[0x10:0x20],
        image_id=raw[0x20:0x30],
        vmpl=_uint(raw, 0x30, 4),
        current_tcb=raw[0x38:0x40],
        platform_info=_uint(raw, 0x40, 8),
        author_key_en=bool(flags & 1),
        mask_chip_key=bool(flags & 2),
        signing_key=signing_key,
        report_data=raw[0x50:0x90],
        measurement=raw[0x90:0xC0],
        host_data=raw[0xC0:0xE0],
        id_key_digest=raw[0xE0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        cpuid=(raw[0x188], raw[0x189], raw[0x18A]) if with_cpuid else None,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        current_fw=(raw[0x1EA], raw[0x1E9], raw[0x1E8]),
        committed_fw=(raw[0x1EE], raw[0x1ED], raw[0x1EC]),
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mit=_uint(raw, 0x1F8, 8) if with_mitigations else None,
        current_mit=_uint(raw, 0x200, 8) if with_mitigations else None,
        signed=raw[:SIGNED_LEN],
        # 72 bytes a number of 48: what is too large for the curve is refused with the signature.
        r=_uint(raw, 0x2A0, 72),
        s=_uint(raw, 0x2E8, 72),
    )


def _reserved(raw: bytes, version: int) -> None:
    """Reserved fields, which the signature covers, and the rest of the signature, which it does not
    (two reports must not differ only there)."""
    ranges = (
        (0x4C, 0x50),
        (0x188 if version < 3 else 0x18B, 0x1A0),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        (0x1F8 if version < 5 else 0x208, SIGNED_LEN),
        (0x330, REPORT_LEN),
    )
    for begin, end in ranges:
        if any(raw[begin:end]):
            raise MalformedError(f"SNP report: reserved bytes at {begin:#x} are set, expected zero")


def _uint(raw: bytes, at: int, n: int) -> int:
    return int.from_bytes(raw[at : at + n], "little")
