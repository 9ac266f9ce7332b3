"""NVIDIA's reference manifests and OCSP answers.

A manifest is kept under its id if the service says it is that one; its signature (XML-DSig or
COSE) is for its verifier. An OCSP answer is kept if it speaks of exactly the certificate asked for,
now, and, fresh from the responder, echoes the nonce of the question: where the standard puts it, in
the response's own extensions. Its signature is for the GPU's verifier: a key names the issuer by
hashes, and the certificate to verify by stands in evidence alone. One that nobody signed therefore
denies until it is renewed, within the hour, and vouches for nothing.

An answer is kept for several examinations, so each question has a nonce of its own, which is
compared once, here, on arrival, and no role `ocsp_nonce` is resolved. Whoever alters an answer to
match it breaks the signature over it, which every examination verifies. From then on an answer
counts until its next update, for at most an hour (`entry.BOUNDS`) and no longer than the policy
says; one out of a bundle, whose nonce was another machine's, by its dates and the bundle's age, if
none of a later date was seen. That the responder does not know a certificate answers the question,
and is kept only where there was an answer before.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import warnings
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ExtensionNotFound, OCSPNonce, ocsp

from wire.canonical import parse_strict
from wire.errors import AttestationError, MalformedError
from wire.limits import CLOCK_SKEW_S

from .entry import BOUNDS, KIB, Checked, Piece
from .fetcher import Request

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey

    from .fetcher import Response
    from .services import Services

NONCE_LEN: Final = 32  # the longest that RFC 8954 allows
OCSP_REQUEST_TYPE: Final = "application/ocsp-request"
_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
}


def request(key: CollateralKey, services: Services, nonce: bytes) -> Request:
    """The question for one key."""
    limit = BOUNDS[key.kind].size
    if key.kind == "rim":
        # Base64 in JSON, with a few members around it.
        url = f"{services.nvidia_rim}/v1/rim/{key.parts[1]}"
        return Request(url, limit * 4 // 3 + 16 * KIB, key.kind)
    _, name, issuer_name, issuer_key, serial = key.parts
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        bytes.fromhex(issuer_name), bytes.fromhex(issuer_key), int(serial, 16), _HASHES[name]()
    )
    asked = builder.add_extension(OCSPNonce(nonce), critical=False).build()
    body = asked.public_bytes(serialization.Encoding.DER)
    return Request(services.nvidia_ocsp, limit, key.kind, "POST", body, OCSP_REQUEST_TYPE)


def unwrap(key: CollateralKey, response: Response) -> Piece:
    """Manifests come as base64 in JSON, OCSP answers as they are.

    Raises:
        MalformedError: no such JSON, or a manifest of another id.
    """
    if key.kind == "ocsp":
        return Piece(response.body)
    found = parse_strict(response.body, max_bytes=BOUNDS["rim"].size * 4 // 3 + 16 * KIB)
    if not isinstance(found, dict) or found.get("id") != key.parts[1]:
        raise MalformedError("RIM answer: expected an object with the id that was asked for")
    text = found.get("rim")
    try:
        return Piece(base64.b64decode(text, validate=True) if isinstance(text, str) else b"")
    except (binascii.Error, ValueError):
        raise MalformedError("RIM answer: expected base64 with padding in rim") from None


def check(key: CollateralKey, piece: Piece, now: int, nonce: bytes | None) -> Checked:
    """Whether an OCSP answer is the one asked for; a manifest is opaque here.

    Args:
        key: what was asked.
        piece: what came.
        now: Unix seconds.
        nonce: what the question carried; None for a piece out of a bundle, whose window alone says
            how fresh it is.

    Raises:
        AttestationError: with a reason.
        MalformedError: it does not parse.
    """
    if key.kind == "rim":
        return Checked()
    found = _load(piece.body)
    _, name, issuer_name, issuer_key, serial = key.parts
    same = (
        isinstance(found.hash_algorithm, _HASHES[name])
        and found.issuer_name_hash.hex() == issuer_name
        and found.issuer_key_hash.hex() == issuer_key
        and found.serial_number == int(serial, 16)
    )
    if not same:
        raise _refused("collateral_mismatch", "speaks of another certificate than asked for")
    if nonce is not None and not hmac.compare_digest(_nonce(found), nonce):
        raise _refused("nonce_mismatch", "does not echo the nonce of the question")
    if found.this_update_utc.timestamp() > now + CLOCK_SKEW_S:
        raise _refused("collateral_not_yet_valid", "is from the future")
    # Its signature is not checked here, but a made-up one is dated no further ahead than that.
    issued = max(0, int(found.this_update_utc.timestamp()))
    # What the responder says of every certificate that anybody makes up.
    unknown = found.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    if found.next_update_utc is None:
        return Checked(issued + BOUNDS["ocsp"].offline_s, issued, unknown)
    until = int(found.next_update_utc.timestamp())
    if until <= now:
        raise _refused("collateral_expired", f"its next update was due {now - until} s ago")
    return Checked(until, issued, unknown)


def _load(der: bytes) -> ocsp.OCSPResponse:
    try:
        with warnings.catch_warnings():
            # Hostile input must not choose between a warning and an error.
            warnings.simplefilter("ignore")
            found = ocsp.load_der_ocsp_response(der)
            status = found.response_status
            # These are only read when asked for, so that they fail here. An answer about several
            # certificates has none of them.
            _ = status is ocsp.OCSPResponseStatus.SUCCESSFUL and (
                found.hash_algorithm, found.serial_number, found.issuer_name_hash,
                found.issuer_key_hash, found.this_update_utc, found.next_update_utc,
                found.certificate_status, found.extensions,
            )  # fmt: skip
    except Exception as cause:
        # The library names no closed set of errors for what is inside an answer.
        raise MalformedError("OCSP: expected an answer about one certificate, DER") from cause
    if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise MalformedError("OCSP: the responder gave no answer")
    return found


def _nonce(found: ocsp.OCSPResponse) -> bytes:
    try:
        return found.extensions.get_extension_for_class(OCSPNonce).value.nonce
    except ExtensionNotFound:
        return b""


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(f"OCSP answer: {detail}", reasons=(code,))
