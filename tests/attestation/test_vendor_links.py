"""What links evidence to its vendor, one link changed: a key's kind or use, a list, a manifest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from simulators.intel import Intel
from simulators.nitro import LEVELS, NitroEnclave, NitroVendor
from simulators.nvidia import Nvidia
from simulators.tpm import EK_ATTRIBUTES, public_area
from simulators.tpm import rsa_key as tpm_rsa_key
from simulators.vtpm import ec_key

from attestation.examined import Expected, Question
from attestation.schemes import nitro, nvidia_gpu, sgx, tdx
from attestation.verify.credential import make_credential
from attestation.verify.crl import check_crl
from attestation.verify.tpm_key import listed_key
from wire.errors import AttestationError

if TYPE_CHECKING:
    from attestation.verify.fleet import Fleet

NOW = 1_790_000_000


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


# ---- revocation lists


def issuer(key: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(at(-100))
        .not_valid_after(at(100))
    )
    return builder.sign(key, hashes.SHA256())


def listing(of: x509.Certificate, key: Any) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(of.subject)
        .last_update(at(-100))
        .next_update(at(100))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_list_is_its_issuers_only_under_a_key_of_the_kind_that_signed_it() -> None:
    keys = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
    }
    for own, key in keys.items():
        for other, signer in keys.items():
            found = issuer(key)
            raw = listing(found, signer)
            if own == other:
                assert check_crl(raw, found, (), NOW) == NOW + 100
                continue
            with pytest.raises(AttestationError, match="not signed by its issuer") as caught:
                check_crl(raw, found, (), NOW)
            assert caught.value.reasons == ("crl_invalid",)


# ---- keys of TPMs that a relying party lists


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_key_counts_wherever_it_stands_in_the_list(place: int) -> None:
    own = spki(ec_key("own"))
    listed = [hashlib.sha256(bytes([n])).digest() for n in range(2)]
    listed.insert(place, hashlib.sha256(own).digest())
    assert listed_key(b"".join(listed), None, own).spki == own


def test_a_key_that_is_not_listed_is_no_trusted_one() -> None:
    listed = hashlib.sha256(spki(ec_key("other"))).digest()
    for fingerprints in (listed, b"", listed[:31]):
        with pytest.raises(AttestationError) as caught:
            listed_key(fingerprints, None, spki(ec_key("own")))
        assert caught.value.reasons == ("ak_not_accepted",)


def test_a_list_alone_shows_no_key() -> None:
    with pytest.raises(AttestationError, match="shows no key") as caught:
        listed_key(hashlib.sha256(spki(ec_key("own"))).digest(), None, b"")
    assert caught.value.reasons == ("unknown_signing_key",)


# ---- Nitro


def test_an_enclaves_certificate_that_states_no_use_may_not_sign() -> None:
    vendor = NitroVendor(NOW)
    honest = x509.load_der_x509_certificate(vendor.chain["enclave"])
    bare = (
        x509.CertificateBuilder()
        .subject_name(honest.subject)
        .issuer_name(honest.issuer)
        .public_key(honest.public_key())
        .serial_number(9)
        .not_valid_before(honest.not_valid_before_utc)
        .not_valid_after(honest.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(vendor.keys[LEVELS[-2]], hashes.SHA384())
    )
    enclave = NitroEnclave(vendor)
    enclave.members["certificate"] = bare.public_bytes(Encoding.DER)
    found = nitro.examine(Question({"document": enclave.document()}, vendor.anchors, NOW))
    assert [reason.code for reason in found.reasons] == ["chain_invalid"]


# ---- NVIDIA's reference manifests


def shown(vendor: Nvidia, device: Any, **facts: Any) -> Fleet:
    nonce = bytes(range(32))
    examined = nvidia_gpu.SCHEME.examine(
        Question(
            {"evidence": device.report(nonce), "cert_chain": device.chain()},
            vendor.anchors,
            vendor.now,
            {
                "rim": vendor.manifest(device, "vbios"),
                "rim_1": vendor.manifest(device, "driver", **facts),
            },
            Expected(nonce=nonce),
        )
    )
    assert examined.authentic is True
    fleet: Fleet = examined.facts
    return fleet


def checked(fleet: Fleet, now: int) -> str:
    rim = pytest.importorskip("attestation.verify.rim", reason="manifests need the extra `rim`")
    return str(rim.check_fleet(fleet, now, revocation=False, accept_hold=False))


def test_the_status_of_the_decoder_must_be_known_though_its_block_is_the_golden_one() -> None:
    vendor = Nvidia()
    device = vendor.gpu()
    device.opaque[11] = b"\xaa"
    assert "NVIDIA's" in checked(shown(vendor, device), vendor.now)
    device.opaque[11] = b"\x00"
    with pytest.raises(AttestationError) as caught:
        checked(shown(vendor, device), vendor.now)
    assert caught.value.reasons == ("rim_measurement_mismatch",)


@pytest.mark.parametrize("block", [35, 36, 37])
def test_block_36_alone_is_passed_over_where_the_decoder_is_off(block: int) -> None:
    vendor = Nvidia()
    device = vendor.gpu()
    device.opaque[11] = b"\x55"
    fleet = shown(vendor, device, values={block - 1: ["ab" * 48]})
    if block == 36:
        assert "block 36 passed over" in checked(fleet, vendor.now)
        return
    with pytest.raises(AttestationError) as caught:
        checked(fleet, vendor.now)
    assert caught.value.reasons == ("rim_measurement_mismatch",)


def test_a_device_of_an_unknown_product_has_no_manifest() -> None:
    vendor = Nvidia()
    fleet = shown(vendor, vendor.gpu())
    unknown = replace(fleet, devices=tuple(replace(one, family=None) for one in fleet.devices))
    with pytest.raises(AttestationError) as caught:
        checked(unknown, vendor.now)
    assert caught.value.reasons == ("rim_missing",)


# ---- Intel


@pytest.mark.parametrize(
    ("fact", "code"), [("body", "signature_invalid"), ("enclave", "qe_vendor_unknown")]
)
@pytest.mark.parametrize("tee", ["tdx", "sgx"])
def test_without_collateral_enclave_and_signature_of_a_quote_are_verified(
    tee: str, fact: str, code: str
) -> None:
    intel = Intel(tee)
    if fact == "enclave":
        intel.header["vendor"] = bytes(16)
    quote = bytearray(intel.quote())
    if fact == "body":
        quote[200] ^= 1
    scheme = tdx.SCHEME if tee == "tdx" else sgx.SCHEME
    found = scheme.examine(Question({"quote": bytes(quote)}, intel.anchors(), intel.now))
    assert {reason.code for reason in found.reasons} == {"collateral_missing", code}


# ---- endorsement keys


def test_an_endorsement_key_with_an_even_modulus_encrypts_no_challenge() -> None:
    key = tpm_rsa_key("ek")
    area = public_area(key, EK_ATTRIBUTES)
    modulus = key.public_key().public_numbers().n.to_bytes(256, "big")
    even = area.replace(modulus, modulus[:-1] + bytes([modulus[-1] & 0xFE]))
    assert make_credential(area, bytes(34), bytes(32), bytes)
    with pytest.raises(AttestationError, match="cannot encrypt") as caught:
        make_credential(even, bytes(34), bytes(32), bytes)
    assert caught.value.reasons == ("ek_attributes",)
