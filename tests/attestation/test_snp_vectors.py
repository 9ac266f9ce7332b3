"""Reports that genuine AMD platforms made: expected claims, verdicts and reasons, and no bit more.

The samples come from $ANCHORHOLD_VECTORS (index.json, kind `amd-sev-snp-report`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from simulators.amd import Amd

from attestation.anchors import AMD, AMD_GENOA, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.pem import certificate
from attestation.formats.snp import REPORT_LEN, SIGNED_LEN, parse_report
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.rules.snp import KEYS
from attestation.schemes.snp import KIND, SCHEME
from attestation.verify.snp import verify_signature
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

STRICT = {
    "products": ["Milan", "Genoa", "Turin"],
    "min_tcb": {"Milan": {}, "Genoa": {}, "Turin": {}},
    "image": "any",
    "signer": ["vcek", "vlek"],
    "csp_in": "any",
    "vmpl": {"max": 3},
    "smt": True,
    "migrate_ma": True,
    "cxl_allowed": True,
    "require": ["alias_check_complete"],
    "revocation": "as_supplied",
}
GENOA, MILAN, TURIN = "snp-genoa-v3", "snp-milan-v3", "snp-turin-v5"
OLD, VLEK, KEY_BOUND = "snp-milan-v2-old-firmware", "snp-milan-v3-vlek", "snp-milan-v5-key-bound"


@dataclass(frozen=True)
class Sample:
    """One vector: its files by role, when it holds, and what is expected of it."""

    files: Mapping[str, bytes]
    now: int
    expected: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def question(self, now: int | None = None, **roles: bytes) -> Question:
        files = {**self.files, **roles}
        return Question(
            evidence={"report": files.pop("report")},
            anchors=AMD,
            now=self.now if now is None else now,
            collateral=files,
        )

    def examine(self, now: int | None = None, **roles: bytes) -> Examined:
        return SCHEME.examine(self.question(now, **roles))


def sample(vectors: Mapping[str, Any], name: str) -> Sample:
    vector = vectors[name]
    return Sample(
        {role: (vectors["root"] / path).read_bytes() for role, path in vector["files"].items()},
        int(datetime.fromisoformat(vector["verify_at"]).timestamp()),
        vector["expected"],
        vector["inputs"],
    )


def codes(found: Examined) -> set[str]:
    return {reason.code for reason in found.reasons}


def judged(found: Examined, demands: Mapping[str, Any]) -> Ledger:
    required, optional = KEYS
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, SCHEME.rule(members), 0)
    return ledger


def test_every_sample_gives_its_verdicts_a_reason_and_exactly_its_claims(
    vectors: dict[str, Any],
) -> None:
    names = [name for name, v in vectors.items() if name != "root" and v["kind"] == KIND]
    assert len(names) >= 11
    for name in names:
        one = sample(vectors, name)
        found = one.examine()
        ledger = judged(found, STRICT)
        assert found.authentic is one.expected["authentic"], name
        accepted = found.authentic and ledger.accepted
        assert accepted is (one.expected["strict"] == "accept"), name
        reasons = codes(found) | {reason.code for reason in ledger.reasons}
        assert bool(reasons) is (not accepted), name
        assert not one.expected["reasons"] or reasons & set(one.expected["reasons"]), name
        for claim, value in one.expected["claims"].items():
            assert found.claims[claim] == value, (name, claim)


def test_an_honest_sample_has_every_step_passed_and_the_certificates_end(
    vectors: dict[str, Any],
) -> None:
    one = sample(vectors, GENOA)
    found = one.examine()
    assert [check.step.split()[1] for check in found.checks] == [
        *("1", "2", "3", "4", "6", "7", "8", "9", "10")
    ]
    assert all(check.ok for check in found.checks)
    end = datetime.fromisoformat(vectors[GENOA]["valid_window"]["not_after"])
    assert found.not_after == int(end.timestamp())


def test_identities_are_the_chip_and_the_certified_key(vectors: dict[str, Any]) -> None:
    found = sample(vectors, TURIN).examine()
    chip = found.claims["chip_id"]
    key = found.identities[-1].removeprefix("key:")
    assert found.identities[:2] == (f"chip_id:{chip}", f"chip_id:{chip[:16]}")
    assert len(bytes.fromhex(key)) == 32
    assert [i.partition(":")[0] for i in sample(vectors, VLEK).examine().identities] == ["key"]


def test_a_flipped_bit_in_any_byte_is_refused(vectors: dict[str, Any]) -> None:
    one = sample(vectors, MILAN)
    raw = one.files["report"]
    leaf = load_certificate(certificate(one.files["endorsement_cert"], "VCEK"))
    assert verify_signature(parse_report(raw), leaf)
    for at in range(REPORT_LEN):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, AttestationError)):
            verify_signature(parse_report(bytes(flipped)), leaf)


def test_a_flipped_bit_in_each_field_is_not_authentic(vectors: dict[str, Any]) -> None:
    one = sample(vectors, GENOA)
    for at in (*range(0, SIGNED_LEN, 16), 0x2A0, 0x2E8, 0x4A0 - 1):
        flipped = bytearray(one.files["report"])
        flipped[at] ^= 1
        assert one.examine(report=bytes(flipped)).authentic is False, hex(at)


def test_r_and_s_swapped_is_refused(vectors: dict[str, Any]) -> None:
    one = sample(vectors, GENOA)
    raw = one.files["report"]
    swapped = raw[:0x2A0] + raw[0x2E8:0x330] + raw[0x2A0:0x2E8] + raw[0x330:]
    assert codes(one.examine(report=swapped)) == {"signature_invalid"}


def test_a_certificate_of_another_chip_is_refused(vectors: dict[str, Any]) -> None:
    other = sample(vectors, OLD).files["endorsement_cert"]
    found = sample(vectors, MILAN).examine(endorsement_cert=other)
    assert {"chip_id_mismatch", "signature_invalid"} <= codes(found)


def test_a_chain_of_another_product_is_refused(vectors: dict[str, Any]) -> None:
    genoa = sample(vectors, GENOA).files
    found = sample(vectors, MILAN).examine(ca=genoa["ca"], root=genoa["root"])
    assert codes(found) == {"chain_invalid", "product_mismatch"}


def test_the_intermediate_of_another_product_is_refused(vectors: dict[str, Any]) -> None:
    found = sample(vectors, MILAN).examine(root=sample(vectors, GENOA).files["root"])
    assert "chain_invalid" in codes(found)


def test_the_intermediate_for_vleks_does_not_vouch_for_a_chip(vectors: dict[str, Any]) -> None:
    found = sample(vectors, MILAN).examine(ca=sample(vectors, VLEK).files["ca"])
    assert codes(found) == {"chain_invalid"}


def test_a_vlek_where_the_report_says_vcek_is_refused(vectors: dict[str, Any]) -> None:
    vlek = sample(vectors, VLEK).files
    found = sample(vectors, MILAN).examine(endorsement_cert=vlek["endorsement_cert"], ca=vlek["ca"])
    assert "signing_key_mismatch" in codes(found)


def test_a_look_alike_root_is_refused(vectors: dict[str, Any]) -> None:
    fake = Amd("Genoa")
    assert codes(sample(vectors, GENOA).examine(root=fake.root)) == {"untrusted_root"}
    found = sample(vectors, GENOA).examine(root=fake.root, ca=fake.ask)
    assert codes(found) == {"untrusted_root"}
    found = sample(vectors, GENOA).examine(ca=fake.ask)  # with AMD's own root beside it
    assert codes(found) == {"chain_invalid"}


def test_a_root_that_this_rule_does_not_pin_is_refused(vectors: dict[str, Any]) -> None:
    question = sample(vectors, MILAN).question()
    narrowed = Question(question.evidence, AMD_GENOA, question.now, question.collateral)
    assert codes(SCHEME.examine(narrowed)) == {"untrusted_root"}
    nothing = Question(question.evidence, Anchors(frozenset()), question.now, question.collateral)
    assert codes(SCHEME.examine(nothing)) == {"untrusted_root"}


@pytest.mark.parametrize("role", ["endorsement_cert", "ca", "root"])
def test_a_missing_certificate_is_a_reason_and_no_pass(vectors: dict[str, Any], role: str) -> None:
    question = sample(vectors, GENOA).question()
    rest = {name: data for name, data in question.collateral.items() if name != role}
    found = SCHEME.examine(Question(question.evidence, AMD, question.now, rest))
    assert found.authentic is False
    # An intermediate alone is a candidate for the root, and no pinned one.
    expected = "untrusted_root" if role == "root" else "collateral_missing"
    assert expected in codes(found)


@pytest.mark.parametrize("bound", ["not_before", "not_after"])
def test_a_certificate_outside_its_time_is_refused(vectors: dict[str, Any], bound: str) -> None:
    edge = datetime.fromisoformat(vectors[GENOA]["valid_window"][bound])
    step = -1 if bound == "not_before" else 1
    one = sample(vectors, GENOA)
    assert one.examine(now=int(edge.timestamp())).authentic is True
    found = one.examine(now=int(edge.timestamp()) + step)
    assert codes(found) == {"certificate_not_valid_at_time"}


def test_certificates_come_as_der_or_pem_and_in_one_file(vectors: dict[str, Any]) -> None:
    one = sample(vectors, GENOA)
    pem = {
        role: x509.load_der_x509_certificate(one.files[role]).public_bytes(Encoding.PEM)
        for role in ("ca", "root")
    }
    assert one.examine(**pem).authentic is True
    both = one.question(ca=pem["ca"] + pem["root"])
    rest = {role: data for role, data in both.collateral.items() if role != "root"}
    assert SCHEME.examine(Question(both.evidence, AMD, both.now, rest)).authentic is True
    vcek = certificate(one.files["endorsement_cert"], "VCEK")
    assert one.examine(endorsement_cert=vcek).authentic is True
    crlf = one.files["endorsement_cert"].replace(b"\n", b"\r\n")
    assert one.examine(endorsement_cert=crlf).authentic is True


def test_report_data_binds_the_sample_to_nonce_and_key(vectors: dict[str, Any]) -> None:
    one = sample(vectors, KEY_BOUND)
    nonce, key = (bytes.fromhex(one.inputs[f"{k}_hex"]) for k in ("nonce", "x25519_public"))
    question = one.question()

    def ask(report_data: bytes) -> Examined:
        expected = Expected(report_data=report_data)
        return SCHEME.examine(
            Question(question.evidence, AMD, one.now, question.collateral, expected)
        )

    right = ask(hashlib.sha512(nonce + key).digest())
    assert right.authentic is True
    assert right.bound
    for wrong in (
        hashlib.sha512(bytes(32) + key).digest(),  # another nonce
        hashlib.sha512(nonce + bytes(32)).digest(),  # another key
        hashlib.sha512(nonce).digest(),
        hashlib.sha512(nonce + key).digest()[:63],
    ):
        found = ask(wrong)
        assert codes(found) == {"report_data_mismatch"}
        assert not found.bound


def test_a_report_bound_to_nothing_binds_to_nothing(vectors: dict[str, Any]) -> None:
    one = sample(vectors, GENOA)  # its report data is zero
    assert not one.examine().bound
    question = one.question()
    for expected, code in (
        (Expected(report_data=bytes(64)), "report_data_mismatch"),
        (Expected(nonce=b""), "nonce_mismatch"),
        (Expected(nonce=b"\1" * 32), "nonce_mismatch"),
    ):
        found = SCHEME.examine(
            Question(question.evidence, AMD, one.now, question.collateral, expected)
        )
        assert codes(found) == {code}
        assert not found.bound


def test_needs_name_what_amd_is_asked_for(vectors: dict[str, Any]) -> None:
    one = sample(vectors, TURIN)
    found = SCHEME.needs({"report": one.files["report"]})
    assert [(need.role, need.key, need.required) for need in found] == [
        ("endorsement_cert", "vcek/Turin/59790fb1c39f35c1/1.1.1.4.81", True),
        ("ca", "chain/vcek/Turin", True),
        ("crl", "crl/vcek/Turin", False),
    ]
    vlek = SCHEME.needs({"report": sample(vectors, VLEK).files["report"]})
    assert [need.key for need in vlek] == ["chain/vlek/Milan", "crl/vlek/Milan"]
    assert SCHEME.needs({"report": sample(vectors, OLD).files["report"]}) == ()
    assert SCHEME.needs({}) == ()
