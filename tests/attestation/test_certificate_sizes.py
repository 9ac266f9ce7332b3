"""Certificates, lists and answers of the greatest length and number, and of one more."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID, ObjectIdentifier
from simulators.nvidia import Nvidia

from attestation.formats.pem import CERTIFICATE_MAX
from attestation.verify.crl import CRL_MAX, load_crl
from attestation.verify.ocsp import check_paths, load_response
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError

NOW = 1_790_000_000
SIGNER = Ed25519PrivateKey.generate()  # whose signatures are all of one length


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def test_a_whole_list_has_its_greatest_length_and_no_more() -> None:
    def padded(length: int) -> bytes:
        padding = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), bytes(length))
        entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(at(-100))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name("0"))
            .last_update(at(-100))
            .next_update(at(100))
            .add_revoked_certificate(entry.add_extension(padding, critical=False).build())
        )
        return builder.sign(SIGNER, None).public_bytes(Encoding.DER)

    start = CRL_MAX - 1000
    longest = start + CRL_MAX - len(padded(start))
    assert len(padded(longest)) == CRL_MAX
    assert [entry.serial_number for entry in load_crl(padded(longest))] == [7]
    with pytest.raises(AttestationError) as caught:
        load_crl(padded(longest + 1))
    assert caught.value.reasons == ("crl_invalid",)


def test_a_certificate_of_the_greatest_length_is_read() -> None:
    def padded(length: int) -> bytes:
        padding = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), bytes(length))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name("leaf"))
            .issuer_name(name("0"))
            .public_key(SIGNER.public_key())
            .serial_number(7)
            .not_valid_before(at(-100))
            .not_valid_after(at(100))
            .add_extension(padding, critical=False)
        )
        return builder.sign(SIGNER, None).public_bytes(Encoding.DER)

    start = CERTIFICATE_MAX - 1000
    longest = start + CERTIFICATE_MAX - len(padded(start))
    assert len(padded(longest)) == CERTIFICATE_MAX
    assert load_certificate(padded(longest)).serial_number == 7
    with pytest.raises(AttestationError) as caught:
        load_certificate(padded(longest + 1))
    assert caught.value.reasons == ("chain_invalid",)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_certificate_has_four_answers_and_no_fifth(count: int) -> None:
    vendor = Nvidia()
    root = vendor.issue("root")
    leaf = vendor.issue("leaf", root, ca=False)
    path = (leaf.certificate, root.certificate)
    answers = [load_response(vendor.ocsp(leaf, root, start=-60 - n)) for n in range(count)]
    if count <= 4:
        assert check_paths(answers, [path], vendor.now).covered == 1
    else:
        with pytest.raises(AttestationError) as caught:
            check_paths(answers, [path], vendor.now)
        assert caught.value.reasons == ("ocsp_invalid",)


@pytest.mark.parametrize("count", [0, 4, 5])
def test_an_answer_carries_four_certificates_and_no_fifth(count: int) -> None:
    vendor = Nvidia()
    root = vendor.issue("root")
    leaf = vendor.issue("leaf", root, ca=False)
    answer = load_response(vendor.ocsp(leaf, root)).singles[0]
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            leaf.certificate,
            root.certificate,
            hashes.SHA384(),
            ocsp.OCSPCertStatus.GOOD,
            answer.this_update_utc,
            answer.next_update_utc,
            None,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, root.certificate)
    )
    if count:
        builder = builder.certificates([vendor.issue(f"{n}").certificate for n in range(count)])
    der = builder.sign(root.key, hashes.SHA384()).public_bytes(Encoding.DER)
    if count <= 4:
        assert len(load_response(der).ocsp.certificates) == count
    else:
        with pytest.raises(AttestationError) as caught:
            load_response(der)
        assert caught.value.reasons == ("ocsp_invalid",)
