"""Single steps at their very limits: where one more, or one less, would be another verdict."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier
from simulators.amd import Amd
from simulators.tokens import Authority, Issuer
from simulators.tpm import AK_ATTRIBUTES, EK_ATTRIBUTES, TpmTee, public_area, rsa_key

from attestation.anchors import NONE, Anchors
from attestation.formats.jwks import parse_jwk, parse_keys
from attestation.formats.pem import CERTIFICATE_MAX
from attestation.formats.software import LABEL, SoftwareStatement
from attestation.formats.tpm_structures import parse_public
from attestation.schemes.snp import SCHEME as SNP
from attestation.verify.credential import Credential, make_credential
from attestation.verify.crl import check_crl, check_dates, load_crl
from attestation.verify.signing_key import SigningKey, check_standing, load_key
from attestation.verify.software import verify_statement
from attestation.verify.tpm import check_attestation_key
from attestation.verify.tpm_key import load_spki
from attestation.verify.x509 import check_path, load_certificate, verify_chain
from wire.errors import AttestationError, MalformedError
from wire.ids import b64u

NOW = 1_790_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
TEE = TpmTee()


def reason(caught: pytest.ExceptionInfo[AttestationError]) -> str:
    (code,) = caught.value.reasons
    return code


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: str, issuer: str, *, ca: bool = True, serial: int = 7, end: int = 100, **more: Any
) -> bytes:
    """One by `KEY`, for `KEY`: what counts here are names and extensions."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(more.get("key", KEY).public_key())
        .serial_number(serial)
        .not_valid_before(at(-100))
        .not_valid_after(at(end))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usages := more.get("eku"):
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(more.get("signer", KEY), hashes.SHA256()).public_bytes(Encoding.DER)


def chain(length: int) -> list[bytes]:
    """A leaf, and so many intermediates above it, the last one issued by "0"."""
    leaf = certificate("leaf", str(length), ca=False)
    return [leaf, *(certificate(str(n), str(n - 1)) for n in range(length, 0, -1))]


# --- certificate chains


def test_six_intermediates_are_a_chain_and_seven_are_not() -> None:
    root = certificate("0", "0")
    leaf, *between = chain(6)
    assert verify_chain(leaf, between, [root], NOW)[1] == NOW + 100
    leaf, *between = chain(7)
    with pytest.raises(AttestationError, match="found 7 intermediates") as caught:
        verify_chain(leaf, between, [root], NOW)
    assert reason(caught) == "chain_invalid"


def test_the_wanted_usage_may_stand_beside_others() -> None:
    wanted, other = (ObjectIdentifier(text) for text in ("2.23.133.8.1", "1.3.6.1.5.5.7.3.2"))
    leaf = certificate("leaf", "0", ca=False, eku=[other, wanted])
    assert verify_chain(leaf, [], [certificate("0", "0")], NOW, wanted.dotted_string)


def test_a_path_whose_certificates_do_not_sign_each_other_is_refused() -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    root = load_certificate(certificate("0", "0", key=stranger, signer=stranger))
    leaf = load_certificate(certificate("leaf", "0", ca=False))
    with pytest.raises(AttestationError, match="not signed by the next") as caught:
        check_path((leaf, root), NOW)
    assert reason(caught) == "chain_invalid"


def test_a_certificate_with_a_serial_number_below_zero_loads_without_a_warning() -> None:
    der = certificate("a", "a", serial=0x7001).replace(b"\x02\x02\x70\x01", b"\x02\x02\xf0\x01")
    assert load_certificate(der).subject == name("a")


# --- revocation lists


def revocations(
    *extensions: tuple[x509.ExtensionType, bool],
    signer: Any = KEY,
    digest: Any = None,
    entry: x509.RevokedCertificate | None = None,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name("0"))
        .last_update(at(-100))
        .next_update(at(100))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    if entry is not None:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer, digest).public_bytes(Encoding.DER)


def of_size(size: int) -> bytes:
    """A list of exactly so many bytes; Ed25519, whose signatures are all of one length."""
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    filler = size
    for _ in range(4):
        extension = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), bytes(filler))
        entry = x509.RevokedCertificateBuilder().serial_number(9).revocation_date(at(0))
        der = revocations(signer=signer, entry=entry.add_extension(extension, False).build())
        filler += size - len(der)
    assert len(der) == size
    return der


def test_a_list_of_one_mebibyte_is_read_and_one_byte_more_is_not() -> None:
    assert load_crl(of_size(1024 * 1024)).issuer == name("0")
    with pytest.raises(AttestationError, match="expected DER of at most 1048576") as caught:
        load_crl(of_size(1024 * 1024 + 1))
    assert reason(caught) == "crl_invalid"


