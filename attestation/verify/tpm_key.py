"""Why an attestation key is believed: a pinned root certifies it, or the relying party knows it.

Nothing in the evidence makes a key trusted. A certificate counts under a root pinned beforehand; a
bare key counts only if the relying party itself brings it. Each function is one step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, KeyUsage

from attestation.examined import FOREVER
from attestation.formats.pem import public_key
from attestation.formats.tpm_structures import RSA_BITS
from wire.errors import AttestationError, MalformedError, refused
from wire.limits import CLOCK_SKEW_S

from .crl import check_crl
from .tpm import check_attestation_key
from .x509 import TCG_EK_CERTIFICATE, issued_by, load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from attestation.formats.tpm_structures import Public

_refused: Final = partial(refused, about="attestation key")
TCG_AK_CERTIFICATE: Final = "2.23.133.8.3"  # tcg-kp-AIKCertificate
# Google's certificates for attestation keys name the endorsement key's usage. Harmless: a key whose
# public area says "restricted, sign" (step "key attributes") is no endorsement key.
AK_USAGES: Final = (TCG_AK_CERTIFICATE, TCG_EK_CERTIFICATE)
SPKI_MAX: Final = 1024  # an RSA-4096 key takes 550 bytes

SigningKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """An attestation key and what its trust rests on.

    Attributes:
        key: the public key.
        spki: its SubjectPublicKeyInfo, DER.
        certified: whether a pinned root certified it; else the relying party brought it.
        revocation_checked: whether a list vouched for every certificate below the root.
        not_after: Unix second at which the first certificate or list ends.
    """

    key: SigningKey
    spki: bytes
    certified: bool
    revocation_checked: bool
    not_after: int = FOREVER

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.spki).digest()


def brought_key(raw: bytes) -> TrustedKey:
    """The key the relying party brought, DER or PEM.

    Raises:
        AttestationError: `unknown_signing_key`: no key, several, or none that a TPM signs with.
    """
    try:
        return load_spki(public_key(raw, "attestation key"))
    except MalformedError:
        raise _refused("unknown_signing_key", "expected one trusted key in DER or PEM") from None


def load_spki(der: bytes) -> TrustedKey:
    """The key of a SubjectPublicKeyInfo, as trusted; whoever calls this says so.

    Raises:
        AttestationError: `unknown_signing_key`: no key that a TPM signs quotes with.
    """
    if len(der) > SPKI_MAX:
        raise _refused("unknown_signing_key", f"found {len(der)} bytes, expected ≤ {SPKI_MAX}")
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("unknown_signing_key", "the trusted key does not parse") from None
    return TrustedKey(_usable(key), _spki(key), certified=False, revocation_checked=False)


def listed_key(fingerprints: bytes, ak: Public | None, stated: bytes) -> TrustedKey:
    """The key the evidence shows, if the relying party lists its fingerprint.

    The list is the relying party's word; a key that hashes to an entry is the one it means, however
    it came.

    Args:
        fingerprints: SHA-256 of SubjectPublicKeyInfos, 32 bytes each, one after another.
        ak: the public area in the evidence, or None.
        stated: SubjectPublicKeyInfo that the evidence states where it has no public area; or b"".

    Raises:
        AttestationError: `ak_not_accepted`: not listed; `unknown_signing_key`: no key is shown, or
            none that a TPM signs quotes with.
    """
    if ak is None and not stated:
        raise _refused("unknown_signing_key", "the evidence shows no key, expected a listed one")
    found = load_spki(stated if ak is None else _spki(ak.key))
    size = hashlib.sha256().digest_size
    listed = {fingerprints[at : at + size] for at in range(0, len(fingerprints), size)}
    if found.fingerprint not in listed:
        raise _refused("ak_not_accepted", f"found one that is none of the {len(listed)} listed")
    return found


def verify_key_certificate(
    leaf: bytes,
    intermediates: Sequence[bytes],
    roots: Sequence[bytes],
    lists: Sequence[bytes | None],
    now: int,
    *,
    skew: int = CLOCK_SKEW_S,
) -> TrustedKey:
    """The key a certificate under a pinned root names.

    Args:
        leaf: DER.
        intermediates: DER, from the leaf's issuer upwards.
        roots: DER of pinned roots.
        lists: DER of revocation lists: first of the leaf's issuer, then of that one's, and so on;
            None where none was brought. One that was brought is always enforced.
        now: Unix seconds.
        skew: by how many of them a list's issuer's clock may be ahead.

    Raises:
        AttestationError: as `verify_chain` and `check_crl`; `chain_invalid` if the certificate is
            not one for a TPM's attestation key.
    """
    certificate, not_after = verify_chain(leaf, intermediates, roots, now)
    _check_usage(certificate)
    checked, expires = _check_lists(certificate, intermediates, roots, lists, now, skew)
    not_after = min(not_after, expires)
    key = certificate.public_key()
    return TrustedKey(_usable(key), _spki(key), True, checked, not_after)


def shown_key(leaf: bytes) -> SigningKey | None:
    """The key of a certificate that nothing vouches for; None of what is none, or has none."""
    try:
        return _usable(load_certificate(leaf).public_key())
    except AttestationError:
        return None


def check_public_area(trusted: TrustedKey, ak: Public) -> str:
    """The public area is the trusted key's, and its attributes are an attestation key's.

    Raises:
        AttestationError: `ak_mismatch` or `ak_attributes`.
    """
    if _spki(ak.key) != trusted.spki:
        raise _refused("ak_mismatch", "the public area is another key's than the trusted one")
    return check_attestation_key(ak)


def check_stated(trusted: TrustedKey, stated: bytes) -> str:
    """A key that the evidence states is the trusted one.

    Raises:
        AttestationError: `unknown_signing_key`.
    """
    if stated != trusted.spki:
        raise _refused("unknown_signing_key", "the evidence states another key than the trusted")
    return "the evidence states it"


def _check_lists(
    leaf: x509.Certificate,
    intermediates: Sequence[bytes],
    roots: Sequence[bytes],
    lists: Sequence[bytes | None],
    now: int,
    skew: int,
) -> tuple[bool, int]:
    """Whether every certificate below the root was looked up, and when the first list ends."""
    if not any(lists):
        return False, FOREVER
    path = [leaf, *(load_certificate(der) for der in intermediates if der not in roots)]
    anchors = [load_certificate(root) for root in roots]
    # By signature: a maker's old and new root have one name.
    top = next(root for root in anchors if issued_by(path[-1], root))
    looked_up, expires = 0, FOREVER
    for below, issuer, crl in zip(path, (*path[1:], top), lists, strict=False):
        if crl is not None:
            expires = min(expires, check_crl(crl, issuer, [below], now, skew=skew))
            looked_up += 1
    if looked_up != sum(crl is not None for crl in lists):
        raise _refused(
            "crl_invalid",
            "found a revocation list of no issuer in the chain",
            case_of="chain_invalid",
        )
    return looked_up == len(path), expires


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usages = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        raise _refused("chain_invalid", "the certificate names no extended key usage") from None
    if not {oid.dotted_string for oid in usages}.intersection(AK_USAGES):
        raise _refused("chain_invalid", "the certificate is not for a TPM's key")
    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound:
        return
    if not usage.digital_signature:
        raise _refused("chain_invalid", "the certificate's key may not sign")


def _usable(key: object) -> SigningKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    raise _refused("unknown_signing_key", "expected RSA of 2048 bits or more, P-256 or P-384")


def _spki(key: object) -> bytes:
    usable = _usable(key)
    return usable.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
