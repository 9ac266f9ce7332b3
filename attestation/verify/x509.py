"""Certificate chains to a pinned root, by hand: vendor chains break the web's profile.

Steps, in order (the caller pins the roots; nothing in the evidence becomes an anchor):
 1. every certificate is of bounded size, parses, and carries no critical extension this module does
    not know;
 2. the leaf is not a CA, and names the wanted extended key usage, if any;
 3. from the leaf upwards each certificate is signed, with SHA-2, by the next one;
 4. the last one is signed by, or is, one of the pinned roots;
 5. every issuer is a CA that may sign certificates, within its path length;
 6. every certificate, the root included, is valid at the given time.
"""

from __future__ import annotations

import itertools
import warnings
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from attestation.formats.pem import CERTIFICATE_MAX
from attestation.formats.x509_errors import UNREADABLE
from wire.errors import AttestationError, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_refused: Final = partial(refused, about="certificate chain")
TCG_EK_CERTIFICATE: Final = "2.23.133.8.1"  # extended key usage of an endorsement key certificate
DEPTH_MAX: Final = 6
SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"  # a refusal shows times to what decides

_Ext = TypeVar("_Ext", bound=x509.ExtensionType)

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        # EK certificates have an empty subject and name the TPM here, critically. It says which
        # TPM model, which no rule asks, so knowing it is enough.
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def load_certificate(der: bytes) -> x509.Certificate:
    """One DER certificate (step 1).

    Raises:
        AttestationError: `chain_invalid`.
    """
    if len(der) > CERTIFICATE_MAX:  # a name of 250 KB takes 70 ms to read
        raise _refused(
            "chain_invalid",
            f"found a certificate of {len(der)} bytes, expected ≤ {CERTIFICATE_MAX}",
        )
    try:
        with warnings.catch_warnings():
            # Hostile input must not choose between a warning and an error.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
            check_critical(certificate)
            certificate.public_key()
            certificate.signature_hash_algorithm  # noqa: B018 -- read lazily, so it fails here
            _ = (certificate.subject, certificate.issuer)  # these, too
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except UNREADABLE as cause:
        raise _refused("chain_invalid", "a certificate does not parse") from cause
    return certificate


def began(ders: Iterable[bytes]) -> int:
    """When the youngest of some certificates began to hold, in Unix seconds; 0 if unreadable.

    A question without a time asks for then. What cannot be read is refused where it is verified.
    """
    try:
        starts = [load_certificate(der).not_valid_before_utc for der in ders]
    except AttestationError:
        return 0
    return int(max(starts).timestamp()) if starts else 0


def check_critical(certificate: x509.Certificate) -> None:
    """The certificate carries no critical extension this module does not know (step 1).

    Raises:
        AttestationError: `chain_invalid`.
        ValueError, x509.DuplicateExtension: its extensions do not parse.
    """
    unknown = [
        extension.oid
        for extension in certificate.extensions
        if extension.critical and extension.oid not in _KNOWN_CRITICAL
    ]
    if unknown:
        raise _refused("chain_invalid", f"found {len(unknown)} unknown critical extensions")


def verify_chain(
    leaf: bytes, chain: Sequence[bytes], roots: Sequence[bytes], now: int, eku: str | None = None
) -> tuple[x509.Certificate, int]:
    """Verify `leaf` up to one of `roots`.

    Args:
        leaf: DER.
        chain: DER of intermediates, each the issuer of the one before; a root among them is
            accepted only if it is byte-equal to a pinned one.
        roots: DER of pinned roots.
        now: Unix seconds.
        eku: dotted extended key usage the leaf must name, or None.

    Returns:
        The leaf, and the Unix second at which the first certificate of the chain expires.

    Raises:
        AttestationError: `untrusted_root`, `chain_invalid` or `certificate_not_valid_at_time`.
    """
    if len(chain) > DEPTH_MAX:
        raise _refused("chain_invalid", f"found {len(chain)} intermediates, expected ≤ {DEPTH_MAX}")
    anchors = [load_certificate(root) for root in roots]
    path = [load_certificate(der) for der in (leaf, *(der for der in chain if der not in roots))]
    _check_leaf(path[0], eku)
    for below, issuer in itertools.pairwise(path):
        if not issued_by(below, issuer):
            raise _refused("chain_invalid", "a certificate is not signed by the next one")
    anchor = next((root for root in anchors if issued_by(path[-1], root)), None)
    if anchor is None:
        raise _refused("untrusted_root", f"none of {len(anchors)} pinned roots issued the chain")
    path.append(anchor)
    for depth, issuer in enumerate(path[1:]):
        _check_issuer(issuer, depth)
    return path[0], _check_time(path, now)


def check_path(path: Sequence[x509.Certificate], now: int) -> int:
    """Steps 2, 3, 5 and 6 for certificates already loaded, the leaf first, a pinned root last.

    The CALLER must have made sure that the last one is pinned.

    Returns:
        Unix second at which the first of them expires.

    Raises:
        AttestationError: `chain_invalid` or `certificate_not_valid_at_time`.
    """
    _check_leaf(path[0], None)
    for below, issuer in itertools.pairwise(path):
        if not issued_by(below, issuer):
            raise _refused("chain_invalid", "a certificate is not signed by the next one")
    return check_standing(path, now)


def check_standing(path: Sequence[x509.Certificate], now: int) -> int:
    """Steps 5 and 6 alone, for a path whose signatures another verifier checked.

    Returns:
        Unix second at which the first of them expires.

    Raises:
        AttestationError: `chain_invalid` or `certificate_not_valid_at_time`.
    """
    for depth, issuer in enumerate(path[1:]):
        _check_issuer(issuer, depth)
    return _check_time(path, now)


def _check_leaf(leaf: x509.Certificate, eku: str | None) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise _refused("chain_invalid", "the leaf is a CA certificate")
    if eku is None:
        return
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is None or all(oid.dotted_string != eku for oid in usage):
        raise _refused("chain_invalid", f"the leaf does not name the extended key usage {eku}")


def _check_issuer(issuer: x509.Certificate, depth: int) -> None:
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise _refused("chain_invalid", "an issuer is not a CA certificate")
    if constraints.path_length is not None and depth > constraints.path_length:
        raise _refused("chain_invalid", "a CA's path length is exceeded")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _refused("chain_invalid", "an issuer may not sign certificates")


def _check_time(path: Sequence[x509.Certificate], now: int) -> int:
    at = datetime.fromtimestamp(now, UTC)
    for certificate in path:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise _refused(
                "certificate_not_valid_at_time",
                f"found validity {certificate.not_valid_before_utc:{SECOND}} to "
                f"{certificate.not_valid_after_utc:{SECOND}}, expected it to hold {at:{SECOND}}",
            )
    return min(int(certificate.not_valid_after_utc.timestamp()) for certificate in path)


def issued_by(below: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s key signed `below` with SHA-2, under its name (step 3)."""
    if not isinstance(below.signature_hash_algorithm, _HASHES):
        return False
    try:
        below.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_Ext]) -> _Ext | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