def test_an_extension_is_refused_only_if_it_is_critical_and_unknown() -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for known in ((unknown, False), (x509.CRLNumber(7), True)):
        assert load_crl(revocations(known, digest=hashes.SHA256())).issuer == name("0")
    with pytest.raises(AttestationError, match="found 1 unknown critical"):
        load_crl(revocations((unknown, True), digest=hashes.SHA256()))


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()], ids=["short", "sha3"])
def test_a_list_signed_with_another_hash_is_refused_though_its_signature_holds(
    digest: hashes.HashAlgorithm,
) -> None:
    issuer = load_certificate(certificate("0", "0"))
    with pytest.raises(AttestationError, match="with SHA-2") as caught:
        check_crl(revocations(digest=digest), issuer, (), NOW)
    assert reason(caught) == "crl_invalid"


def test_a_list_that_never_ends_is_refused() -> None:
    der = bytearray(revocations(digest=hashes.SHA256()))
    end = b"\x17\x0d" + at(100).strftime("%y%m%d%H%M%SZ").encode()
    where = der.index(end)
    del der[where : where + len(end)]
    # The two lengths that enclose the second time, of the list (0x81 L) and of what is signed.
    assert (der[0], der[1], der[3]) == (0x30, 0x81, 0x30)
    der[2] -= len(end)
    der[4] -= len(end)
    with pytest.raises(AttestationError, match="no next update") as caught:
        check_dates(load_crl(bytes(der)), NOW)
    assert reason(caught) == "crl_invalid"


# --- keys


def test_the_root_that_signed_a_statement_is_named() -> None:
    first, second = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
    roots = [key.public_key().public_bytes_raw() for key in (first, second)]
    statement = SoftwareStatement(b"", "", {}, 0, b"{}", second.sign(LABEL + b"{}"))
    assert verify_statement(statement, roots) == roots[1]


def test_an_attestation_key_that_signs_with_sha1_is_refused() -> None:
    area = public_area(TEE.ak_key, AK_ATTRIBUTES)
    sha1 = area.replace(bytes.fromhex("0018000b"), bytes.fromhex("00180004"))
    with pytest.raises(AttestationError, match="SHA-2") as caught:
        check_attestation_key(parse_public(sha1))
    assert reason(caught) == "ak_attributes"


def test_a_key_the_relying_party_brought_is_not_a_certified_one() -> None:
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert load_spki(der).certified is False


@pytest.mark.parametrize(("member", "limit"), [("blob", 1024), ("secret", 1024), ("ak", 66)])
def test_a_part_of_a_credential_has_a_greatest_length(member: str, limit: int) -> None:
    parts = dict.fromkeys(("blob", "secret", "ak", "ek"), b64u(b"x"))
    assert Credential.from_json({**parts, member: b64u(bytes(limit))})
    with pytest.raises(MalformedError):
        Credential.from_json({**parts, member: b64u(bytes(limit + 1))})


def test_the_seed_of_a_credential_is_as_long_as_its_hash() -> None:
    drawn: list[int] = []

    def rng(length: int) -> bytes:
        drawn.append(length)
        return bytes(length)

    make_credential(public_area(rsa_key("ek"), EK_ATTRIBUTES), b"\x00\x0b", bytes(32), rng)
    assert drawn == [32]


# --- AMD


def test_the_account_of_a_report_names_key_product_and_firmware() -> None:
    amd = Amd("Genoa")
    found = SNP.examine(amd.question(amd.chip().evidence(), amd.collateral("vcek")))
    told = {check.step: check.detail for check in found.checks}
    assert told["snp 6 signing key"] == "vcek"
    assert told["snp 7 product"] == "Genoa"
    assert told["snp 9 tcb"] == "bootloader 10, tee 0, snp 23, microcode 84"


# --- keys of token issuers


def rsa_jwk(bits: int, exponent: int) -> dict[str, str]:
    """A public key of that many bits; no private one is needed to judge its size."""
    n = (1 << bits) - 1
    size = (exponent.bit_length() + 7) // 8
    return {
        "kty": "RSA",
        "n": b64u(n.to_bytes((bits + 7) // 8, "big")),
        "e": b64u(exponent.to_bytes(size, "big")),
    }


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 65_537), (8192, 65_537), (2048, 2**32 - 1)])
def test_rsa_keys_at_the_limits_load(bits: int, exponent: int) -> None:
    assert load_key(parse_jwk(rsa_jwk(bits, exponent)))


