"""`tpm2-quote`: who vouches for an attestation key, up to a pinned root, and who revokes it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509 import load_der_x509_certificate
from simulators.verdicts import codes_of
from simulators.vtpm import ISSUER_SERIAL, LEAF_SERIAL, NOW, Vtpm, VtpmMaker, ec_key, rsa_key
from simulators.vtpm_verdicts import MAKER, examine, measured

from attestation.anchors import NONE
from attestation.schemes.tpm_quote import SCHEME

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_intermediate_may_be_pem() -> None:
    pem = load_der_x509_certificate(MAKER.issuer).public_bytes(Encoding.PEM)
    assert (
        codes_of(examine(measured().evidence(), collateral=MAKER.collateral(intermediate=pem)))
        == []
    )


def test_a_chain_rebuilt_under_a_root_of_the_same_name_is_refused() -> None:
    other = VtpmMaker("look-alike")
    tpm = Vtpm(other)
    assert codes_of(examine(tpm.evidence())) == ["chain_invalid"]
    assert codes_of(examine(tpm.evidence(), collateral=other.collateral())) == ["untrusted_root"]
    both = {"root": MAKER.root, "intermediate": other.issuer}
    assert codes_of(examine(tpm.evidence(), collateral=both)) == ["untrusted_root"]


def test_a_root_that_only_the_collateral_brings_is_no_anchor() -> None:
    assert codes_of(examine(measured().evidence(), anchors=NONE)) == ["untrusted_root"]


def test_an_intermediate_is_no_anchor() -> None:
    leaf = MAKER.certificate("vTPM root", "vTPM root", MAKER.root_key, MAKER.root_key, ca=False)
    assert codes_of(examine(measured(cert=leaf).evidence())) != []
    collateral = {"root": MAKER.issuer, "intermediate": MAKER.issuer}
    assert codes_of(examine(measured().evidence(), collateral=collateral)) == ["untrusted_root"]


def test_evidence_has_no_place_for_trust() -> None:
    roles = {*SCHEME.evidence[0], *SCHEME.evidence[1]}
    assert roles.isdisjoint(SCHEME.collateral)
    assert "ak_spki" in SCHEME.collateral
    assert not SCHEME.anchors.pins


def test_a_key_that_the_evidence_states_is_not_thereby_trusted() -> None:
    tpm = measured()
    evidence = {**tpm.evidence(ak_cert=None), "ak_spki": tpm.spki}
    assert codes_of(examine(evidence)) == ["collateral_missing"]


def test_another_key_than_the_trusted_one_is_refused() -> None:
    tpm, other = measured(), measured(key=ec_key("other"))
    examined = examine(tpm.evidence(ak_cert=None), collateral={"ak_spki": other.spki})
    assert codes_of(examined) == ["ak_mismatch", "signature_invalid"]


def test_a_trusted_key_beside_a_certificate_must_be_the_certified_one() -> None:
    tpm, other = measured(), measured(key=ec_key("other"))
    collateral = MAKER.collateral(ak_spki=other.spki)
    assert codes_of(examine(tpm.evidence(), collateral=collateral)) == ["unknown_signing_key"]
    collateral = MAKER.collateral(ak_spki=tpm.spki)
    assert codes_of(examine(tpm.evidence(), collateral=collateral)) == []


def test_a_certificate_beside_a_trusted_key_needs_no_root() -> None:
    tpm, other = measured(), measured(key=ec_key("other"))
    for collateral in ({}, {"intermediate": MAKER.issuer}):
        found = examine(
            tpm.evidence(), anchors=NONE, collateral={**collateral, "ak_spki": tpm.spki}
        )
        assert codes_of(found) == []
        assert found.facts.key.certified is False
        asked = {**collateral, "ak_spki": other.spki}
        assert "unknown_signing_key" in codes_of(examine(tpm.evidence(), collateral=asked))


def test_a_list_of_what_is_revoked_makes_the_certificate_count_again() -> None:
    tpm = measured()
    collateral = {"ak_spki": tpm.spki, "crl_intermediate": MAKER.crl()}
    assert codes_of(examine(tpm.evidence(), collateral=collateral)) == ["collateral_missing"]


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"\x30",
        bytes(2000),
        measured(key=ec.generate_private_key(ec.SECP521R1())).spki,
        measured(key=rsa.generate_private_key(65537, 1024)).spki,
    ],
    ids=["nothing", "cut", "long", "p521", "rsa1024"],
)
def test_a_trusted_key_no_tpm_signs_with_is_refused(spki: bytes) -> None:
    examined = examine(measured().evidence(ak_cert=None), collateral={"ak_spki": spki})
    assert codes_of(examined) == ["unknown_signing_key"]


def _pem(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", [ec_key("attestation"), rsa_key("attestation")])
def test_a_trusted_key_may_be_pem_as_tools_print_it(key: Any) -> None:
    tpm = measured(key=key)
    lines = _pem(tpm.spki)
    for text in (lines, lines.replace(b"\n", b"\r\n"), b"\n" + lines + b"\n"):
        examined = examine(tpm.evidence(ak_cert=None), collateral={"ak_spki": text})
        assert codes_of(examined) == []
        assert examined.identities == (f"key:{hashlib.sha256(tpm.spki).hexdigest()}",)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + text,
        lambda text: text + b"a comment",
        lambda text: b"a comment\n" + text,
        lambda text: text.replace(b"PUBLIC", b"PRIVATE"),
        lambda text: text[:-30],
        lambda text: text.replace(b"M", b"!", 1),
        lambda _: b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        lambda _: b"-----BEGIN PUBLIC KEY-----",
    ],
    ids=["two", "after", "before", "private", "cut", "not base64", "empty", "no end"],
)
def test_text_that_is_not_one_pem_key_is_refused(change: Callable[[bytes], bytes]) -> None:
    tpm = measured()
    collateral = {"ak_spki": change(_pem(tpm.spki))}
    examined = examine(tpm.evidence(ak_cert=None), collateral=collateral)
    assert codes_of(examined) == ["unknown_signing_key"]


@pytest.mark.parametrize("missing", ["root", "intermediate"])
def test_a_chain_with_a_gap_is_refused(missing: str) -> None:
    collateral = {role: der for role, der in MAKER.collateral().items() if role != missing}
    code = {"root": "collateral_missing", "intermediate": "untrusted_root"}[missing]
    assert codes_of(examine(measured().evidence(), collateral=collateral)) == [code]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"ca": True}, "chain_invalid"),
        ({"eku": None}, "chain_invalid"),
        ({"eku": "1.3.6.1.5.5.7.3.1"}, "chain_invalid"),
        ({"signs": False}, "chain_invalid"),
        ({"start": 60}, "certificate_not_valid_at_time"),
        ({"end": -60}, "certificate_not_valid_at_time"),
        ({"extension": ("1.3.6.1.4.1.11129.2.1.21", True)}, "chain_invalid"),
    ],
)
def test_a_certificate_for_something_else_is_refused(facts: dict[str, Any], code: str) -> None:
    cert = MAKER.certify(ec_key("attestation"), **facts)
    assert codes_of(examine(measured(cert=cert).evidence())) == [code]


def test_an_extension_that_names_the_instance_is_no_hindrance() -> None:
    cert = MAKER.certify(
        ec_key("attestation"), extension=("1.3.6.1.4.1.11129.2.1.21", False), eku="2.23.133.8.1"
    )
    assert codes_of(examine(measured(cert=cert).evidence())) == []


def test_lists_that_revoke_nothing_pass_and_end_the_verdict() -> None:
    lists = {"crl_intermediate": MAKER.crl(), "crl_root": MAKER.crl("root", end=3600)}
    examined = examine(measured().evidence(), collateral=MAKER.collateral(**lists))
    assert codes_of(examined) == []
    assert examined.not_after == NOW + 3600
    assert examined.facts.key.revocation_checked


@pytest.mark.parametrize(
    ("role", "of", "facts", "code"),
    [
        ("crl_intermediate", "issuer", {"revoked": [LEAF_SERIAL]}, "revoked"),
        ("crl_root", "root", {"revoked": [ISSUER_SERIAL]}, "revoked"),
        ("crl_intermediate", "issuer", {"end": -60}, "crl_expired"),
        ("crl_intermediate", "root", {}, "crl_invalid"),
        ("crl_root", "issuer", {}, "crl_invalid"),
    ],
)
def test_a_list_that_is_brought_is_enforced(
    role: str, of: str, facts: dict[str, Any], code: str
) -> None:
    collateral = MAKER.collateral(**{role: MAKER.crl(of, **facts)})
    assert codes_of(examine(measured().evidence(), collateral=collateral)) == [code]


def test_a_list_that_no_certificate_of_the_chain_could_be_on_is_refused() -> None:
    cert = MAKER.certificate(
        "", "vTPM root", ec_key("attestation"), MAKER.root_key, ca=False, eku="2.23.133.8.3"
    )
    evidence = measured(cert=cert).evidence()
    short = {"root": MAKER.root, "crl_intermediate": MAKER.crl("root")}
    examined = examine(evidence, collateral=short)
    assert (codes_of(examined), examined.facts.key.revocation_checked) == ([], True)
    longer = {**short, "crl_root": MAKER.crl("root")}
    assert codes_of(examine(evidence, collateral=longer)) == ["crl_invalid"]


def test_a_list_in_hex_is_refused() -> None:
    collateral = MAKER.collateral(crl_intermediate=MAKER.crl().hex().encode())
    assert codes_of(examine(measured().evidence(), collateral=collateral)) == ["crl_invalid"]


def test_a_forged_quote_is_told_from_one_whose_certificate_has_ended() -> None:
    """A client passes over the one, and ends at the other."""
    tpm = measured()
    ended = MAKER.certify(tpm.key, end=-60)
    evidence = tpm.evidence(ak_cert=ended)
    assert codes_of(examine(evidence)) == ["certificate_not_valid_at_time"]
    forged = bytearray(evidence["quote_sig"])
    forged[-1] ^= 1
    found = codes_of(examine({**evidence, "quote_sig": bytes(forged)}))
    assert found == ["certificate_not_valid_at_time", "signature_invalid"]
    assert codes_of(examine({**evidence, "ak_cert": b"\x30\x00"})) == ["chain_invalid"]
