"""Signatures and revocation answers of vendors' devices, at the limits of their form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from simulators.nvidia import Nvidia
from simulators.tokens import Issuer

from attestation.anchors import NONE
from attestation.examined import Expected, Question
from attestation.formats.cose import Sign1
from attestation.formats.ear import VERAISON_PROFILE
from attestation.schemes.ear import SCHEME as EAR
from attestation.schemes.nvidia_gpu import SCHEME
from attestation.verify.cose import EDDSA, ES256, ES384, verify_sign1
from attestation.verify.ocsp import check_response, load_response
from wire.errors import AttestationError

if TYPE_CHECKING:
    from simulators.nvidia_device import Device

EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
RSA_KEY = rsa.RSAPublicNumbers(65_537, (1 << 2047) + 1).public_key()
UNSIGNED = Sign1(False, b"", MappingProxyType({}), MappingProxyType({}), ES256, b"payload", b"")


# ---- COSE


def by_ec() -> Sign1:
    r, s = decode_dss_signature(EC_KEY.sign(UNSIGNED.signed_bytes(), ec.ECDSA(hashes.SHA256())))
    return replace(UNSIGNED, signature=r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def by_ed25519() -> Sign1:
    message = replace(UNSIGNED, algorithm=EDDSA)
    return replace(message, signature=ED_KEY.sign(message.signed_bytes()))


def refused(message: Sign1, key: object, *algorithms: int) -> None:
    with pytest.raises(AttestationError) as caught:
        verify_sign1(message, key, algorithms)
    assert caught.value.reasons == ("signature_invalid",)


def test_a_message_signed_with_each_kind_of_key_is_accepted_and_says_how() -> None:
    assert verify_sign1(by_ec(), EC_KEY.public_key(), (ES256,)) == "ECDSA, secp256r1, sha256"
    assert verify_sign1(by_ed25519(), ED_KEY.public_key(), (EDDSA,)) == "EdDSA"


def test_another_payload_is_not_what_was_signed() -> None:
    refused(replace(by_ec(), payload=b"other"), EC_KEY.public_key(), ES256)
    refused(replace(by_ed25519(), payload=b"other"), ED_KEY.public_key(), EDDSA)


def test_a_good_signature_by_an_algorithm_not_asked_for_is_refused() -> None:
    refused(by_ec(), EC_KEY.public_key(), ES384, EDDSA)


def test_a_key_of_another_kind_than_the_algorithm_verifies_nothing() -> None:
    for key in (RSA_KEY, ED_KEY.public_key()):
        refused(by_ec(), key, ES256)
    refused(by_ed25519(), EC_KEY.public_key(), EDDSA)


def test_a_signature_has_one_length_though_a_longer_one_means_the_same_numbers() -> None:
    raw = by_ec().signature
    refused(replace(by_ec(), signature=raw[:32] + b"\0" + raw[32:]), EC_KEY.public_key(), ES256)


# ---- OCSP


@pytest.fixture(scope="module")
def gpu() -> Device:
    return Nvidia().gpu()


def answer(
    gpu: Device, *, extra: int = 0, filler: int = 0, start: int = 0, end: int | None = 60
) -> bytes:
    """A good response with so many certificates and bytes that nobody needs."""
    issuer, now = gpu.vendor.icas[gpu.chip], gpu.vendor.now
    begins = datetime.fromtimestamp(now + start, UTC)
    ends = None if end is None else datetime.fromtimestamp(now + end, UTC)
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            gpu.brom.certificate, issuer.certificate, hashes.SHA384(),
            ocsp.OCSPCertStatus.GOOD, begins, ends, None, None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
    )  # fmt: skip
    if extra:
        builder = builder.certificates([issuer.certificate] * extra)
    if filler:
        more = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(filler))
        builder = builder.add_extension(more, critical=False)
    return builder.sign(issuer.key, hashes.SHA384()).public_bytes(Encoding.DER)


def ask(gpu: Device, der: bytes) -> Any:
    issuer = gpu.vendor.icas[gpu.chip].certificate
    return check_response(der, gpu.brom.certificate, issuer, gpu.vendor.now, None)


def test_a_response_may_bring_four_certificates_and_no_fifth(gpu: Device) -> None:
    assert ask(gpu, answer(gpu, extra=4)).complete
    with pytest.raises(AttestationError) as caught:
        ask(gpu, answer(gpu, extra=5))
    assert caught.value.reasons == ("ocsp_invalid",)


def test_a_response_of_more_than_16_kib_is_refused_though_it_would_parse(gpu: Device) -> None:
    assert ask(gpu, answer(gpu, filler=15_000)).complete
    with pytest.raises(AttestationError, match="at most 16384") as caught:
        load_response(answer(gpu, filler=16_384))
    assert caught.value.reasons == ("ocsp_invalid",)


def test_a_response_holds_in_its_first_and_its_last_second(gpu: Device) -> None:
    assert ask(gpu, answer(gpu, start=0)).not_after == gpu.vendor.now + 60
    assert ask(gpu, answer(gpu, start=-60, end=1)).not_after == gpu.vendor.now + 1
    assert ask(gpu, answer(gpu, start=0, end=None)).complete


@pytest.mark.parametrize("facts", [{"start": 0}, {"end": 0}], ids=["first", "last"])
def test_a_responders_certificate_holds_in_its_first_and_its_last_second(
    gpu: Device, facts: dict[str, int]
) -> None:
    issuer = gpu.vendor.icas[gpu.chip]
    delegated = gpu.vendor.responder(issuer, **facts)
    assert ask(gpu, gpu.vendor.ocsp(gpu.brom, issuer, delegated=delegated)).complete


def test_a_response_that_names_its_certificate_by_an_unknown_hash_covers_nothing(
    gpu: Device,
) -> None:
    der = gpu.vendor.ocsp(gpu.brom, gpu.vendor.icas[gpu.chip], algorithm=hashes.SHA224())
    with pytest.raises(AttestationError):
        ask(gpu, der)


def test_a_response_signed_with_rsa_is_verified() -> None:
    vendor = Nvidia()
    issuer = vendor.issue("RSA issuer", vendor.root, key=rsa.generate_private_key(65_537, 2048))
    subject = vendor.issue("subject", issuer, ca=False)
    der = bytearray(vendor.ocsp(subject, issuer))
    asked = (subject.certificate, issuer.certificate, vendor.now, None)
    assert check_response(bytes(der), *asked).complete
    der[-1] ^= 1
    with pytest.raises(AttestationError) as caught:
        check_response(bytes(der), *asked)
    assert caught.value.reasons == ("ocsp_invalid",)


# ---- devices


def test_the_account_of_a_device_names_its_firmware_and_no_step_is_silent(gpu: Device) -> None:
    nonce = bytes(range(32))
    answers = gpu.vendor.revocation(gpu)
    roles = ["ocsp", *(f"ocsp_{number}" for number in range(1, len(answers)))]
    found = SCHEME.examine(
        Question(
            evidence={"evidence": gpu.report(nonce), "cert_chain": gpu.chain()},
            anchors=gpu.vendor.anchors,
            now=gpu.vendor.now,
            expected=Expected(nonce=nonce),
            collateral=dict(zip(roles, answers, strict=True)),
        )
    )
    assert found.authentic is True
    told = {check.step: check.detail for check in found.checks}
    assert told["spdm 6 firmware"] == gpu.fwid.hex()[:16]
    assert all(told.values())


# ---- tokens


def test_no_step_of_an_accepted_token_is_silent() -> None:
    issuer = Issuer("ES256")
    claims = {
        "eat_profile": VERAISON_PROFILE, "iat": 1_790_000_000, "exp": 1_790_000_300,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {"cpu": {"ear.status": "affirming", "ear.trustworthiness-vector": {}}},
    }  # fmt: skip
    found = EAR.examine(
        Question(
            evidence={"token": issuer.sign(claims).encode()},
            anchors=NONE,
            now=1_790_000_000,
            collateral={"jwks": issuer.jwks()},
        )
    )
    assert found.authentic is True
    assert [check.step for check in found.checks if not check.detail] == []
    assert "ES256" in [check.detail for check in found.checks]