@pytest.mark.parametrize(
    ("bits", "exponent"),
    [(2047, 65_537), (8193, 65_537), (2048, 65_535), (2048, 2**32 + 1)],
    ids=["short", "long", "exponent small", "exponent large"],
)
def test_rsa_keys_beyond_the_limits_do_not(bits: int, exponent: int) -> None:
    with pytest.raises(AttestationError) as caught:
        load_key(parse_jwk(rsa_jwk(bits, exponent)))
    assert reason(caught) == "key_invalid"


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(1024)],
    ids=["another curve", "another kind"],
)
def test_a_pem_key_that_no_accepted_algorithm_uses_is_refused(key: Any) -> None:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(AttestationError) as caught:
        load_key(parse_keys(pem).keys[0])
    assert reason(caught) == "key_invalid"


def standing(*x5c: bytes, anchors: Anchors = NONE) -> int:
    issuer = Issuer("ES256")
    issuer.key = KEY
    jwk = issuer.jwk(x5c=[base64.b64encode(der).decode() for der in x5c])
    keys = parse_keys(json.dumps({"keys": [jwk]}).encode())
    return check_standing(load_key(keys.keys[0]), anchors, NOW)


def test_a_key_sets_chain_of_three_holds_until_its_first_end() -> None:
    leaf, middle = certificate("leaf", "1", ca=False), certificate("1", "0", end=50)
    assert standing(leaf, middle, certificate("0", "0")) == NOW + 50


def test_a_key_sets_chain_whose_end_has_expired_does_not_hold() -> None:
    leaf, middle = certificate("leaf", "1", ca=False), certificate("1", "0")
    with pytest.raises(AttestationError) as caught:
        standing(leaf, middle, certificate("0", "0", end=-1))
    assert reason(caught) == "certificate_not_valid_at_time"


def test_a_key_sets_chain_holds_up_to_the_certificate_that_is_pinned() -> None:
    leaf, middle = certificate("leaf", "1", ca=False), certificate("1", "0", end=50)
    root = certificate("0", "0", end=-1)  # what stands above a pin vouches for nothing
    pins = Anchors(frozenset({hashlib.sha256(middle).digest()}))
    assert standing(leaf, middle, root, anchors=pins) == NOW + 50
    both = Anchors(frozenset({*pins.pins, hashlib.sha256(root).digest()}))
    assert standing(leaf, middle, root, anchors=both) == NOW + 50
    stray = certificate("leaf", "2", ca=False)
    with pytest.raises(AttestationError) as caught:
        standing(stray, middle, root, anchors=pins)
    assert reason(caught) == "untrusted_root"


def test_a_pin_of_the_leaf_alone_leaves_the_chain_to_be_checked() -> None:
    leaf, root = certificate("leaf", "0", ca=False), certificate("0", "0", end=-1)
    pins = Anchors(frozenset({hashlib.sha256(leaf).digest()}))
    with pytest.raises(AttestationError) as caught:
        standing(leaf, root, anchors=pins)
    assert reason(caught) == "certificate_not_valid_at_time"


def test_a_certificate_longer_than_any_vendors_is_refused_unread() -> None:
    usages = [ObjectIdentifier(f"1.2.3.{number}") for number in range(3000)]
    long = certificate("leaf", "0", ca=False, eku=usages)
    assert len(long) > CERTIFICATE_MAX
    with pytest.raises(AttestationError, match="expected ≤ 16384") as caught:
        load_certificate(long)
    assert reason(caught) == "chain_invalid"


def test_a_chain_holds_from_its_first_to_its_last_second() -> None:
    leaf, root = certificate("leaf", "0", ca=False), certificate("0", "0")
    for now in (NOW - 100, NOW + 100):
        assert verify_chain(leaf, (), [root], now)[1] == NOW + 100
    for now in (NOW - 101, NOW + 101):
        with pytest.raises(AttestationError) as caught:
            verify_chain(leaf, (), [root], now)
        assert reason(caught) == "certificate_not_valid_at_time"


def test_a_single_certificate_of_a_key_set_holds_to_its_first_and_last_second() -> None:
    issuer = Issuer("ES256")
    for start, end in ((NOW, NOW + 9), (NOW - 9, NOW)):
        der = Authority().issue(issuer, start, end)
        spki = issuer.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key = SigningKey(issuer.key.public_key(), ("ES256",), spki, (der,))
        assert check_standing(key, NONE, NOW) == end
