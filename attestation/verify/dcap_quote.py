"""What a quote alone proves: Intel certified the platform whose quoting enclave vouches for it.

Steps (used for `azure-vtpm-tdx` too, whose evidence comes without collateral):
 1. the PCK chain ends in a pinned root, every certificate in it is valid now and of Intel's form:
    SHA-256, P-256, for no other use, and no critical extension that is not understood;
 2. the quoting enclave is Intel's, its report is signed by the PCK, and it names the attestation
    key: report data = SHA-256(key ‖ authentication data) ‖ zeros;
 3. the attestation key signed header and body.

A platform certifies any enclave that may ask for it, and whoever owns the platform can sign one. So
where no collateral says which enclave is Intel's, `check_td_quoting_enclave` ends step 2.

Reason codes: `untrusted_root`, `chain_invalid`, `certificate_not_valid_at_time` (1),
`qe_vendor_unknown`, `signature_invalid`, `attestation_key_not_bound`, `qe_identity_mismatch` (2),
`signature_invalid` (3).

None of this says how up to date platform and quoting enclave are, or that the platform was not
revoked: `verify.dcap` does.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID

from attestation.formats.dcap_bodies import SGX_DEBUG
from attestation.formats.dcap_quote import INTEL_QE_VENDOR
from attestation.formats.pck import names
from attestation.formats.x509_errors import UNREADABLE
from wire.errors import AttestationError

from . import x509 as x509_steps
from .x509 import check_critical, issued_by, load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.formats.dcap_quote import Quote
    from attestation.formats.pck import Chain

_ECDSA: Final = ec.ECDSA(hashes.SHA256())
_EXTENDED_KEY_USAGE: Final = ExtensionOID.EXTENDED_KEY_USAGE
PCK_LINKS: Final = 2  # the PCK certificate and its CA's
_POINT: Final = b"\x04"  # uncompressed
# The quoting enclave of TDs, as every identity of it that Intel has signed describes it.
TD_QE_MRSIGNER: Final = bytes.fromhex(
    "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
)
TD_QE_ISVPRODID: Final = 2


@dataclass(frozen=True, slots=True)
class Certified:
    """A PCK chain that ends in a pinned root.

    Attributes:
        leaf: the PCK certificate.
        chain: DER, leaf first, the root last.
        root: DER of the pinned root.
        not_after: Unix second at which the first certificate ends.
    """

    leaf: x509.Certificate
    chain: tuple[bytes, ...]
    root: bytes
    not_after: int


def nearest_first(chain: Chain, roots: Sequence[bytes], now: int) -> tuple[bytes, ...]:
    """The pinned roots, those that issued the chain first, and of these one that holds now.

    A chain may leave its root out, and a root may be issued again under its name and key: which of
    several pinned ones is laid beside it first must not decide.

    Args:
        chain: from the quote, leaf first.
        roots: DER of the pinned roots at hand.
        now: Unix seconds.
    """
    links = [der for der in chain.ders if der not in roots]
    if not links or len(roots) == 1:  # nothing to choose: an eighth of a verification saved
        return tuple(roots)
    try:
        last = load_certificate(links[-1])
        anchors = {root: load_certificate(root) for root in roots}
    except AttestationError:
        return tuple(roots)  # the chain is refused when it is verified

    def rank(root: bytes) -> tuple[bool, bool]:
        anchor, at = anchors[root], datetime.fromtimestamp(now, UTC)
        holds = anchor.not_valid_before_utc <= at <= anchor.not_valid_after_utc
        return not issued_by(last, anchor), not holds

    return tuple(sorted(roots, key=rank))


def verify_pck_chain(chain: Chain, roots: Sequence[bytes], now: int) -> Certified:
    """The PCK chain is Intel's (step 1).

    Args:
        chain: from the quote, leaf first.
        roots: DER of the pinned roots at hand; nothing else is one, whatever its name.
        now: Unix seconds.

    Raises:
        AttestationError: `untrusted_root`, `chain_invalid`, `certificate_not_valid_at_time`.
    """
    roots = nearest_first(chain, roots, now)
    leaf, not_after = verify_chain(chain.ders[0], chain.ders[1:], roots, now)
    if not chain.pem or chain.turned:
        # Only this is certification data of type 5; a reader of another form is another reader.
        raise _refused("chain_invalid", "PCK chain: expected PEM, leaf first")
    path, root = _links(chain, roots), roots[0]
    ca, anchor = read(path[1]), read(root)
    check_form(leaf)
    check_form(ca)
    for issuer in (ca, anchor):
        p256(issuer)
    return Certified(leaf, (*path, root), root, not_after)


def check_standing(
    chain: Chain, pck: x509.Certificate, roots: Sequence[bytes], now: int
) -> tuple[int, tuple[x509.Certificate, ...]]:
    """What is asked of the chain besides its signatures, which were verified.

    That verifier finds any way from the PCK to the root. It must be the one through the CA, whose
    list says which PCKs are revoked.

    Args:
        chain: from the quote.
        pck: its first certificate.
        roots: DER of the pinned roots; the first one is what the signatures were verified with.
        now: Unix seconds.

    Returns:
        Unix second at which the first certificate ends, and those of the CA and the root.

    Raises:
        AttestationError: `chain_invalid`, `certificate_not_valid_at_time`.
    """
    (leaf, middle), root = _links(chain, roots), roots[0]
    (above, _), (top, own), (_, last) = names(leaf), names(middle), names(root)
    if above != own or top != last or own == last:
        raise _refused("chain_invalid", "PCK chain: found other issuers than its CA and the root")
    ca, anchor = read(middle), read(root)
    check_critical(pck)
    check_form(pck)
    check_form(ca)
    return x509_steps.check_standing((pck, ca, anchor), now), (ca, anchor)


def read(der: bytes) -> x509.Certificate:
    """A certificate whose signature was verified, without its names, which nobody asks for then.

    Raises:
        AttestationError: `chain_invalid`.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        check_critical(certificate)
        _ = (certificate.signature_hash_algorithm, certificate.not_valid_after_utc)
    except UNREADABLE:
        raise _refused("chain_invalid", "a certificate does not parse") from None
    return certificate


