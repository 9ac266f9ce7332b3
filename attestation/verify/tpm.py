"""What a TPM quote proves: who signed it, over which registers, for which key.

Each function is one step and raises `AttestationError` with one code. None of them proves which
machine the TPM belongs to, nor that the two keys share a TPM: that is credential activation
(`verify.credential`).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.formats.tpm_structures import (
    ALG_ECDSA,
    ALG_NULL,
    ALG_RSAPSS,
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    Public,
    Quote,
    Signature,
)
from wire.errors import refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from attestation.examined import Expected

_SHA2: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_TPM_MADE = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN


def check_attestation_key(ak: Public) -> str:
    """The key is one that signs only what its TPM made.

    An unrestricted key signs anything, a forged TPMS_ATTEST too; a key not fixed to its TPM, or not
    made there, has copies elsewhere.

    Raises:
        AttestationError: `ak_attributes`.
    """
    if not ak.has(_TPM_MADE | RESTRICTED | SIGN) or ak.attributes & DECRYPT:
        raise refused(
            "ak_attributes",
            f"attestation key: found attributes {ak.attributes:#010x}, expected restricted, sign, "
            "fixedTPM, fixedParent, sensitiveDataOrigin and no decrypt",
        )
    if ak.scheme == ALG_NULL or ak.scheme_hash not in _SHA2:
        raise refused("ak_attributes", "attestation key: expected a signing scheme with SHA-2")
    return "restricted, sign, fixedTPM"


def check_endorsement_key(ek: Public, certificate: x509.Certificate) -> str:
    """The endorsement key is a storage key of its TPM and the one its certificate names.

    Raises:
        AttestationError: `ek_attributes` or `ek_mismatch`.
    """
    if not ek.has(_TPM_MADE | RESTRICTED | DECRYPT) or ek.attributes & SIGN:
        raise refused(
            "ek_attributes",
            f"endorsement key: found attributes {ek.attributes:#010x}, expected restricted, "
            "decrypt, fixedTPM, fixedParent, sensitiveDataOrigin and no sign",
        )
    if _spki(certificate.public_key()) != _spki(ek.key):
        raise refused("ek_mismatch", "endorsement key: the certificate names another key")
    return "the certificate's key, restricted, decrypt, fixedTPM"


def verify_signature(
    quote: Quote,
    signature: Signature,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    expected: tuple[int, str] | None = None,
) -> str:
    """`key` signed the quote's bytes.

    Args:
        quote, signature: as parsed.
        key: the attestation public key.
        expected: (scheme, hash) the key is restricted to; a signature by another is refused.

    Raises:
        AttestationError: `signature_invalid`.
    """
    if expected is not None and (signature.scheme, signature.hash_name) != expected:
        raise refused("signature_invalid", "quote: the scheme is not the attestation key's own")
    algorithm = _SHA2.get(signature.hash_name)
    if algorithm is None:
        raise refused("signature_invalid", f"quote: found {signature.hash_name}, expected SHA-2")
    try:
        if signature.scheme == ALG_ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            pair = encode_dss_signature(signature.r, signature.s)
            key.verify(pair, quote.raw, ec.ECDSA(algorithm))
        elif signature.scheme != ALG_ECDSA and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.rsa, quote.raw, _padding(signature.scheme, algorithm), algorithm)
        else:
            raise InvalidSignature
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise refused("signature_invalid", "quote: not signed by the attestation key") from None
    return f"{key.key_size}-bit key, {signature.hash_name}"


def check_extra_data(quote: Quote, expected: bytes, code: str) -> str:
    """The quote was made for these bytes.

    Args:
        expected: what the verifier gave to be quoted; never empty.
        code: reason code of a mismatch.

    Raises:
        AttestationError: with `code`.
    """
    if not expected:
        raise ValueError("an empty challenge proves nothing")
    if not hmac.compare_digest(quote.extra_data, expected):
        raise refused(
            code, f"quote: its {len(quote.extra_data)} bytes of caller's data are other ones"
        )
    return f"{len(expected)} bytes equal"


def check_freshness(quote: Quote, expected: Expected) -> str:
    """The quote was made for the expected nonce, if one is expected, and for something in any case.

    A quote without caller's data answers every question ever asked. A TPM has one place for such
    data, so report data can be demanded only through the nonce.

    Raises:
        AttestationError: `nonce_mismatch` or `report_data_mismatch`.
    """
    if expected.nonce is None and expected.report_data is not None:
        raise refused("report_data_mismatch", "quote: report data is demanded without a nonce")
    if not quote.extra_data or expected.nonce == b"":
        raise refused("nonce_mismatch", "quote: found no caller's data, expected a nonce")
    if expected.nonce is None:
        return "no nonce is asked for"
    return check_extra_data(quote, expected.nonce, "nonce_mismatch")


def check_registers(
    quote: Quote, signature: Signature, pcrs: Mapping[str, Mapping[int, bytes]]
) -> str:
    """The quote covers exactly these registers with exactly these values.

    Args:
        pcrs: bank name to register number to value. Registers given but not quoted are refused
            (nothing vouches for them), as are registers quoted but not given.

    Raises:
        AttestationError: `pcr_selection` or `pcr_digest_mismatch`.
    """
    selected = {selection.bank: set(selection.registers) for selection in quote.covered}
    given = {bank: set(values) for bank, values in pcrs.items()}
    if selected != given:
        raise refused("pcr_selection", "quote: the registers given are not those it covers")
    state = hashlib.new(signature.hash_name)
    for selection in quote.covered:
        for register in selection.registers:
            state.update(pcrs[selection.bank][register])
    if not hmac.compare_digest(state.digest(), quote.pcr_digest):
        raise refused("pcr_digest_mismatch", "quote: the register values are not those it covers")
    count = sum(len(registers) for registers in selected.values())
    return f"{count} registers of {', '.join(selected)}"


def _padding(scheme: int, algorithm: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if scheme == ALG_RSAPSS:
        # TPMs salt with the digest's length or with all room there is; both are genuine.
        return padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
    return padding.PKCS1v15()


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
