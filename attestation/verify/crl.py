"""Certificate revocation lists: DER only, judged at a given time, for one issuer's certificates.

Steps, in order:
 1. the list is DER (no PEM, no hex) of bounded size, its issuer's name and extensions too, with no
    critical extension this module does not know: a delta list, or one that speaks for another
    issuer, must not pass for the whole;
 2. its issuer is the given certificate, which may sign lists;
 3. that certificate's key signed it, with SHA-2;
 4. it holds at the given time, and says until when: at its next update there is a newer one, so it
    has ended; its issuer's clock may be ahead of ours by what two honest clocks may differ;
 5. none of the given certificates is listed. On hold is listed.

Reason codes: `crl_invalid` (1, 2, 3), `crl_not_yet_valid` and `crl_expired` (4), `revoked` (5).

What the CALLER must still do: verify the issuer's chain (`verify.x509`), and decide what the
absence of a list means. Source: RFC 5280 §5 and §6.3.
"""

from __future__ import annotations

import itertools
import warnings
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from attestation.formats.x509_errors import UNREADABLE
from wire.errors import refused
from wire.limits import CLOCK_SKEW_S

from .x509 import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_refused: Final = partial(refused, about="revocation list")
CRL_MAX: Final = 1024 * 1024  # vendors' lists are a few KiB; a parse must stay within its time

# A name of 250 KB with 19,000 parts took 70 ms to read; vendors' names have 200 bytes, their lists'
# extensions 100. Only the entries may be long: reading passes over them.
PART_MAX: Final = 4096
PARTS: Final = (
    7  # version, algorithm, issuer, two dates, entries, extensions; the parser sees to it
)

_SEQUENCE: Final = 0x30  # every DER list starts so; PEM and hex text do not
_LONG: Final = 0x80  # from here on a length says how many octets the length has
_TIMES: Final = (0x17, 0x18)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN_CRITICAL = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})


def load_crl(der: bytes) -> x509.CertificateRevocationList:
    """One list (step 1); unverified.

    Raises:
        AttestationError: `crl_invalid`.
    """
    if not der or len(der) > CRL_MAX or der[0] != _SEQUENCE:
        raise _refused("crl_invalid", f"found {len(der)} bytes, expected DER of at most {CRL_MAX}")
    if not _parts_are_short(der):
        raise _refused("crl_invalid", f"a part besides its entries has over {PART_MAX} bytes")
    try:
        with warnings.catch_warnings():
            # Hostile input must not choose between a warning and an error.
            warnings.simplefilter("ignore")
            crl = x509.load_der_x509_crl(der)
            unknown = [
                extension.oid
                for extension in crl.extensions
                if extension.critical and extension.oid not in _KNOWN_CRITICAL
            ]
            # These are only read when asked for, so that they fail here.
            _ = (crl.issuer, crl.signature_hash_algorithm)
            _ = (crl.last_update_utc, crl.next_update_utc)
    except UNREADABLE as cause:
        raise _refused("crl_invalid", "it does not parse, expected DER") from cause
    if unknown:
        raise _refused("crl_invalid", f"found {len(unknown)} unknown critical extensions")
    return crl


def _parts_are_short(der: bytes) -> bool:
    """Whether all parts of the signed list but its entries are (step 1), before any is read."""
    timed = False
    try:
        for tag, length in itertools.islice(_parts(der), PARTS):
            entries = timed and tag == _SEQUENCE  # the only sequence after the dates
            if not entries and length > PART_MAX:
                return False
            timed = timed or tag in _TIMES
    except IndexError:  # it is cut: the parser refuses it
        return True
    return True


def _parts(der: bytes) -> Iterator[tuple[int, int]]:
    """(tag, length) of each part of the signed list; of what is no DER, anything."""
    _, _, at = _header(der, 0)  # into the list
    _, length, at = _header(der, at)  # into what is signed
    end = at + length
    while at < end:
        tag, length, at = _header(der, at)
        yield tag, length
        at += length


def _header(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, length, where the content begins) of the value there; IndexError if there is none."""
    tag, size, at = der[at], der[at + 1], at + 2
    if size < _LONG:
        return tag, size, at
    end = at + size - _LONG
    return tag, int.from_bytes(der[at:end], "big"), end


def check_crl(
    der: bytes,
    issuer: x509.Certificate,
    certificates: Iterable[x509.Certificate],
    now: int,
    *,
    skew: int = CLOCK_SKEW_S,
) -> int:
    """None of the issuer's given certificates is revoked (steps 1 to 5).

    Args:
        der: the list.
        issuer: the verified certificate that must have signed it.
        certificates: certificates that this issuer issued.
        now: Unix seconds.
        skew: by how many of them its issuer's clock may be ahead.

    Returns:
        Unix second of the list's next update, from which on it says nothing.

    Raises:
        AttestationError: `crl_invalid`, `crl_not_yet_valid`, `crl_expired` or `revoked`.
    """
    crl = load_crl(der)
    _check_issuer(crl, issuer)
    _check_signature(crl, issuer)
    expires = check_dates(crl, now, skew=skew)
    for certificate in certificates:
        if _listed(crl, certificate):
            raise _refused("revoked", f"found serial {certificate.serial_number:x} in it")
    return expires


def _check_issuer(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:  # step 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a list's names are read anew each time
        same = crl.issuer == issuer.subject
    if not same:
        raise _refused(
            "crl_invalid",
            "another issuer's, expected the certificate's own",
            case_of="chain_invalid",
        )
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise _refused("crl_invalid", "its issuer may not sign lists", case_of="chain_invalid")


def _check_signature(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
    key = issuer.public_key()  # step 3
    valid = False
    if isinstance(crl.signature_hash_algorithm, _HASHES) and isinstance(
        key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    ):
        try:
            valid = crl.is_signature_valid(key)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            valid = False
    if not valid:
        raise _refused(
            "crl_invalid", "not signed by its issuer with SHA-2", case_of="chain_invalid"
        )


def check_dates(crl: x509.CertificateRevocationList, now: int, *, skew: int = CLOCK_SKEW_S) -> int:
    """The list holds now (step 4); returns the Unix second of its next update.

    Raises:
        AttestationError: `crl_invalid`, `crl_not_yet_valid` or `crl_expired`.
    """
    at = datetime.fromtimestamp(now, UTC)
    if crl.next_update_utc is None:  # such a list never ends, and an old one hides what came after
        raise _refused("crl_invalid", "found no next update, expected one")
    if now + skew < crl.last_update_utc.timestamp():
        raise _refused(
            "crl_not_yet_valid",
            f"found update {crl.last_update_utc:{SECOND}}, expected one by {at:{SECOND}}",
        )
    if at >= crl.next_update_utc:
        raise _refused(
            "crl_expired",
            f"found next update {crl.next_update_utc:{SECOND}}, expected one after {at:{SECOND}}",
        )
    return int(crl.next_update_utc.timestamp())


def _listed(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:  # step 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        except UNREADABLE as cause:
            raise _refused("crl_invalid", "an entry does not parse") from cause
    return entry is not None
