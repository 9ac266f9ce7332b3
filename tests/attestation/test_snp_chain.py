"""AMD's chain: every certificate fact that makes it another chain is refused, one at a time.

The certificates are a simulated AMD's, with real keys; each test changes one fact and re-signs.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from simulators.amd import DAY, NOW, Amd, integer, rsa_key, text
from simulators.snp_report import table
from simulators.verdicts import codes

from attestation.anchors import Anchors
from attestation.examined import Question
from attestation.formats.pem import encode
from attestation.schemes.snp import SCHEME


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd("Genoa")


def with_leaf(amd: Amd, **lies: Any) -> set[str]:
    return codes(SCHEME.examine(amd.question(amd.chip(**lies).evidence())))


def with_ask(amd: Amd, **lies: Any) -> set[str]:
    ask = amd.authority("SEV-Genoa", amd.ask_key, **lies)
    return codes(SCHEME.examine(amd.question(amd.chip().evidence(), amd.collateral(ca=ask))))


def with_roles(amd: Amd, **roles: bytes) -> set[str]:
    return codes(SCHEME.examine(amd.question(amd.chip().evidence(), amd.collateral(**roles))))


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("signer", ["vcek", "vlek"])
def test_an_honest_chain_of_each_product_and_signer_is_accepted(product: str, signer: str) -> None:
    maker = Amd(product)
    chip = maker.chip() if signer == "vcek" else maker.provider()
    found = SCHEME.examine(maker.question(chip.evidence(), maker.collateral(signer)))
    assert found.reasons == ()
    assert found.authentic is True
    assert found.not_after == NOW + 365 * DAY


def test_the_attestation_key_replaced_and_the_report_signed_again_is_refused(amd: Amd) -> None:
    other = amd.chip()
    evidence = {**amd.chip().evidence(), "report": other.report()}
    assert codes(SCHEME.examine(amd.question(evidence))) == {"signature_invalid"}


def test_the_whole_chain_rebuilt_with_the_same_names_is_refused(amd: Amd) -> None:
    fake = Amd("Genoa", owner="mallory")
    question = amd.question(fake.chip().evidence(), fake.collateral())
    assert codes(SCHEME.examine(question)) == {"untrusted_root"}
    beside = {"ca": fake.ask, "root": amd.root}
    assert codes(SCHEME.examine(amd.question(fake.chip().evidence(), beside))) == {"chain_invalid"}


def test_a_root_in_the_hosts_table_never_becomes_an_anchor(amd: Amd) -> None:
    fake = Amd("Genoa", owner="mallory")
    chip = fake.chip()
    blob = table({"vcek": chip.cert, "ask": fake.ask, "ark": fake.root})
    evidence = {"report": chip.report(), "auxblob": blob}
    assert codes(SCHEME.examine(amd.question(evidence, {}))) == {"untrusted_root"}
    assert codes(SCHEME.examine(amd.question(evidence))) == {"chain_invalid"}


@pytest.mark.parametrize("signer", ["vcek", "vlek"])
def test_an_honest_table_saves_fetching_certificates(amd: Amd, signer: str) -> None:
    chip = amd.chip() if signer == "vcek" else amd.provider()
    middle = amd.ask if signer == "vcek" else amd.asvk
    blob = table({signer: chip.cert, "ask": middle, "ark": amd.root})
    evidence = {"report": chip.report(), "auxblob": blob}
    assert SCHEME.examine(amd.question(evidence, {})).authentic is True


def test_a_certificate_may_come_with_its_chain_below_it(amd: Amd) -> None:
    chip = amd.chip()
    whole = b"".join(map(_pem, (chip.cert, amd.ask, amd.root)))
    evidence = {"report": chip.report(), "endorsement_cert": whole}
    assert SCHEME.examine(amd.question(evidence, {})).authentic is True
    turned = b"".join(map(_pem, (amd.root, amd.ask, chip.cert)))
    found = SCHEME.examine(amd.question({**evidence, "endorsement_cert": turned}, {}))
    assert found.authentic is False


def test_a_broken_table_is_refused(amd: Amd) -> None:
    evidence = {**amd.chip().evidence(), "auxblob": b"\1" * 100}
    assert codes(SCHEME.examine(amd.question(evidence))) == {"certificate_malformed"}


def test_two_pinned_roots_are_no_choice_of_product(amd: Amd) -> None:
    turin = Amd("Turin")
    anchors = Anchors(amd.anchors.pins | turin.anchors.pins, simulated=True)
    roots = {"ca": b"".join(map(_pem, (amd.ask, amd.root))), "root": turin.root}
    found = SCHEME.examine(Question(amd.chip().evidence(), anchors, NOW, roots))
    assert [(reason.step, reason.code) for reason in found.reasons] == [
        ("snp 2 root", "chain_invalid")
    ]
    assert found.facts.product is None
    one = SCHEME.examine(Question(amd.chip().evidence(), anchors, NOW, {**roots, "root": amd.root}))
    assert one.authentic is True


def test_no_certificate_at_all_is_missing_collateral(amd: Amd) -> None:
    found = SCHEME.examine(amd.question({"report": amd.chip().report()}, {}))
    assert [(reason.step, reason.code) for reason in found.reasons] == [
        ("snp 2 root", "collateral_missing"),
        ("snp 3 certificate", "collateral_missing"),
    ]
    assert [check.step for check in found.checks if check.ok is None] == [
        "snp 4 chain",
        "snp 6-9",
        "snp 10 signature",
    ]


def test_a_pinned_root_that_names_no_product_is_refused(amd: Amd) -> None:
    root = amd.authority("ARK-Rome", amd.root_key, issuer="ARK-Rome")
    amd_rome = Anchors(frozenset({hashlib.sha256(root).digest()}), simulated=True)
    question = Question(amd.chip().evidence(), amd_rome, NOW, {"ca": amd.ask, "root": root})
    assert codes(SCHEME.examine(question)) == {"untrusted_root"}


def test_a_leaf_that_is_a_ca_is_refused(amd: Amd) -> None:
    assert with_leaf(amd, ca=True) == {"chain_invalid"}


def test_a_leaf_of_another_name_is_refused(amd: Amd) -> None:
    assert with_leaf(amd, subject="SEV-VLEK") == {"chain_invalid"}


def test_a_leaf_signed_by_the_root_itself_is_refused(amd: Amd) -> None:
    assert with_leaf(amd, signer=amd.root_key, issuer="ARK-Genoa") == {"chain_invalid"}


def test_a_leaf_signed_by_the_key_for_vleks_is_refused(amd: Amd) -> None:
    assert with_leaf(amd, signer=amd.asvk_key) == {"chain_invalid"}
    chip = amd.chip(signer=amd.asvk_key, issuer="SEV-VLEK-Genoa")
    question = amd.question(chip.evidence(), amd.collateral("vlek"))
    assert codes(SCHEME.examine(question)) == {"chain_invalid"}  # an ASVK vouches for no chip


@pytest.mark.parametrize("signer", ["vcek", "vlek"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_look_alike_beside_the_intermediate_changes_nothing(
    amd: Amd, signer: str, place: int
) -> None:
    """A host could put one there, and so refuse service to a worker that is what it says."""
    genuine, named, key = {
        "vcek": (amd.ask, "SEV-Genoa", amd.ask_key),
        "vlek": (amd.asvk, "SEV-VLEK-Genoa", amd.asvk_key),
    }[signer]
    mallory = rsa_key("mallory ask")
    of_another_key = amd.authority(named, mallory, signer=mallory)
    of_another_root = amd.authority(named, key, signer=mallory)
    ended = amd.authority(named, key, end=-1)
    unread = amd.authority("anybody", mallory, extensions={"99": b"\x05\x00"}, critical=True)
    chip = amd.chip() if signer == "vcek" else amd.provider()
    for look_alike in (of_another_key, of_another_root, ended, unread):
        both = [look_alike, look_alike]
        both[place] = genuine
        for collateral in (
            amd.collateral(signer, ca=encode(both)),
            {"ca": both[0], "root": amd.root, "endorsement_cert": encode((chip.cert, both[1]))},
        ):
            found = SCHEME.examine(amd.question(chip.evidence(), collateral))
            assert found.reasons == ()
            assert found.facts.endorsement is not None
            assert found.not_after == NOW + 365 * DAY


def test_look_alikes_alone_are_refused_for_what_the_first_of_them_is(amd: Amd) -> None:
    other = amd.authority("SEV-Genoa", rsa_key("mallory ask"))
    ended = amd.authority("SEV-Genoa", amd.ask_key, end=-1)
    assert with_roles(amd, ca=encode((other, ended))) == {"chain_invalid"}
    assert with_roles(amd, ca=encode((ended, other))) == {"certificate_not_valid_at_time"}


@pytest.mark.parametrize(
    "lies",
    [{"salt": 32}, {"digest": hashes.SHA256(), "salt": 32}, {"digest": hashes.SHA512()},
     {"pss": False}],
    ids=["salt", "sha256", "sha512", "pkcs1"],
)  # fmt: skip
def test_other_signature_parameters_than_amds_are_refused(amd: Amd, lies: dict[str, Any]) -> None:
    assert with_leaf(amd, **lies) == {"chain_invalid"}
    assert with_ask(amd, **lies) == {"chain_invalid"}


def test_a_leaf_certified_by_an_elliptic_curve_key_is_refused(amd: Amd) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    ask = amd.authority("SEV-Genoa", key)
    chip = amd.chip(signer=key, digest=hashes.SHA384())
    found = SCHEME.examine(amd.question(chip.evidence(), amd.collateral(ca=ask)))
    assert codes(found) == {"chain_invalid"}


def test_a_short_issuers_key_is_refused(amd: Amd) -> None:
    key = rsa.generate_private_key(65537, 2048)
    ask = amd.authority("SEV-Genoa", key)
    found = SCHEME.examine(amd.question(amd.chip(signer=key).evidence(), amd.collateral(ca=ask)))
    assert codes(found) == {"chain_invalid"}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()], ids=["p256", "p521"])
def test_an_endorsement_key_on_another_curve_is_refused(amd: Amd, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    assert with_leaf(amd, key=key.public_key()) == {"chain_invalid", "signature_invalid"}


def test_an_endorsement_key_that_is_rsa_is_refused(amd: Amd) -> None:
    key = rsa_key("amd ask").public_key()
    assert with_leaf(amd, key=key) == {"chain_invalid", "signature_invalid"}


def test_an_intermediate_that_is_no_ca_is_refused(amd: Amd) -> None:
    assert with_ask(amd, constraints=False) == {"chain_invalid"}


def test_an_intermediate_that_may_not_sign_certificates_is_refused(amd: Amd) -> None:
    assert with_ask(amd, cert_sign=False) == {"chain_invalid"}


def test_an_intermediate_that_the_root_did_not_sign_is_refused(amd: Amd) -> None:
    assert with_ask(amd, signer=amd.asvk_key) == {"chain_invalid"}


@pytest.mark.parametrize("lies", [{"end": -1}, {"start": 1}], ids=["expired", "not yet valid"])
def test_a_certificate_outside_its_time_is_refused(amd: Amd, lies: dict[str, int]) -> None:
    assert with_leaf(amd, **lies) == {"certificate_not_valid_at_time"}
    assert with_ask(amd, **lies) == {"certificate_not_valid_at_time"}


@pytest.mark.parametrize("role", ["endorsement_cert", "ca", "root"])
def test_bytes_that_are_no_certificate_are_refused(amd: Amd, role: str) -> None:
    for raw in (b"0\x82\1\0" + bytes(256), b"-----BEGIN CERTIFICATE-----", b"\0"):
        found = SCHEME.examine(amd.question(amd.chip().evidence(), {**amd.collateral(), role: raw}))
        assert found.authentic is False
        assert codes(found) <= {"chain_invalid", "certificate_malformed", "untrusted_root"}


AMD_FACTS = [
    ("1", integer(2)),  # an unknown structure
    ("2", integer(1)),  # of another type
    ("2", text("Genoa") + b"\0"),
    ("3.1", b"\2\2\0\12"),  # not the shortest form
    ("3.1", b"\2\1\x80"),  # negative
    ("3.1", b"\2\2\1\0"),  # 256
    ("3.8", b""),
    ("3.8", text("84")),
    ("3.5", integer(1)),  # a component that reports do not show
    ("3.10", integer(0)),  # and one this version does not know
    ("4", bytes(63)),
    ("4", b"\2\x40" + bytes(64)),
    ("5", text("CN=cloud.example")),  # beside a hardware id
    ("6", integer(0)),
]


@pytest.mark.parametrize(("oid", "der"), AMD_FACTS)
def test_an_extension_of_amds_that_is_not_as_specified_is_refused(
    amd: Amd, oid: str, der: bytes
) -> None:
    honest = amd.extensions((10, 0, 23, 84), hwid=amd.chip().facts.chip_id)
    assert with_leaf(amd, extensions={**honest, oid: der}) == {"certificate_malformed"}


@pytest.mark.parametrize("oid", ["1", "2", "3.1", "3.2", "3.3", "3.8", "4"])
def test_an_extension_of_amds_that_is_missing_is_refused(amd: Amd, oid: str) -> None:
    honest = amd.extensions((10, 0, 23, 84), hwid=amd.chip().facts.chip_id)
    del honest[oid]
    assert with_leaf(amd, extensions=honest) == {"certificate_malformed"}


def test_a_hardware_id_may_stand_in_an_octet_string(amd: Amd) -> None:
    chip = amd.chip().facts.chip_id
    honest = amd.extensions((10, 0, 23, 84), hwid=b"\4\x40" + chip)
    assert with_leaf(amd, extensions=honest) == set()


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_who_signed_is_said_of_a_certificate_without_amds_extensions_too(amd: Amd) -> None:
    forged = Amd("Genoa", owner="mallory").chip(extensions={}).cert
    honest = amd.chip().evidence()
    found = codes(SCHEME.examine(amd.question({**honest, "endorsement_cert": forged})))
    assert found == {"certificate_malformed", "chain_invalid", "signature_invalid"}


def test_a_ca_file_holds_the_three_certificates_that_amd_has_and_no_fourth(amd: Amd) -> None:
    three = (amd.ask, amd.asvk, amd.root)
    assert with_roles(amd, ca=encode(three)) == set()
    assert "certificate_malformed" in with_roles(amd, ca=encode((*three, amd.ask)))
    assert with_roles(amd, root=encode((amd.root,))) == set()
    assert "certificate_malformed" in with_roles(amd, root=encode((amd.root, amd.ask)))


def test_an_endorsement_file_holds_the_certificate_and_three_more(amd: Amd) -> None:
    chip = amd.chip()
    four = (chip.cert, amd.ask, amd.asvk, amd.root)
    found = []
    for file in (encode(four), encode((*four, amd.ask))):
        question = amd.question({"report": chip.report()}, {"endorsement_cert": file})
        found.append(codes(SCHEME.examine(question)))
    assert found[0] == set()
    assert "certificate_malformed" in found[1]


def padded(amd: Amd, size: int) -> bytes:
    """The intermediate with an extension that nobody reads, of so many bytes in all."""
    filled = 0
    for _ in range(4):
        der = amd.authority(
            "SEV-Genoa", amd.ask_key, serial=7, extensions={"99": b"\4\x82" + bytes(filled + 2)}
        )
        filled += size - len(der)
    assert len(der) == size
    return der


@pytest.mark.parametrize("alone", [True, False])
def test_a_certificate_of_four_kibibytes_is_read_and_one_byte_more_is_not(
    amd: Amd, alone: bool
) -> None:
    beside = () if alone else (amd.asvk,)
    assert "certificate_malformed" not in with_roles(amd, ca=encode((padded(amd, 4096), *beside)))
    assert "certificate_malformed" in with_roles(amd, ca=encode((padded(amd, 4097), *beside)))


@pytest.mark.parametrize("early", [0, 60])
@pytest.mark.parametrize("skew", [0, 60])
def test_amds_list_may_be_ahead_by_the_questions_skew(amd: Amd, early: int, skew: int) -> None:
    question = amd.question(amd.chip().evidence(), amd.collateral(crl=amd.crl(start=early)))
    found = codes(SCHEME.examine(replace(question, skew=skew)))
    assert found == (set() if early <= skew else {"crl_not_yet_valid"})
