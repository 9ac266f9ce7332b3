"""Whose document is it, and made for whom? Each test changes one fact of an honest one."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nitro import LEVELS, LIFETIMES, NitroEnclave, NitroVendor

from attestation.anchors import NITRO, NONE, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.nitro import parse_document
from attestation.schemes.nitro import SCHEME
from attestation.verify.nitro import check_signature
from wire.errors import AttestationError, MalformedError

NOW = 1_790_000_000
ORDER = ec.SECP384R1().group_order
DAYS = 7 * 24 * 3600


@pytest.fixture(scope="module")
def aws() -> NitroVendor:
    return NitroVendor(NOW)


@pytest.fixture
def enclave(aws: NitroVendor) -> NitroEnclave:
    return NitroEnclave(aws)


def examine(
    document: bytes,
    anchors: Anchors,
    now: int = NOW,
    collateral: dict[str, bytes] | None = None,
    **expected: bytes,
) -> Examined:
    return SCHEME.examine(
        Question({"document": document}, anchors, now, collateral or {}, Expected(**expected))
    )


def refused(found: Examined, *codes: str) -> Examined:
    assert found.authentic is False
    assert tuple(reason.code for reason in found.reasons) == codes
    return found


def of(vendor: NitroVendor, now: int = NOW) -> Examined:
    return examine(NitroEnclave(vendor).document(), vendor.anchors, now)


def changed(level: str, **facts: Any) -> Examined:
    vendor = NitroVendor(NOW)
    vendor.facts[level] |= facts
    return of(vendor)


def test_an_honest_document_is_authentic_and_bound_to_nothing(enclave: NitroEnclave) -> None:
    found = examine(enclave.document(), enclave.vendor.anchors)
    assert found.authentic is True
    assert found.bound is False
    assert [check.step for check in found.checks] == [
        "nitro 1 format",
        "nitro 2 root",
        "nitro 3 chain",
        "nitro 4 signature",
    ]
    assert all(check.ok is True for check in found.checks)
    assert found.not_after == NOW + LIFETIMES["enclave"][1]
    assert found.claims["module_id"] == enclave.module_id


def test_the_keys_below_the_root_can_be_named_in_a_deny_list(enclave: NitroEnclave) -> None:
    found = examine(enclave.document(), enclave.vendor.anchors)
    keys = []
    for level in ("enclave", "instance", "zone", "region"):
        key = x509.load_der_x509_certificate(enclave.vendor.chain[level]).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        keys.append(f"key:{hashlib.sha256(spki).hexdigest()}")
    assert found.identities == tuple(keys)


def test_what_does_not_parse_is_not_authentic_and_says_which_steps_did_not_run() -> None:
    found = refused(examine(b"\x00", NITRO), "evidence_malformed")
    assert [check.ok for check in found.checks] == [False, None]
    assert found.facts is None


def test_no_document_at_all_is_refused() -> None:
    refused(SCHEME.examine(Question({}, NITRO, NOW)), "evidence_malformed")


def test_the_root_of_another_vendor_is_no_anchor(enclave: NitroEnclave) -> None:
    refused(examine(enclave.document(), NITRO), "untrusted_root")


def test_a_hierarchy_rebuilt_under_the_same_names_is_refused(aws: NitroVendor) -> None:
    rebuilt = NitroVendor(NOW)
    found = examine(NitroEnclave(rebuilt).document(), aws.anchors)
    assert [x509.load_der_x509_certificate(der).subject for der in rebuilt.bundle] == [
        x509.load_der_x509_certificate(der).subject for der in aws.bundle
    ]
    refused(found, "untrusted_root")


def test_a_root_given_as_collateral_is_no_anchor(enclave: NitroEnclave) -> None:
    root = enclave.vendor.root
    refused(examine(enclave.document(), NITRO, collateral={"root": root}), "untrusted_root")
    refused(examine(enclave.document(), NONE, collateral={"root": root}), "untrusted_root")


def test_a_pinned_root_before_a_foreign_chain_does_not_vouch_for_it(aws: NitroVendor) -> None:
    foreign = NitroVendor(NOW)
    enclave = NitroEnclave(foreign)
    enclave.members["cabundle"] = [aws.root, *foreign.bundle[1:]]
    refused(examine(enclave.document(), aws.anchors), "untrusted_root")


def test_a_pinned_root_added_to_a_foreign_bundle_does_not_vouch_for_it(aws: NitroVendor) -> None:
    foreign = NitroVendor(NOW)
    enclave = NitroEnclave(foreign)
    enclave.members["cabundle"] = [aws.root, *foreign.bundle]
    refused(examine(enclave.document(), aws.anchors), "untrusted_root")


def test_a_bundle_in_the_other_order_is_refused(enclave: NitroEnclave) -> None:
    enclave.members["cabundle"] = enclave.vendor.bundle[::-1]
    refused(examine(enclave.document(), enclave.vendor.anchors), "untrusted_root", "chain_invalid")


def test_a_bundle_that_lacks_an_issuer_is_refused(enclave: NitroEnclave) -> None:
    root, region, zone, instance = enclave.vendor.bundle
    enclave.members["cabundle"] = [root, region, instance]
    refused(examine(enclave.document(), enclave.vendor.anchors), "chain_invalid")
    enclave.members["cabundle"] = [root, region, zone]
    refused(examine(enclave.document(), enclave.vendor.anchors), "chain_invalid")


def test_a_bundle_of_the_root_alone_vouches_for_nothing(enclave: NitroEnclave) -> None:
    enclave.members["cabundle"] = [enclave.vendor.root]
    refused(examine(enclave.document(), enclave.vendor.anchors), "untrusted_root")


def test_the_root_twice_in_a_bundle_is_refused(enclave: NitroEnclave) -> None:
    enclave.members["cabundle"] = [enclave.vendor.root, *enclave.vendor.bundle]
    refused(examine(enclave.document(), enclave.vendor.anchors), "chain_invalid")


def test_bytes_that_are_no_certificate_are_refused(enclave: NitroEnclave) -> None:
    enclave.members["certificate"] = b"\x30\x03\x02\x01\x00"
    refused(examine(enclave.document(), enclave.vendor.anchors), "chain_invalid", "chain_invalid")


@pytest.mark.parametrize("level", LEVELS)
def test_an_expired_certificate_anywhere_is_refused(level: str) -> None:
    refused(changed(level, start=-DAYS, end=-1), "certificate_not_valid_at_time")


@pytest.mark.parametrize("level", LEVELS)
def test_a_certificate_not_yet_valid_anywhere_is_refused(level: str) -> None:
    refused(changed(level, start=60, end=DAYS), "certificate_not_valid_at_time")


def test_a_document_is_good_to_the_last_second_of_its_certificate_and_no_longer(
    aws: NitroVendor,
) -> None:
    end = NOW + LIFETIMES["enclave"][1]
    assert of(aws, end).authentic is True
    refused(of(aws, end + 1), "certificate_not_valid_at_time")


def test_a_leaf_that_is_a_ca_is_refused() -> None:
    refused(changed("enclave", ca=True), "chain_invalid")


def test_a_leaf_that_may_not_sign_is_refused() -> None:
    refused(changed("enclave", digital_signature=False), "chain_invalid")


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_an_issuer_that_is_no_ca_is_refused(level: str) -> None:
    refused(changed(level, ca=False, path_length=None), "chain_invalid")


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_an_issuer_that_may_not_sign_certificates_is_refused(level: str) -> None:
    refused(changed(level, cert_sign=False), "chain_invalid")


@pytest.mark.parametrize("level", ["region", "zone"])
def test_a_path_longer_than_an_issuer_allows_is_refused(level: str) -> None:
    refused(changed(level, path_length=0), "chain_invalid")


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_certificate_signed_by_another_key_is_refused(level: str) -> None:
    found = changed(level, signer=ec.generate_private_key(ec.SECP384R1()))
    refused(found, "untrusted_root" if level == "region" else "chain_invalid")


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_certificate_of_another_issuers_name_is_refused(level: str) -> None:
    found = changed(level, issuer="somebody else")
    refused(found, "untrusted_root" if level == "region" else "chain_invalid")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA512()])
def test_a_certificate_signed_over_another_hash_is_refused(
    level: str, digest: hashes.HashAlgorithm
) -> None:
    refused(changed(level, hash=digest), "chain_invalid")


@pytest.mark.parametrize("level", ["region", "zone", "instance"])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_an_issuer_on_another_curve_is_refused(level: str, curve: ec.EllipticCurve) -> None:
    vendor = NitroVendor(NOW)
    vendor.keys[level] = ec.generate_private_key(curve)
    refused(of(vendor), "chain_invalid")


def test_an_issuer_with_an_rsa_key_is_refused() -> None:
    vendor = NitroVendor(NOW)
    key: Any = rsa.generate_private_key(65537, 2048)
    vendor.keys["instance"] = key
    enclave = NitroEnclave(vendor)
    refused(examine(enclave.document(), vendor.anchors), "chain_invalid")


def test_a_document_certificate_on_another_curve_is_refused() -> None:
    vendor = NitroVendor(NOW)
    vendor.keys["enclave"] = ec.generate_private_key(ec.SECP256R1())
    refused(of(vendor), "chain_invalid", "signature_invalid")


def test_a_document_signed_by_another_key_is_refused(enclave: NitroEnclave) -> None:
    enclave.signer = ec.generate_private_key(ec.SECP384R1())
    refused(examine(enclave.document(), enclave.vendor.anchors), "signature_invalid")


def test_a_document_signed_by_its_issuers_key_is_refused(enclave: NitroEnclave) -> None:
    enclave.signer = enclave.vendor.keys["instance"]
    refused(examine(enclave.document(), enclave.vendor.anchors), "signature_invalid")


def test_a_key_replaced_and_the_document_signed_again_is_refused(aws: NitroVendor) -> None:
    thief = NitroVendor(NOW)
    enclave = NitroEnclave(aws, signer=thief.keys["enclave"])
    enclave.members["certificate"] = thief.chain["enclave"]
    refused(examine(enclave.document(), aws.anchors), "chain_invalid")


@pytest.mark.parametrize("algorithm", [0, -7, -8, -36, -37, -257, 5, -65535])
def test_another_algorithm_is_refused(enclave: NitroEnclave, algorithm: int) -> None:
    enclave.headers[1] = algorithm
    refused(examine(enclave.document(), enclave.vendor.anchors), "signature_invalid")


def edited(enclave: NitroEnclave, r: int | None, s: int | None, swap: bool = False) -> Examined:
    def edit(signature: bytes) -> bytes:
        first = signature[:48] if r is None else r.to_bytes(48, "big")
        second = signature[48:] if s is None else s.to_bytes(48, "big")
        return second + first if swap else first + second

    enclave.signature_edit = edit
    return examine(enclave.document(), enclave.vendor.anchors)


@pytest.mark.parametrize("number", [0, ORDER, ORDER + 1, 2**384 - 1])
def test_a_signature_number_out_of_range_is_refused(enclave: NitroEnclave, number: int) -> None:
    refused(edited(enclave, number, None), "signature_invalid")
    refused(edited(enclave, None, number), "signature_invalid")


def test_a_signature_with_its_halves_swapped_is_refused(enclave: NitroEnclave) -> None:
    refused(edited(enclave, None, None, swap=True), "signature_invalid")


@pytest.mark.parametrize("size", [0, 1, 64, 95, 97, 132, 192])
def test_a_signature_of_another_length_is_refused(enclave: NitroEnclave, size: int) -> None:
    enclave.signature_edit = lambda signature: (signature + bytes(96))[:size]
    refused(examine(enclave.document(), enclave.vendor.anchors), "signature_invalid")


def test_a_signature_in_der_is_refused(enclave: NitroEnclave) -> None:
    data = cbor2.dumps(["Signature1", cbor2.dumps({1: -35}), b"", cbor2.dumps(enclave.payload())])
    der = enclave.vendor.keys["enclave"].sign(data, ec.ECDSA(hashes.SHA384()))
    enclave.signature_edit = lambda _: der
    refused(examine(enclave.document(), enclave.vendor.anchors), "signature_invalid")


def test_a_flipped_bit_in_any_signed_byte_is_refused(enclave: NitroEnclave) -> None:
    document = enclave.document()
    for at in range(len(document)):
        flipped = bytearray(document)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, AttestationError)):
            check_signature(parse_document(bytes(flipped)))


def test_the_signature_covers_the_header_as_received(enclave: NitroEnclave) -> None:
    payload = cbor2.dumps(enclave.payload())
    header = cbor2.dumps({1: -35})
    signature = enclave.sign(b"", payload)  # an empty header signed, a filled one shown
    document = enclave.envelope(header, payload, signature)
    refused(examine(document, enclave.vendor.anchors), "signature_invalid")


@pytest.mark.parametrize(
    ("member", "expectation", "code"),
    [
        ("nonce", "nonce", "nonce_mismatch"),
        ("user_data", "user_data", "user_data_mismatch"),
        ("user_data", "report_data", "report_data_mismatch"),
    ],
)
class TestMadeForSomebody:
    """What the relying party brought must be in the document, exactly."""

    def test_found_is_bound(
        self, enclave: NitroEnclave, member: str, expectation: str, code: str
    ) -> None:
        del code
        setattr(enclave, member, b"expected")
        found = examine(enclave.document(), enclave.vendor.anchors, **{expectation: b"expected"})
        assert found.authentic is True
        assert found.bound is True

    @pytest.mark.parametrize("value", [None, b"", b"other", b"expecte", b"expected "])
    def test_another_is_refused(
        self, enclave: NitroEnclave, member: str, expectation: str, code: str, value: bytes | None
    ) -> None:
        setattr(enclave, member, value)
        found = examine(enclave.document(), enclave.vendor.anchors, **{expectation: b"expected"})
        assert refused(found, code).bound is False

    def test_an_empty_expectation_proves_nothing(
        self, enclave: NitroEnclave, member: str, expectation: str, code: str
    ) -> None:
        setattr(enclave, member, b"")
        found = examine(enclave.document(), enclave.vendor.anchors, **{expectation: b""})
        assert refused(found, code).bound is False

    def test_in_another_member_it_does_not_count(
        self, enclave: NitroEnclave, member: str, expectation: str, code: str
    ) -> None:
        for name in {"nonce", "user_data", "public_key"} - {member}:
            setattr(enclave, name, b"expected")
        found = examine(enclave.document(), enclave.vendor.anchors, **{expectation: b"expected"})
        refused(found, code)


def test_all_that_is_expected_must_be_found_to_be_bound(enclave: NitroEnclave) -> None:
    enclave.nonce = b"nonce"
    found = examine(
        enclave.document(), enclave.vendor.anchors, nonce=b"nonce", report_data=bytes(64)
    )
    assert refused(found, "report_data_mismatch").bound is False


def test_nothing_needs_to_be_fetched(enclave: NitroEnclave) -> None:
    assert SCHEME.needs({"document": enclave.document()}) == ()
    assert SCHEME.needs({}) == ()


@settings(max_examples=200)
@given(document=st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(cbor2.dumps)))
def test_no_bytes_make_an_examination_raise(document: bytes) -> None:
    assert examine(document, NITRO).authentic is False
