"""One NVIDIA device's report: who signed it, and whether all parts speak of the same device.

Steps, in order; the schemes number them:
 1. the version is one whose layout is known      version_not_accepted
 2. the report and the chain parse, to the byte   evidence_malformed
 3. the chain is one line of issuers, complete,   untrusted_root, chain_invalid,
    and ends in a pinned device root              certificate_not_valid_at_time
 4. the device is of a known family, and leaf,    product_not_accepted,
    extension and report say the same family      gpu_architecture_mismatch
 5. the leaf signed request and response          signature_invalid
 6. the firmware in the report is one that the    fwid_mismatch
    leaf was made for
 7. no certificate between leaf and root is       revoked, revocation_unknown, ocsp_invalid,
    revoked (verify.ocsp; where responses are     ocsp_nonce_mismatch, collateral_expired
    given; the leaf is made by the chip itself,
    so no responder knows it; the root is pinned)
 8. the request carried our nonce                 nonce_mismatch

The nonce compared is the request's, which the verifier chose; the response's is the device's own.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.formats.nvidia_chain import FWID_COMPOSITE, FWID_TCB_INFO, parse_chain
from attestation.formats.spdm import (
    CHIP_INFO,
    OPAQUE_DATA_VERSION,
    OPAQUE_VERSION_MAX,
    SIGNATURE_LEN,
    VERSION,
    parse_report,
    version_of,
)
from wire.errors import AttestationError, refused

from .x509 import load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate

    from attestation.anchors import Anchors
    from attestation.formats.nvidia_chain import DeviceChain
    from attestation.formats.spdm import Report

_refused: Final = partial(refused, about="SPDM report")
HOPPER: Final = "HOPPER"
BLACKWELL: Final = "BLACKWELL"
LS10: Final = "LS10"
GPUS: Final = (HOPPER, BLACKWELL)
SWITCHES: Final = (LS10,)
ARCHITECTURES: Final = (*GPUS, *SWITCHES)

# The certified name begins with the chip, or, as "GB20X", with all chips of a line; the report says
# which of them it is.
_FAMILIES: Final = (
    (re.compile(r"(GH1[0-9]{2}) .*"), HOPPER, FWID_COMPOSITE),
    (re.compile(r"(GB[12][0-9][0-9X]) .*"), BLACKWELL, FWID_TCB_INFO),
    (re.compile(r"(LS_10) .*"), LS10, FWID_COMPOSITE),
)
# How a GPU's report names its chip; a switch's does not. Others of NVIDIA's chips are named alike.
_CHIP: Final = re.compile(rb"[A-Z]{2}[0-9]{2}[0-9A-FX]|LS_[0-9]{2}")
_LINE: Final = "X"  # the last letter of a certified name that stands for all chips of a line
_ORDER: Final = ec.SECP384R1.group_order


@dataclass(frozen=True, slots=True)
class Family:
    """A device's certified kind.

    Attributes:
        architecture: "HOPPER", "BLACKWELL" or "LS10".
        chip: such as "GH100".
    """

    architecture: str
    chip: str

    @property
    def is_line(self) -> bool:
        """Whether `chip` stands for a line of chips, such as "GB20X"."""
        return self.chip.endswith(_LINE)

    def holds(self, chip: str) -> bool:
        """Whether a chip is one that this certified name can be of.

        A certified chip may be reported by the name of a sibling: GB100 as GB102, never as GB202.
        """
        return chip.startswith(self.chip[:-1] if self.is_line else self.chip[:3])


@dataclass(frozen=True, slots=True)
class Device:
    """One device's parsed evidence; no more verified than its ledger says.

    Attributes:
        report: what it signed.
        chain: what vouches for its key.
        family: None where it is of no known one.
    """

    report: Report
    chain: DeviceChain
    family: Family | None

    @property
    def fingerprint(self) -> str:
        """The device in a binding's `gpus`."""
        return f"sha256:{self.chain.key_sha256.hex()}"

    @property
    def fwid_matches(self) -> bool | None:
        """Whether the leaf was made for the report's firmware; None where it states none."""
        fwid = self.report.fwid
        # A leaf has a second, empty place: zeros there vouch for no firmware.
        return (any(fwid) and fwid in self.chain.fwids) if fwid else None

    @property
    def identities(self) -> tuple[str, ...]:
        """Names a deny list may hold."""
        chip = (f"chip_id:{_octets(self.chain.chip)}",) if self.chain.chip else ()
        return (
            f"serial:{_octets(self.chain.serial)}",
            *chip,
            f"key:{self.chain.key_sha256.hex()}",
        )

    @property
    def product(self) -> str:
        """The chip whose manifests apply: the one the report names, or else its certificate.

        Empty where the report names one that is not of the certified family, or in no way we know.
        """
        if self.family is None:
            return ""
        if CHIP_INFO not in self.report.opaque:  # older firmware
            return self.family.chip
        chip = self.stated_chip
        whole = self.report.opaque[CHIP_INFO].rstrip(b"\0") == chip.encode("ascii")
        named = whole and chip and not chip.endswith(_LINE) and self.family.holds(chip)
        return chip if named else ""

    @property
    def stated_chip(self) -> str:
        """The chip that the report names, as far as it names one; else empty."""
        stated = self.report.opaque.get(CHIP_INFO, b"").partition(b"\0")[0]
        return stated.decode("ascii") if _CHIP.fullmatch(stated) else ""

    def claims(self) -> dict[str, Any]:
        """What was parsed, JSON-able."""
        return {
            **self.report.claims(),
            "leaf_fwids": [fwid.hex() for fwid in self.chain.fwids],
            "fwid_matches_leaf": self.fwid_matches,
            "device_serial": self.chain.serial,
            "architecture": self.family.architecture if self.family else None,
            "chip": self.family.chip if self.family else None,
            "key": self.fingerprint,
        }


