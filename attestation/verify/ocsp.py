"""OCSP responses: whether an issuer still stands by a certificate, judged at a given time.

Steps, in order:
 1. the response is DER of bounded size and successful            ocsp_invalid
 2. it speaks for this very certificate: hashes of the issuer's   (searched for; see `check_paths`)
    name and key, and the serial number; at most a few do         ocsp_invalid
 3. its signer is the issuer, or holds a certificate that the     ocsp_invalid
    issuer itself made for OCSP signing and that holds now
 4. that signer signed it, with SHA-2                             ocsp_invalid
 5. it carries our nonce, in the response's own extensions        ocsp_nonce_mismatch
    (where one was sent: a fetched response, not a stored one)
 6. it holds at the given time, and no longer at its nextUpdate;  collateral_expired
    the responder's clock may be ahead of ours by what two
    honest clocks may differ
 7. the status is good; or on hold, which is returned for the     revoked, revocation_unknown
    rule to decide

A response that a device or worker staples is as good as a fetched one: only steps 3 and 4 give it
weight. What the CALLER must still do: verify the path (`verify.x509`), decide what the absence of
a response means, and send a fresh nonce where it fetches. A fetcher that keeps responses
(`attestation.collateral.nvidia`) compares its nonce when one arrives, and gives none here: what it
kept counts by step 6, within its own greatest age. Not checked: revocation of a delegated
signer, which RFC 6960 §4.2.2.2.1 leaves to the life of its certificate.
"""

from __future__ import annotations

import hmac
import itertools
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, OCSPExtensionOID

from attestation.examined import FOREVER
from attestation.formats.x509_errors import UNREADABLE
from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

from .x509 import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cryptography.x509.ocsp import OCSPResponse, OCSPSingleResponse

    _Statement = tuple["Response", OCSPSingleResponse]

RESPONSE_MAX: Final = 16 * 1024  # one status and a responder certificate are 1 to 3 KiB
SINGLES_MAX: Final = 16
# Anyone can add certificates to a response; each that bears the signer's name costs a signature.
CERTIFICATES_MAX: Final = 4
RESPONSES_MAX: Final = 64  # eight GPUs have ten certificates, a manifest's signer two more
# One is enough; a renewed one may stand beside it. Each costs up to five signatures to verify.
ANSWERS_MAX: Final = 4
# Without nextUpdate newer news may always exist; a stored response is then good for a day.
_LAST: Final = datetime.max.replace(tzinfo=UTC)
UNDATED_LIFE: Final = timedelta(days=1)

_SEQUENCE: Final = 0x30
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# Of a certificate's id only: a second issuer with the same SHA-1 would still have to sign.
_ID_HASHES = (hashes.SHA1, *_HASHES)


@dataclass(frozen=True, slots=True)
class Status:
    """What responses say of paths.

    Attributes:
        covered: certificates with a response; one that stands in several paths counts once.
        expected: certificates that should have one.
        held: certificates on hold.
        not_after: Unix second at which the first response ends.
    """

    covered: int
    expected: int
    held: int
    not_after: int

    @property
    def complete(self) -> bool:
        """Whether every certificate has a response."""
        return self.expected > 0 and self.covered == self.expected


@dataclass(frozen=True, slots=True)
class Response:
    """A parsed, unverified response and the statements in it."""

    ocsp: OCSPResponse
    singles: tuple[OCSPSingleResponse, ...]


