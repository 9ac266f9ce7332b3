"""What a Nitro document proves: which AWS root stands behind it, and what it was made for.

Each function is one step of `schemes.nitro` and raises `AttestationError` with one code. AWS
publishes no revocation list for this hierarchy ("we do not use CRL"): certificates live from three
hours (the document's) to three weeks, and that is all the revocation there is.
"""

from __future__ import annotations

import hmac
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.registers import NITRO_PCR, nitro_pcr_value
from wire.errors import refused

from .cose import ES384, verify_sign1
from .x509 import load_certificate, verify_chain

if TYPE_CHECKING:
    from attestation.anchors import Anchors
    from attestation.formats.nitro import NitroDocument

_refused: Final = partial(refused, about="Nitro document")


def check_root(document: NitroDocument, anchors: Anchors) -> str:
    """The bundle's first certificate is a pinned root, byte for byte.

    Raises:
        AttestationError: `untrusted_root`.
    """
    if not anchors.trusts(document.cabundle[0]):
        raise _refused("untrusted_root", "found a first certificate that is not a pinned root")
    return f"one of {len(anchors.pins)} pinned roots"


def check_chain(document: NitroDocument, now: int) -> tuple[x509.Certificate, int]:
    """The document's certificate is issued down the bundle, in its order, and all are valid.

    Args:
        document: its bundle's first certificate is a root that `check_root` accepted.
        now: Unix seconds.

    Returns:
        The certificate, and when the first of the chain expires.

    Raises:
        AttestationError: `chain_invalid` or `certificate_not_valid_at_time`.
    """
    root, *issuers = document.cabundle
    if root in issuers:
        raise _refused("chain_invalid", "found the root twice, expected it first only")
    for der in (document.certificate, *document.cabundle):
        _check_algorithms(load_certificate(der))
    leaf, expires = verify_chain(document.certificate, issuers[::-1], [root], now)
    if not _may_sign(leaf):
        raise _refused("chain_invalid", "the document's certificate may not sign")
    return leaf, expires


def check_signature(document: NitroDocument) -> str:
    """The key of the document's own certificate signed it, with ES384 and nothing else.

    Raises:
        AttestationError: `signature_invalid`, or `chain_invalid` if the certificate is unreadable.
    """
    key = load_certificate(document.certificate).public_key()
    return verify_sign1(document.message, key, (ES384,))


def check_equal(found: bytes | None, expected: bytes, what: str, code: str) -> str:
    """The document was made for these bytes.

    Args:
        found: what it carries, None if nothing.
        expected: what the relying party brought.
        what: the member's name, for the sentence.
        code: reason code of a mismatch.

    Raises:
        AttestationError: with `code`; an empty expectation too, since it would prove nothing.
    """
    if not expected:
        raise _refused(code, f"{what}: nothing was expected, which proves nothing")
    if found is None:
        raise _refused(code, f"{what}: found none, expected {len(expected)} bytes")
    if not hmac.compare_digest(found, expected):
        raise _refused(code, f"{what}: found {len(found)} bytes, expected {len(expected)} others")
    return f"{len(expected)} bytes equal"


def check_measurement(document: NitroDocument, measurement: bytes) -> str:
    """PCR 16 was extended with this worker measurement, once, and then locked.

    A document lists locked registers only, so the enclave cannot extend this one afterwards.

    Raises:
        AttestationError: `pcr_missing` or `measurement_mismatch`.
    """
    value = document.pcrs.get(NITRO_PCR)
    if value is None:
        raise _refused("pcr_missing", f"PCR {NITRO_PCR} is not locked, or was never extended")
    if not hmac.compare_digest(value, nitro_pcr_value(measurement)):
        raise _refused(
            "measurement_mismatch", f"PCR {NITRO_PCR} is not one extension by the measurement"
        )
    return f"PCR {NITRO_PCR}"


_CURVE: Final = "secp384r1"


def _check_algorithms(certificate: x509.Certificate) -> None:
    """The hierarchy is P-384 with SHA-384 throughout; anything else was not made by AWS."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVE:
        raise _refused("chain_invalid", f"found a certificate of another key, expected {_CURVE}")
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA384):
        raise _refused("chain_invalid", "found a certificate signed otherwise, expected SHA-384")


def _may_sign(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature
