"""Documents that real enclaves made: the expected claims and verdicts, and one changed fact each.

The samples come from $ANCHORHOLD_VECTORS (index.json, kind `aws-nitro-document`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.examined import Examined, Expected, Question
from attestation.formats.nitro import parse_document
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nitro import SCHEME
from wire.errors import AttestationError, MalformedError, PolicyError

KIND = "aws-nitro-document"
STRICT = {"image": "any", "max_age_s": "any"}
PRODUCTION = "nitro-production-nonce"
BOUND = "nitro-tls-key-bound"


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


class Sample:
    """One vector: its bytes, its time, what the relying party brings."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.vector = vectors[name]
        self.document = (vectors["root"] / self.vector["files"]["document"]).read_bytes()
        self.now = seconds(self.vector["verify_at"])
        self.expected: dict[str, bytes] = {}
        certificate = self.vector["inputs"].get("tls_certificate_der_hex")
        if certificate is not None:
            key = x509.load_der_x509_certificate(bytes.fromhex(certificate)).public_key()
            spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.expected["user_data"] = spki

    def examine(self, **changes: Any) -> Examined:
        document = changes.pop("document", self.document)
        now = changes.pop("now", self.now)
        expected = Expected(**{**self.expected, **changes})
        return SCHEME.examine(
            Question({"document": document}, SCHEME.anchors, now, expected=expected)
        )

    def judge(self, found: Examined) -> tuple[str, ...]:
        required, optional = SCHEME.rule_keys
        members = Members(STRICT, "rule", required=required, optional=optional, error=PolicyError)
        ledger = Ledger()
        SCHEME.judge(ledger, found.facts, SCHEME.rule(members), self.now)
        return tuple(reason.code for reason in ledger.reasons)


def samples(vectors: dict[str, Any]) -> list[Sample]:
    names = [name for name, vector in vectors.items() if name != "root" and vector["kind"] == KIND]
    assert names
    return [Sample(vectors, name) for name in names]


def test_every_sample_gives_its_expected_verdict_and_claims(vectors: dict[str, Any]) -> None:
    for sample in samples(vectors):
        expected = sample.vector["expected"]
        found = sample.examine()
        codes = (*(reason.code for reason in found.reasons), *sample.judge(found))
        assert found.authentic is expected["authentic"], sample.vector["id"]
        assert bool(codes) is (expected["strict"] == "reject"), sample.vector["id"]
        assert set(codes) & set(expected["reasons"]) or not expected["reasons"]
        assert {key: found.claims.get(key) for key in expected["claims"]} == expected["claims"]


def test_a_real_document_ends_with_its_certificate(vectors: dict[str, Any]) -> None:
    for sample in samples(vectors):
        end = seconds(sample.vector["valid_window"]["not_after"])
        begin = seconds(sample.vector["valid_window"]["not_before"])
        assert sample.examine(now=begin).authentic is True
        assert sample.examine(now=end).not_after == end
        for now in (begin - 1, end + 1):
            codes = [reason.code for reason in sample.examine(now=now).reasons]
            assert codes == ["certificate_not_valid_at_time"]


def test_a_real_document_is_made_for_its_own_nonce_only(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, PRODUCTION)
    nonce = bytes.fromhex(sample.vector["expected"]["claims"]["nonce"])
    assert sample.examine(nonce=nonce).bound is True
    found = sample.examine(nonce=bytes([nonce[0] ^ 1]) + nonce[1:])
    assert [reason.code for reason in found.reasons] == ["nonce_mismatch"]
    assert found.bound is False


def test_a_real_document_bound_to_a_tls_key_is_refused_for_another(
    vectors: dict[str, Any],
) -> None:
    sample = Sample(vectors, BOUND)
    assert sample.examine().bound is True
    key = sample.expected["user_data"]
    found = sample.examine(user_data=key[:-1] + bytes([key[-1] ^ 1]))
    assert [reason.code for reason in found.reasons] == ["user_data_mismatch"]


def test_a_real_document_with_a_flipped_bit_is_refused(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, PRODUCTION)
    honest = parse_document(sample.document)
    for at in range(0, len(sample.document), 3):
        flipped = bytearray(sample.document)
        flipped[at] ^= 1 << at % 8
        try:
            assert parse_document(bytes(flipped)) != honest
        except MalformedError:
            continue
        found = sample.examine(document=bytes(flipped))
        assert found.authentic is False


def test_the_document_of_one_enclave_does_not_take_the_signature_of_another(
    vectors: dict[str, Any],
) -> None:
    first, second = Sample(vectors, PRODUCTION), Sample(vectors, BOUND)
    mixed = first.document[:-96] + second.document[-96:]
    found = first.examine(document=mixed)
    assert [reason.code for reason in found.reasons] == ["signature_invalid"]


def test_a_real_document_carries_no_worker_measurement(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, PRODUCTION)
    assert SCHEME.carries is not None
    with pytest.raises(AttestationError) as caught:
        SCHEME.carries(sample.examine().facts, bytes(32))
    assert caught.value.reasons == ("pcr_missing",)