def load_response(der: bytes) -> Response:  # step 1
    """One response; unverified.

    Raises:
        AttestationError: `ocsp_invalid`.
    """
    if not der or len(der) > RESPONSE_MAX or der[0] != _SEQUENCE:
        raise _refused(
            "ocsp_invalid", f"found {len(der)} bytes, expected DER of at most {RESPONSE_MAX}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hostile input must not choose what is warned of
            found = ocsp.load_der_ocsp_response(der)
            if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                raise _refused("ocsp_invalid", f"the responder says {found.response_status.name}")
            singles = tuple(itertools.islice(found.responses, SINGLES_MAX + 1))
            # Read lazily, so they fail here and not later.
            _ = (found.extensions, found.certificates, found.signature_hash_algorithm)
            _ = (found.responder_name, found.responder_key_hash)
            for single in singles:
                _ = (single.hash_algorithm, single.this_update_utc, single.next_update_utc)
                _ = (single.certificate_status, single.revocation_reason)
    except UNREADABLE as cause:
        raise _refused("ocsp_invalid", "it does not parse, expected DER") from cause
    if len(singles) > SINGLES_MAX or len(found.certificates) > CERTIFICATES_MAX:
        raise _refused("ocsp_invalid", f"found more than {SINGLES_MAX} statements in it")
    unknown = [e.oid for e in found.extensions if e.critical and e.oid != OCSPExtensionOID.NONCE]
    if unknown:
        raise _refused("ocsp_invalid", f"found {len(unknown)} unknown critical extensions")
    return Response(found, singles)


def check_paths(
    responses: Sequence[Response],
    paths: Sequence[Sequence[x509.Certificate]],
    now: int,
    nonce: bytes | None = None,
    *,
    unasked: Sequence[Sequence[x509.Certificate]] = (),
    skew: int = CLOCK_SKEW_S,
) -> Status:
    """Steps 2 to 7 for each certificate of verified paths that has an issuer there, once.

    Args:
        responses: parsed responses; those for other certificates are passed over.
        paths: each certificate followed by its issuer, the root last.
        now: Unix seconds.
        nonce: what each response must carry; None for stored responses.
        unasked: further ones, of which those that are in no path have no responder that is known:
            what is said of them counts, and nothing need be.
        skew: by how many seconds a responder's clock may be ahead.

    Raises:
        AttestationError: a response for one of them is not valid, or says it is revoked.
    """
    covered = held = 0
    ends = [FOREVER]
    by_serial: dict[int, list[_Statement]] = {}
    for response in responses:
        for single in response.singles:
            by_serial.setdefault(single.serial_number, []).append((response, single))
    # The GPUs of a node share their makers, and a response may speak for several certificates.
    signed: set[tuple[Response, x509.Certificate]] = set()
    links = dict.fromkeys(link for path in paths for link in itertools.pairwise(path))
    more = (link for path in unasked for link in itertools.pairwise(path))
    for certificate, issuer in dict.fromkeys((*links, *more)):
        statements = list(_statements(by_serial, certificate, issuer))  # step 2
        if len(statements) > ANSWERS_MAX:
            raise _refused(
                "ocsp_invalid",
                f"found {len(statements)} statements for one certificate, expected ≤ {ANSWERS_MAX}",
            )
        for response, single in statements:  # all of them: one "good" does not undo a "revoked"
            if (response, issuer) not in signed:
                _check_signer(response, issuer, now)
                signed.add((response, issuer))
            _check_nonce(response, nonce)
            ends.append(_check_time(single, now, skew))
            held += _check_status(single)
        covered += bool(statements) and (certificate, issuer) in links
    return Status(covered, len(links), held, min(ends))


def check_response(
    der: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    now: int,
    nonce: bytes | None = None,
) -> Status:
    """All steps for one response that must speak for one certificate.

    Raises:
        AttestationError: `ocsp_invalid` too where it speaks for another.
    """
    status = check_paths([load_response(der)], [(certificate, issuer)], now, nonce)
    if not status.complete:
        raise _refused("ocsp_invalid", "it speaks for another certificate")
    return status


def certificate_id(
    certificate: x509.Certificate, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> tuple[bytes, bytes, int]:
    """How OCSP names a certificate: (hash of the issuer's name, of its key bits, serial)."""
    return (
        _digest(issuer.subject.public_bytes(), algorithm),
        _digest(_key_bits(issuer), algorithm),
        certificate.serial_number,
    )


def _statements(
    by_serial: Mapping[int, Sequence[_Statement]],
    certificate: x509.Certificate,
    issuer: x509.Certificate,
) -> Iterator[_Statement]:  # step 2
    ids: dict[str, tuple[bytes, bytes, int]] = {}
    for response, single in by_serial.get(certificate.serial_number, ()):
        algorithm = single.hash_algorithm
        if not isinstance(algorithm, _ID_HASHES):
            continue
        if algorithm.name not in ids:
            ids[algorithm.name] = certificate_id(certificate, issuer, algorithm)
        found = (single.issuer_name_hash, single.issuer_key_hash, single.serial_number)
        if found == ids[algorithm.name]:
            yield response, single


def _check_signer(response: Response, issuer: x509.Certificate, now: int) -> None:  # steps 3, 4
    found = response.ocsp
    if _names(found, issuer) and _signed(found, issuer):
        return
    for one in found.certificates:
        if _names(found, one) and _delegated(one, issuer, now) and _signed(found, one):
            return
    raise _refused("ocsp_invalid", "not signed by the issuer or one that it authorised")


def _names(found: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a response's name is read anew each time
        name = found.responder_name
        try:
            subject = signer.subject  # of any certificate that somebody added to the response
        except UNREADABLE:
            return False
    if name is not None:
        return name == subject
    named = hashes.SHA1()  # noqa: S303 -- RFC 6960 names a key so; the signature decides
    return found.responder_key_hash == _digest(_key_bits(signer), named)


def _delegated(certificate: x509.Certificate, issuer: x509.Certificate, now: int) -> bool:
    at = datetime.fromtimestamp(now, UTC)
    try:
        # The signature first: what an issuer did not sign is not worth reading.
        certificate.verify_directly_issued_by(issuer)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return (
            isinstance(certificate.signature_hash_algorithm, _HASHES)
            and ExtendedKeyUsageOID.OCSP_SIGNING in usage
            and certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc
        )
    except (InvalidSignature, x509.ExtensionNotFound, *UNREADABLE):
        return False


def _signed(found: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    algorithm = found.signature_hash_algorithm
    if not isinstance(algorithm, _HASHES):
        return False
    try:
        key = signer.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(found.signature, found.tbs_response_bytes, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(found.signature, found.tbs_response_bytes, padding.PKCS1v15(), algorithm)
        else:
            return False
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _check_nonce(response: Response, nonce: bytes | None) -> None:  # step 5
    if nonce is None:
        return
    try:
        # The response's own extensions are signed as a whole; a statement's could be any other's.
        found = response.ocsp.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        raise _refused("ocsp_nonce_mismatch", "it carries no nonce, expected ours") from None
    if not hmac.compare_digest(found, nonce):
        raise _refused("ocsp_nonce_mismatch", "it carries another nonce, expected ours")


def _check_time(single: ocsp.OCSPSingleResponse, now: int, skew: int) -> int:  # step 6
    at = datetime.fromtimestamp(now, UTC)
    begin = single.this_update_utc
    begun = begin.timestamp() <= now + skew
    # Of the last day that a calendar has, there is no day after.
    end = single.next_update_utc or begin + min(UNDATED_LIFE, _LAST - begin)
    if not begun or at >= end:
        raise _refused(
            "collateral_expired",
            f"found {begin:{SECOND}} to {end:{SECOND}}, expected it to hold {at:{SECOND}}",
        )
    return int(end.timestamp())


def _check_status(single: ocsp.OCSPSingleResponse) -> bool:  # step 7
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return False
    if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise _refused("revocation_unknown", "the responder does not know the certificate")
    if single.revocation_reason is x509.ReasonFlags.certificate_hold:
        return True
    raise _refused("revoked", "the issuer has revoked the certificate")


def _digest(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _key_bits(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except UNREADABLE:
        return b""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return b""


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(f"OCSP: {detail}", reasons=(code,))