def check_form(certificate: x509.Certificate) -> None:
    """A certificate that Intel's CAs issued: signed with SHA-256, and for no named use.

    One certified for another use, such as a service's TLS, must not pass for a platform.

    Raises:
        AttestationError: `chain_invalid`.
    """
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        raise _refused("chain_invalid", "a certificate: expected it signed with SHA-256")
    if any(extension.oid == _EXTENDED_KEY_USAGE for extension in certificate.extensions):
        raise _refused("chain_invalid", "a certificate: found it certified for another use")


def p256(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Its key, on the one curve that Intel's certificates have.

    Raises:
        AttestationError: `chain_invalid`.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("chain_invalid", "a certificate: expected a P-256 key")
    return key


def _links(chain: Chain, roots: Sequence[bytes]) -> tuple[bytes, ...]:
    path = tuple(der for der in chain.ders if der not in roots)
    if len(path) != PCK_LINKS:
        raise _refused(
            "chain_invalid",
            f"PCK chain: found {len(path)} links to the root, expected {PCK_LINKS}",
        )
    return path


def verify_quoting_enclave(quote: Quote, pck: x509.Certificate) -> str:
    """The PCK vouches for the quoting enclave, and that one for the attestation key (step 2).

    Raises:
        AttestationError: `qe_vendor_unknown`, `signature_invalid`, `attestation_key_not_bound`.
    """
    if quote.qe_vendor_id != INTEL_QE_VENDOR:
        raise _refused("qe_vendor_unknown", "quoting enclave: found another vendor than Intel")
    check_signature(p256(pck), quote.qe_signature, quote.qe_report.raw, "QE report")
    return check_named_key(quote)


def check_named_key(quote: Quote) -> str:
    """The quoting enclave's report, verified before, names the attestation key and nothing else.

    Raises:
        AttestationError: `attestation_key_not_bound`.
    """
    named = hashlib.sha256(quote.attestation_key + quote.qe_auth).digest() + bytes(32)
    if not hmac.compare_digest(named, quote.qe_report.report_data):
        raise _refused("attestation_key_not_bound", "quoting enclave: its report names another key")
    return f"ISVSVN {quote.qe_report.isvsvn}"


def check_td_quoting_enclave(quote: Quote) -> str:
    """The quoting enclave is the one that Intel signed for TDs, and nobody debugs it (step 2).

    The vendor id in the quote's header says nothing: whoever makes a quote writes it. Its version
    is left open, as only collateral says which ones are still good.

    Args:
        quote: its QE report was verified before.

    Raises:
        AttestationError: `qe_identity_mismatch`.
    """
    report = quote.qe_report
    if report.mrsigner != TD_QE_MRSIGNER or report.isvprodid != TD_QE_ISVPRODID:
        raise _refused("qe_identity_mismatch", "quoting enclave: not the one Intel signed for TDs")
    if report.flags & SGX_DEBUG:
        raise _refused("qe_identity_mismatch", "quoting enclave: found it in debug")
    return f"Intel's for TDs, ISVSVN {report.isvsvn}"


def verify_quote_signature(quote: Quote) -> str:
    """The attestation key signed what is quoted (step 3).

    Raises:
        AttestationError: `signature_invalid`.
    """
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), _POINT + quote.attestation_key
        )
    except ValueError:
        raise _refused("signature_invalid", "attestation key: not a point of P-256") from None
    check_signature(key, quote.signature, quote.signed, "quote")
    return f"{len(quote.signed)} bytes"


def check_signature(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, what: str
) -> None:
    """A raw P-256 signature, r then s, 32 bytes each.

    Raises:
        AttestationError: `signature_invalid`.
    """
    half = len(signature) // 2
    pair = encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )
    try:
        key.verify(pair, message, _ECDSA)
    except InvalidSignature:
        raise _refused("signature_invalid", f"{what}: the signature does not verify") from None


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(detail, reasons=(code,))