def check_version(raw: bytes) -> str:  # step 1
    """The report's version byte.

    Raises:
        AttestationError: `version_not_accepted`.
    """
    if version_of(raw) != VERSION:
        raise _refused(
            "version_not_accepted", f"found 0x{max(version_of(raw), 0):02x}, expected 0x11"
        )
    return "SPDM 1.1"


def parse_device(report: bytes, chain: bytes) -> Device:  # step 2
    """The evidence of one device.

    Raises:
        MalformedError: report or chain does not follow its format.
    """
    parsed = parse_chain(chain)
    return Device(parse_report(report), parsed, _family(parsed))


def check_end(device: Device) -> str:  # step 2
    """Nothing follows the signature, and the opaque data is of a layout we know.

    Raises:
        AttestationError: `evidence_malformed`, `version_not_accepted`.
    """
    if device.report.trailing:
        raise _refused(
            "evidence_malformed",
            f"found {device.report.trailing} bytes after the signature, expected none",
        )
    version = int.from_bytes(device.report.opaque.get(OPAQUE_DATA_VERSION, b""), "little")
    if version > OPAQUE_VERSION_MAX:
        raise _refused(
            "version_not_accepted",
            f"opaque data: found version {version}, expected at most {OPAQUE_VERSION_MAX}",
        )
    return f"{len(device.report.measurements)} measurements, nothing after the signature"


def check_chain(
    device: Device, roots: Sequence[bytes], anchors: Anchors, now: int
) -> tuple[Certificate, int]:  # step 3
    """The leaf, and when the chain ends.

    Args:
        device: the evidence.
        roots: certificates (DER) that may be the root, besides those of the chain.
        anchors: the pins that decide.
        now: Unix seconds.

    Raises:
        AttestationError: see step 3.
    """
    if device.chain.fault:
        raise AttestationError(
            f"certificate chain: {device.chain.fault}", reasons=("chain_invalid",)
        )
    ders = device.chain.ders
    leaf, not_after = verify_chain(ders[0], ders[1:], anchors.among((*ders, *roots)), now)
    return leaf, not_after


def check_family(device: Device, kinds: Sequence[str], expected: str | None) -> str:  # step 4
    """The architecture that certificate, extension and report agree on.

    Args:
        device: the evidence.
        kinds: architectures this evidence kind is for.
        expected: the one asked for, or None.

    Raises:
        AttestationError: `product_not_accepted`, `gpu_architecture_mismatch`.
    """
    family = device.family
    if family is None or family.architecture not in kinds:
        found = "an unknown product" if family is None else family.architecture
        raise _refused("product_not_accepted", f"found {found}, expected {' or '.join(kinds)}")
    oid = next(oid for _, name, oid in _FAMILIES if name == family.architecture)
    if any(other != oid for other in device.chain.fwid_oids):
        raise _refused(
            "gpu_architecture_mismatch",
            f"{family.chip}: found another family's firmware extension, expected {oid}",
        )
    # Only a GPU has a driver: a report without one under a GPU's leaf, or with one under a
    # switch's, was not made by what the certificate names.
    if bool(device.report.driver_version) is not (family.architecture in GPUS):
        raise _refused(
            "gpu_architecture_mismatch",
            f"{family.chip}: the report's driver version is not as this family has it",
        )
    if device.stated_chip and not family.holds(device.stated_chip):
        raise _refused(
            "gpu_architecture_mismatch",
            f"{family.chip}: the report names {device.stated_chip}, which is none of these",
        )
    if expected is not None and expected.upper() != family.architecture:
        raise _refused(
            "gpu_architecture_mismatch",
            f"found {family.architecture}, expected another architecture",
        )
    return f"{family.chip}, {family.architecture}"


def check_signature(device: Device, leaf: Certificate | None = None) -> str:  # step 5
    """ECDSA of the leaf's key over request and response.

    Raises:
        AttestationError: `signature_invalid`.
    """
    key = (leaf or load_certificate(device.chain.ders[0])).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refused("signature_invalid", "the leaf's key is of another kind, expected P-384")
    half = SIGNATURE_LEN // 2
    r = int.from_bytes(device.report.signature[:half], "big")
    s = int.from_bytes(device.report.signature[half:], "big")
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise _refused("signature_invalid", "r or s is out of range")
    try:
        key.verify(encode_dss_signature(r, s), device.report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise _refused("signature_invalid", "does not verify under the leaf's key") from None
    return "ECDSA P-384 over request and response"


def check_firmware(device: Device) -> str:  # step 6
    """The report's firmware is one that the leaf was made for.

    Raises:
        AttestationError: `fwid_mismatch`.
    """
    if device.fwid_matches is None:
        return "the report states no firmware digest"
    if not device.fwid_matches:
        raise _refused(
            "fwid_mismatch",
            f"the report's firmware is none of the {len(device.chain.fwids)} in the leaf",
        )
    return device.report.fwid.hex()[:16]


def check_nonce(device: Device, nonce: bytes) -> str:  # step 8
    """The request carried this nonce.

    Raises:
        AttestationError: `nonce_mismatch`.
    """
    if not hmac.compare_digest(device.report.nonce, nonce):
        raise _refused("nonce_mismatch", "the request's nonce is not the one expected")
    return "the request's nonce is the one expected"


def _octets(number: str) -> str:
    """Hex as a deny list spells it: lower case, whole octets."""
    return number.lower().zfill(len(number) + len(number) % 2)


def _family(chain: DeviceChain) -> Family | None:
    for pattern, architecture, _ in _FAMILIES:
        match = pattern.fullmatch(chain.name)
        if match is not None:
            return Family(architecture, match[1])
    return None
