"""OCSP answers: who may sign one, how long it may be, and for how many certificates it speaks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from simulators.nvidia_device import tlv
from simulators.verdicts import refusal

from attestation.verify.ocsp import (
    RESPONSE_MAX,
    SINGLES_MAX,
    Status,
    certificate_id,
    check_paths,
    check_response,
    load_response,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulators.nvidia import Nvidia
    from simulators.nvidia_device import Authority, Device


def ask(gpu: Device, der: bytes) -> Status:
    issuer = gpu.vendor.icas[gpu.chip].certificate
    return check_response(der, gpu.brom.certificate, issuer, gpu.vendor.now)


@pytest.fixture(scope="module")
def gpu(vendor: Nvidia) -> Device:
    return vendor.gpu()


@pytest.mark.parametrize(
    "usage", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
)
def test_a_certificate_for_another_use_signs_no_answers(
    gpu: Device, usage: x509.ObjectIdentifier
) -> None:
    issuer = gpu.vendor.icas[gpu.chip]
    for eku, accepted in ((ExtendedKeyUsageOID.OCSP_SIGNING, True), (usage, False)):
        der = gpu.vendor.ocsp(gpu.brom, issuer, delegated=gpu.vendor.responder(issuer, eku=eku))
        if accepted:
            assert ask(gpu, der).complete
        else:
            assert refusal(lambda der=der: ask(gpu, der)) == "ocsp_invalid"


@pytest.mark.parametrize("by_name", [False, True])
def test_a_certificate_in_an_answer_that_cannot_be_read_is_passed_over(
    gpu: Device, by_name: bool
) -> None:
    issuer, at = gpu.vendor.icas[gpu.chip], datetime.fromtimestamp(gpu.vendor.now, UTC)
    responder = gpu.vendor.responder(issuer)
    odd = x509.load_der_x509_certificate(responder.der.replace(b"NVIDIA OCSP R", b"\xff" * 13))
    named = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
    for added, accepted in (([odd, responder.certificate], True), ([odd], False)):
        builder = ocsp.OCSPResponseBuilder().add_response(
            gpu.brom.certificate, issuer.certificate, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD,
            at, None, None, None,
        )  # fmt: skip
        builder = builder.responder_id(named, responder.certificate).certificates(added)
        der = builder.sign(responder.key, hashes.SHA384()).public_bytes(Encoding.DER)
        if accepted:
            assert ask(gpu, der).complete
        else:
            assert refusal(lambda der=der: ask(gpu, der)) == "ocsp_invalid"


def test_an_unsuccessful_answer_says_so_itself() -> None:
    der = ocsp.OCSPResponseBuilder.build_unsuccessful(
        ocsp.OCSPResponseStatus.TRY_LATER
    ).public_bytes(Encoding.DER)
    assert refusal(lambda: load_response(der), "TRY_LATER") == "ocsp_invalid"


def test_no_certificate_at_all_is_no_complete_answer() -> None:
    assert not Status(0, 0, 0, 1).complete
    assert not check_paths((), (), 0).complete
    assert Status(1, 1, 0, 1).complete


def test_an_answer_of_the_greatest_length_is_read(gpu: Device) -> None:
    filler = RESPONSE_MAX - 600
    for _ in range(99):  # an ECDSA signature has one of a few lengths
        der = padded(gpu, filler)
        if len(der) == RESPONSE_MAX:
            break
        filler += RESPONSE_MAX - len(der)
    assert len(der) == RESPONSE_MAX
    assert load_response(der).singles


def padded(gpu: Device, filler: int) -> bytes:
    issuer, at = gpu.vendor.icas[gpu.chip], datetime.fromtimestamp(gpu.vendor.now, UTC)
    builder = ocsp.OCSPResponseBuilder().add_response(
        gpu.brom.certificate, issuer.certificate, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD,
        at, None, None, None,
    )  # fmt: skip
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
    more = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(filler))
    return (
        builder.add_extension(more, critical=False)
        .sign(issuer.key, hashes.SHA384())
        .public_bytes(Encoding.DER)
    )


def values(raw: bytes) -> list[bytes]:
    """The DER values in a row, whole."""
    found, at = [], 0
    while at < len(raw):
        octets = raw[at + 1] & 0x7F if raw[at + 1] & 0x80 else 0
        size = int.from_bytes(raw[at + 2 : at + 2 + octets], "big") if octets else raw[at + 1]
        end = at + 2 + octets + size
        found.append(raw[at:end])
        at = end
    return found


def content(value: bytes) -> bytes:
    return value[2 + (value[1] & 0x7F if value[1] & 0x80 else 0) :]


def of_several(vendor: Nvidia, subjects: Sequence[Authority], issuer: Authority) -> bytes:
    """One response with a statement for each subject: no builder makes these."""
    singles, first = b"", load_response(vendor.ocsp(subjects[0], issuer)).ocsp
    who, when, _ = values(content(first.tbs_response_bytes))
    for subject in subjects:
        found = load_response(vendor.ocsp(subject, issuer)).ocsp
        singles += content(values(content(found.tbs_response_bytes))[2])
    signed = tlv(0x30, who + when + tlv(0x30, singles))
    signature = issuer.key.sign(signed, ec.ECDSA(hashes.SHA384()))
    algorithm = tlv(0x30, bytes.fromhex("06082a8648ce3d040303"))
    basic = tlv(0x30, signed + algorithm + tlv(0x03, b"\0" + signature))
    kind = bytes.fromhex("06092b0601050507300101")
    return tlv(0x30, b"\x0a\x01\x00" + tlv(0xA0, tlv(0x30, kind + tlv(0x04, basic))))


def test_one_answer_may_speak_for_sixteen_certificates_and_for_no_more(vendor: Nvidia) -> None:
    issuer = vendor.icas["GH100"]
    subjects = [vendor.issue(f"boot ROM {number}", issuer) for number in range(SINGLES_MAX + 1)]
    response = load_response(of_several(vendor, subjects[:SINGLES_MAX], issuer))
    paths = [(one.certificate, issuer.certificate) for one in subjects]
    status = check_paths([response], paths, vendor.now)
    assert (status.covered, status.expected) == (SINGLES_MAX, SINGLES_MAX + 1)
    der = of_several(vendor, subjects, issuer)
    assert refusal(lambda: load_response(der), "more than 16") == "ocsp_invalid"


def test_certificates_that_paths_share_are_counted_once(vendor: Nvidia) -> None:
    gpus = [vendor.gpu(), vendor.gpu()]
    above = (vendor.icas["GH100"], vendor.identity["GH100"], vendor.root)
    paths = [[one.certificate for one in (gpu.brom, *above)] for gpu in gpus]
    found = {der for gpu in gpus for der in vendor.revocation(gpu)}
    status = check_paths([load_response(der) for der in found], paths, vendor.now)
    assert (status.covered, status.expected) == (4, 4)


def test_a_key_of_another_kind_signs_no_answer(vendor: Nvidia) -> None:
    issuer = vendor.issue("CA", vendor.root, key=ed25519.Ed25519PrivateKey.generate())
    subject = vendor.issue("subject", issuer)
    name, key, serial = certificate_id(subject.certificate, issuer.certificate, hashes.SHA384())
    at = datetime.fromtimestamp(vendor.now, UTC)
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        name, key, serial, hashes.SHA384(), ocsp.OCSPCertStatus.GOOD, at, None, None, None
    )
    namesake = vendor.issue("CA", key=vendor.root.key)  # the builder wants the signer's own key
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, namesake.certificate)
    der = builder.sign(vendor.root.key, hashes.SHA384()).public_bytes(Encoding.DER)

    def checked() -> Status:
        return check_response(der, subject.certificate, issuer.certificate, vendor.now)

    assert refusal(checked, "not signed by the issuer") == "ocsp_invalid"
