"""What an SNP report proves: AMD's chain to its endorsement key, and that key's signature.

Each function is one step and raises `AttestationError` with one of the codes it names. None of them
judges the state the report describes: that is `rules.snp`.

AMD signs certificates with RSA-PSS and one fixed set of parameters, which is asked for here rather
than read from the certificate: what a signer chooses must not choose how it is checked.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from attestation.formats.amd_certificate import CHIP_ID_LEN
from attestation.formats.snp import PRODUCTS, TURIN_HWID_LEN, decode_tcb
from wire.errors import AttestationError, MalformedError, refused
from wire.limits import CLOCK_SKEW_S

from .crl import check_crl, load_crl
from .x509 import check_path, load_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from attestation.anchors import Anchors
    from attestation.formats.amd_certificate import EndorsementKey
    from attestation.formats.snp import Product, Report

CA_KEY_BITS: Final = 4096
PSS_SALT_LEN: Final = 48
P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
_ROOT, _VCEK_CA, _VLEK_CA = "ARK-", "SEV-", "SEV-VLEK-"
_LEAVES: Final = {"vcek": "SEV-VCEK", "vlek": "SEV-VLEK"}


@dataclass(frozen=True, slots=True)
class AmdChain:
    """A verified chain.

    Attributes:
        leaf, intermediate, root: its certificates.
        not_after: Unix second at which the first of them expires.
    """

    leaf: x509.Certificate
    intermediate: x509.Certificate
    root: x509.Certificate
    not_after: int


def pinned_root(candidates: Sequence[bytes], anchors: Anchors) -> bytes:
    """The one pinned root among the certificates given (DER).

    Raises:
        AttestationError: `collateral_missing` where none was given, `untrusted_root` where none is
            pinned, `chain_invalid` where several are: which product's, must not be a guess.
    """
    if not candidates:
        raise refused(
            "collateral_missing", "root: found none, expected AMD's", case_of="chain_invalid"
        )
    found = set(anchors.among(candidates))
    if not found:
        raise refused("untrusted_root", f"root: none of {len(candidates)} certificates is pinned")
    if len(found) > 1:
        raise refused("chain_invalid", f"root: found {len(found)} pinned ones, expected one")
    return found.pop()


def root_product(root: x509.Certificate) -> Product | None:
    """The product line a root is for, by its name; to be relied on only if the root is pinned."""
    name = _common_name(root).removeprefix(_ROOT)
    return next((product for product in PRODUCTS if product == name), None)


def verify_amd_chain(
    leaf: x509.Certificate, intermediates: Sequence[bytes], root: x509.Certificate, now: int
) -> AmdChain:
    """The endorsement key's certificate up to a pinned root of one product.

    Args:
        leaf: the VCEK or VLEK certificate.
        intermediates: DER of what may have issued it: ASK, ASVK. The first that did counts.
        root: the pinned ARK.
        now: Unix seconds.

    Raises:
        AttestationError: `collateral_missing`, `chain_invalid` or `certificate_not_valid_at_time`.
    """
    if not intermediates:
        raise refused(
            "collateral_missing",
            "chain: found no ASK or ASVK, expected one",
            case_of="chain_invalid",
        )
    # A name is what anybody can give: one that did not issue the leaf must not stand for the other.
    refusals, unread = [], []
    for der in intermediates:
        try:
            middle = load_certificate(der)
        except AttestationError as refusal:
            unread.append(refusal)
            continue
        if middle.subject != leaf.issuer:
            continue
        try:
            return _chain(leaf, middle, root, now)
        except AttestationError as refusal:
            refusals.append(refusal)
    if refusals or unread:
        raise (*refusals, *unread)[0]
    raise refused("chain_invalid", "chain: the certificate's issuer is not among those given")


def _chain(
    leaf: x509.Certificate, middle: x509.Certificate, root: x509.Certificate, now: int
) -> AmdChain:
    _check_names(leaf, middle, root)
    for below, issuer in ((leaf, middle), (middle, root)):
        _check_pss(below.signature, below.tbs_certificate_bytes, below, issuer)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise refused("chain_invalid", "chain: the endorsement key is not on P-384")
    return AmdChain(leaf, middle, root, check_path((leaf, middle, root), now))


def _check_names(leaf: x509.Certificate, issuer: x509.Certificate, root: x509.Certificate) -> None:
    """Each name says what its key may sign: an ASVK must not vouch for a chip."""
    product = root_product(root)
    names = {f"{_VCEK_CA}{product}": "vcek", f"{_VLEK_CA}{product}": "vlek"}
    kind = names.get(_common_name(issuer))
    if product is None or kind is None or _common_name(leaf) != _LEAVES[kind]:
        raise refused("chain_invalid", "chain: its names are not those of one AMD product's")


def _check_pss(
    signature: bytes,
    signed: bytes,
    below: x509.Certificate | x509.CertificateRevocationList,
    issuer: x509.Certificate,
) -> None:
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != CA_KEY_BITS:
        raise refused("chain_invalid", f"chain: an issuer's key is not RSA of {CA_KEY_BITS} bits")
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), PSS_SALT_LEN)
    try:
        if below.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
            raise InvalidSignature
        key.verify(signature, signed, pss, hashes.SHA384())
    except InvalidSignature:
        raise refused(
            "chain_invalid",
            "chain: a certificate is not signed by its issuer with PSS, SHA-384, MGF1 and a salt "
            f"of {PSS_SALT_LEN} bytes",
        ) from None


def check_revocation(crl: bytes, chain: AmdChain, now: int, *, skew: int = CLOCK_SKEW_S) -> int:
    """No certificate of the chain is on the root's list, which AMD keeps for each product.

    AMD signs one list with the root, for all below it: a VLEK's serial number may stand there, too.

    Returns:
        Unix second of the list's next update.

    Raises:
        AttestationError: as `verify.crl.check_crl`.
    """
    loaded = load_crl(crl)
    try:
        _check_pss(loaded.signature, loaded.tbs_certlist_bytes, loaded, chain.root)
    except AttestationError:
        raise refused(
            "crl_invalid", "revocation list: not signed as AMD's root does", case_of="chain_invalid"
        ) from None
    concerned = (chain.root, chain.intermediate, chain.leaf)
    return check_crl(crl, chain.root, concerned, now, skew=skew)


def check_signing_key(report: Report, endorsement: EndorsementKey) -> str:
    """The report is signed, and by the kind of key that the certificate is for.

    Raises:
        AttestationError: `signing_key_none` or `signing_key_mismatch`.
    """
    # MASK_CHIP_KEY takes the chip's own key (VCEK) out of use; a provider's signs none the less.
    masked = report.mask_chip_key and report.signing_key == "vcek"
    if report.signing_key == "none" or masked:
        raise refused("signing_key_none", "report: it says that it is not signed")
    certified = "vcek" if endorsement.csp is None else "vlek"
    if report.signing_key != certified:
        raise refused(
            "signing_key_mismatch",
            f"report: signed by a {report.signing_key}, found a {certified}'s certificate",
        )
    return certified


def check_product(report: Report, endorsement: EndorsementKey | None, product: Product) -> str:
    """CPU, certificate and chain name one product: it decides what TCB numbers mean.

    Raises:
        AttestationError: `product_unknown` or `product_mismatch`.
    """
    if report.cpuid is not None and report.product is None:
        family, model, _ = report.cpuid
        raise refused(
            "product_unknown", f"report: found CPU {family:#x}/{model:#x}, expected {PRODUCTS}"
        )
    if report.product not in (None, product):
        raise refused(
            "product_mismatch",
            f"report: found a {report.product}, expected {product}",
            case_of="chain_invalid",
        )
    # Turin's first firmware had version 3: an older report cannot be one of its, and its TCB bytes
    # would be read in the wrong places.
    if report.cpuid is None and product == "Turin":
        raise refused("product_mismatch", f"report: found version {report.version} of a Turin")
    if endorsement is not None and endorsement.product != product:
        raise refused(
            "product_mismatch",
            f"certificate: of another product than {product}",
            case_of="chain_invalid",
        )
    return product


def check_chip(report: Report, endorsement: EndorsementKey, product: Product) -> str:
    """The certificate is this chip's; a VLEK has no chip, but a provider.

    Raises:
        AttestationError: `chip_id_mismatch`.
    """
    if endorsement.hwid is None:
        return f"none, provider {endorsement.csp}"
    expected = TURIN_HWID_LEN if product == "Turin" else CHIP_ID_LEN
    padded = endorsement.hwid.ljust(CHIP_ID_LEN, b"\0")
    if len(endorsement.hwid) != expected or not hmac.compare_digest(padded, report.chip_id):
        raise refused(
            "chip_id_mismatch", "report: the certificate is another chip's", case_of="chain_invalid"
        )
    if not any(report.chip_id):
        raise refused("chip_id_mismatch", "report: found no chip id, expected the certificate's")
    return f"chip {endorsement.hwid[:8].hex()}"


def check_tcb(report: Report, endorsement: EndorsementKey, product: Product) -> str:
    """The key was derived for exactly the firmware that the report names.

    Raises:
        AttestationError: `tcb_mismatch`.
        MalformedError: a reserved byte of a TCB version is set.
    """
    versions = (report.reported_tcb, report.current_tcb, report.committed_tcb, report.launch_tcb)
    if any(decode_tcb(raw, product).reserved for raw in versions):
        raise MalformedError(f"report: reserved TCB bytes of {product} are set, expected zero")
    if decode_tcb(report.reported_tcb, product) != endorsement.tcb:
        raise refused("tcb_mismatch", "report: the certificate is for another firmware")
    return ", ".join(f"{name} {number}" for name, number in endorsement.tcb.numbers().items())


def verify_signature(report: Report, leaf: x509.Certificate) -> str:
    """The endorsement key signed the report.

    Raises:
        AttestationError: `signature_invalid`.
    """
    key = leaf.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP384R1
        ):
            raise InvalidSignature
        # Larger numbers would be the same ones modulo the order: two reports for one signature.
        if not (0 < report.r < P384_ORDER and 0 < report.s < P384_ORDER):
            raise InvalidSignature
        pair = encode_dss_signature(report.r, report.s)
        key.verify(pair, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise refused("signature_invalid", "report: not signed by the certified key") from None
    return "ECDSA on P-384 with SHA-384"


def check_report_data(report: Report, expected: bytes, code: str) -> str:
    """The report was made for these bytes.

    Raises:
        AttestationError: with `code`.
    """
    if not any(expected) or not hmac.compare_digest(report.report_data, expected):
        # All zero is what a guest that binds nothing leaves there.
        raise refused(code, "report: its report data is not what is expected")
    return f"{len(expected)} bytes equal"


def key_digest(certificate: x509.Certificate) -> bytes:
    """SHA-256 of a certificate's SubjectPublicKeyInfo."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""
