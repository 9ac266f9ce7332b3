"""Steps 12 to 14: who vouches for a TPM's keys, and what they may sign. One fact changed a test."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from simulators.tee import NOW, refused
from simulators.tpm import DAY, TpmMaker, TpmTee, rsa_key

from attestation.result import AppraisedEvidence
from wire.ids import sha256_tag

EK_USAGE = "2.23.133.8.1"
OTHER = sha256_tag(b"something else")


@pytest.fixture
def tee() -> TpmTee:
    return TpmTee()


# ---------------------------------------------------------------- step 12


def test_step_12_refuses_a_look_alike_root(tee: TpmTee) -> None:
    """Same names, same layout, all signatures right, another key at the top."""
    tee.maker = TpmMaker(NOW)
    tee.chain = [tee.maker.issuer]
    refused(tee.appraise(), "untrusted_root")


def test_step_12_never_takes_an_anchor_from_the_evidence(tee: TpmTee) -> None:
    tee.maker = TpmMaker(NOW)
    tee.chain = [tee.maker.issuer, tee.maker.root]
    refused(tee.appraise(), "untrusted_root")


def test_step_12_accepts_the_pinned_root_repeated_in_the_chain(tee: TpmTee) -> None:
    tee.chain = [tee.maker.issuer, tee.maker.root]
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_step_12_refuses_a_chain_without_its_intermediate(tee: TpmTee) -> None:
    tee.chain = []
    refused(tee.appraise(), "untrusted_root")


def test_step_12_refuses_a_chain_with_a_stranger_in_it(tee: TpmTee) -> None:
    tee.chain = [TpmMaker(NOW, "stranger").issuer, tee.maker.issuer]
    refused(tee.appraise(), "chain_invalid")


def test_step_12_refuses_bytes_that_are_no_certificate(tee: TpmTee) -> None:
    tee.chain = [b"0\x82\x01"]
    refused(tee.appraise(), "chain_invalid")


@pytest.mark.parametrize(
    "facts",
    [
        {"ca": True},
        {"eku": None},
        {"eku": "1.3.6.1.5.5.7.3.1"},
        {"critical": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")},
    ],
    ids=["is-a-ca", "no-usage", "web-usage", "unknown-critical"],
)
def test_step_12_refuses_a_certificate_that_is_no_endorsement(
    tee: TpmTee, facts: dict[str, object]
) -> None:
    tee.endorsement = dict(facts)
    refused(tee.appraise(), "chain_invalid")


def test_step_12_refuses_a_link_signed_with_sha1(tee: TpmTee) -> None:
    """The library makes none, so one is cut: same certificate, SHA-1 named, signed again."""
    maker = tee.maker
    weak_key = rsa_key("weak issuer")
    weak = maker.certificate("weak issuer", "maker root", weak_key, maker.root_key)
    made = maker.certificate("", "weak issuer", tee.ek_key, weak_key, ca=False, eku=EK_USAGE)
    sha256_rsa, sha1_rsa = (bytes.fromhex("2a864886f70d0101" + last) for last in ("0b", "05"))
    loaded = x509.load_der_x509_certificate(made)
    assert made.count(sha256_rsa) == 2
    body = loaded.tbs_certificate_bytes.replace(sha256_rsa, sha1_rsa)
    signature = weak_key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    forged = made.replace(sha256_rsa, sha1_rsa).replace(loaded.signature, signature)
    tee.chain = [weak]
    tee.body["ek_cert"] = made
    assert isinstance(tee.appraise(), AppraisedEvidence)
    tee.body["ek_cert"] = forged
    refused(tee.appraise(), "chain_invalid")


@pytest.mark.parametrize(("start", "end"), [(1, DAY), (-DAY, -1)], ids=["not-yet-valid", "expired"])
def test_step_12_refuses_a_certificate_outside_its_time(tee: TpmTee, start: int, end: int) -> None:
    tee.endorsement = {"start": start, "end": end}
    refused(tee.appraise(), "certificate_not_valid_at_time")


@pytest.mark.parametrize(
    "facts",
    [{"ca": False}, {"cert_sign": False}],
    ids=["not-a-ca", "may-not-sign"],
)
def test_step_12_refuses_an_intermediate_that_may_not_certify(
    tee: TpmTee, facts: dict[str, bool]
) -> None:
    maker = tee.maker
    issuer = maker.certificate(
        "maker issuer", "maker root", maker.issuer_key, maker.root_key, **facts
    )
    tee.chain = [issuer]
    refused(tee.appraise(), "chain_invalid")


def test_step_12_refuses_an_expired_intermediate(tee: TpmTee) -> None:
    maker = tee.maker
    tee.chain = [
        maker.certificate("maker issuer", "maker root", maker.issuer_key, maker.root_key, end=-1)
    ]
    refused(tee.appraise(), "certificate_not_valid_at_time")


def test_step_12_refuses_a_chain_longer_than_a_ca_allows(tee: TpmTee) -> None:
    maker = tee.maker
    upper_key = ec.generate_private_key(ec.SECP256R1())
    upper = maker.certificate("upper", "maker root", upper_key, maker.root_key, path_length=0)
    issuer = maker.certificate("maker issuer", "upper", maker.issuer_key, upper_key)
    tee.chain = [issuer, upper]
    refused(tee.appraise(), "chain_invalid")


# ---------------------------------------------------------------- steps 13 and 14


def test_step_13_refuses_an_endorsement_key_its_certificate_does_not_name(tee: TpmTee) -> None:
    tee.ek_certified = rsa_key("another ek")
    refused(tee.appraise(), "ek_mismatch")


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 17], ids=lambda bit: f"bit{bit}")
def test_step_13_refuses_an_endorsement_key_without_a_needed_attribute(
    tee: TpmTee, bit: int
) -> None:
    tee.ek_attributes ^= 1 << bit
    refused(tee.appraise(), "ek_attributes")


@pytest.mark.parametrize(
    "bit", [1, 4, 5, 16], ids=["fixedTPM", "fixedParent", "origin", "restricted"]
)
def test_step_14_refuses_an_attestation_key_without_a_needed_attribute(
    tee: TpmTee, bit: int
) -> None:
    tee.ak_attributes ^= 1 << bit
    refused(tee.appraise(), "ak_attributes")


def test_step_14_refuses_an_attestation_key_that_decrypts_too(tee: TpmTee) -> None:
    tee.ak_attributes |= 1 << 17
    refused(tee.appraise(), "ak_attributes")


def test_step_14_refuses_a_storage_key_as_attestation_key(tee: TpmTee) -> None:
    tee.ak_attributes ^= 1 << 18
    refused(tee.appraise(), "ak_attributes", "signature_invalid")
