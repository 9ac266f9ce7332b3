"""Intel's own evidence: every published sample gives its expected verdict, reasons and claims.

The samples come from $ANCHORHOLD_VECTORS (kinds `intel-tdx-quote` and `intel-sgx-quote`). A second,
independent verifier (`oracles.dcap`) must agree on each, and on each mutation of one.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from oracles import dcap as oracle

from attestation.anchors import INTEL
from attestation.examined import Expected, Question
from attestation.formats.dcap_quote import parse_quote
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import sgx, tdx
from attestation.verify.dcap_quote import (
    TD_QE_ISVPRODID,
    TD_QE_MRSIGNER,
    check_td_quoting_enclave,
)
from wire.errors import PolicyError

if TYPE_CHECKING:
    from attestation.examined import Examined
    from attestation.scheme import Scheme

SCHEMES = {scheme.kind: scheme for scheme in (tdx.SCHEME, sgx.SCHEME)}
STRICT = {tdx.KIND: {"image": "any"}, sgx.KIND: {"enclave": "any"}}
SAMPLES = (
    "sgx-v3-config-sw-hardening", "sgx-v3-debug-outofdate", "tdx-v4-azure-sept-ve-off",
    "tdx-v4-collateral-expired", "tdx-v4-debug", "tdx-v4-fmspc-mismatch", "tdx-v4-lookalike-root",
    "tdx-v4-no-tcb-level", "tdx-v4-outofdate-00806f", "tdx-v4-outofdate-00a06d",
    "tdx-v4-sgx-qe-identity", "tdx-v4-uptodate-b0c06f", "tdx-v4-uptodate-gcp-cos113",
    "tdx-v5-no-tcb-level", "tdx-v5-uptodate-90c06f", "tdx-v5-uptodate-90c06f-later",
)  # fmt: skip
GENUINE = ("sgx-v3-config-sw-hardening", "tdx-v4-azure-sept-ve-off", "tdx-v5-uptodate-90c06f")


class Sample:
    """One sample as a question, whose parts a test may replace."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.vector = vectors[name]
        self.scheme: Scheme = SCHEMES[self.vector["kind"]]
        files = self.vector["files"].items()
        self.files = {role: (vectors["root"] / path).read_bytes() for role, path in files}
        self.quote = self.files.pop("quote")
        self.now = int(datetime.fromisoformat(self.vector["verify_at"]).timestamp())
        self.root = x509.load_pem_x509_certificate(self.files["root"]).public_bytes(Encoding.DER)

    def examine(self, quote: bytes | None = None, **collateral: bytes) -> Examined:
        return self.scheme.examine(
            Question(
                evidence={"quote": self.quote if quote is None else quote},
                anchors=INTEL,
                now=self.now,
                collateral={**self.files, **collateral},
            )
        )

    def judge(self, examined: Examined) -> Ledger:
        required, optional = self.scheme.rule_keys
        members = Members(
            STRICT[self.scheme.kind],
            "strict",
            required=required,
            optional=optional,
            error=PolicyError,
        )
        ledger = Ledger()
        self.scheme.judge(ledger, examined.facts, self.scheme.rule(members), self.now)
        return ledger

    def oracle(self, quote: bytes | None = None) -> oracle.Verdict | None:
        """The independent verdict, None for not genuine."""
        try:
            members = json.loads(self.files["collateral"])
            return oracle.verify(
                self.quote if quote is None else quote, members, self.root, self.now
            )
        except oracle.Rejected:
            return None


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_gives_its_expected_verdict_reasons_and_claims(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    expected = sample.vector["expected"]
    examined = sample.examine()
    ledger = sample.judge(examined)
    assert examined.authentic is expected["authentic"]
    accepted = examined.authentic is True and ledger.accepted
    assert accepted is (expected["strict"] == "accept")
    codes = {reason.code for reason in (*examined.reasons, *ledger.reasons)}
    assert codes.issuperset(expected["reasons"])
    assert bool(codes) is not accepted
    different = {
        claim: examined.claims.get(claim)
        for claim, value in expected["claims"].items()
        if examined.claims.get(claim) != value
    }
    assert not different
    json.dumps(dict(examined.claims))  # claims can be sent on


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "tdx-v4-lookalike-root"])
def test_the_independent_verifier_agrees_on_every_sample(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    verdict, examined = sample.oracle(), sample.examine()
    assert (verdict is not None) is examined.authentic
    if verdict is not None:
        claims = examined.claims
        assert verdict.status == claims["tcb_status"]
        assert verdict.platform == claims["platform_tcb_status"]
        assert verdict.module == claims["tdx_module_status"]
        assert verdict.qe == claims["qe_tcb_status"]
        assert sorted(verdict.advisories) == claims["advisory_ids"]


@pytest.mark.parametrize("name", GENUINE)
def test_both_verifiers_refuse_a_flipped_bit_anywhere_in_a_quote(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    end = len(sample.quote) - sample.examine().claims["trailing_bytes"]
    pem = sample.quote.index(b"-----BEGIN")
    # Every part, one bit in 29 bytes; the PEM text has bytes (white space) that mean nothing.
    for at in (*range(0, pem, 29), *range(pem + 100, end, 331)):
        mutated = bytearray(sample.quote)
        mutated[at] ^= 1 << at % 8
        refused = sample.examine(bytes(mutated))
        assert refused.authentic is False, at
        assert sample.oracle(bytes(mutated)) is None, at


@pytest.mark.parametrize("name", GENUINE)
def test_a_flipped_bit_in_any_member_of_the_collateral_is_refused(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    members = json.loads(sample.files["collateral"])
    for member, text in members.items():
        if member == "pck_crl_issuer_chain":
            continue  # informative: the CRL is verified with the quote's own chain
        for at in range(200 % len(text), len(text), max(1, len(text) // 5)):
            character = "0" if text[at] != "0" else "1"
            changed = {**members, member: text[:at] + character + text[at + 1 :]}
            refused = sample.examine(collateral=json.dumps(changed).encode())
            assert refused.authentic is False, (member, at)


def test_genuine_quote_is_refused_under_another_root(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "tdx-v4-uptodate-b0c06f")
    look_alike = Sample(vectors, "tdx-v4-lookalike-root").files["other_root"]
    assert sample.examine(root=look_alike).authentic is True  # carried along, never an anchor
    fake = Sample(vectors, "tdx-v4-lookalike-root")
    examined = fake.examine(root=look_alike)
    assert "untrusted_root" in {reason.code for reason in examined.reasons}


def test_trailing_bytes_that_are_not_zero_are_refused(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "tdx-v4-uptodate-b0c06f")
    examined = sample.examine(sample.quote[:-1] + b"\x01")
    assert [reason.code for reason in examined.reasons] == ["trailing_bytes"]
    assert examined.claims["trailing_bytes"] == 70


def test_genuine_quote_without_collateral_says_what_is_missing(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "tdx-v4-uptodate-b0c06f")
    del sample.files["collateral"]
    examined = sample.examine()
    assert [reason.code for reason in examined.reasons] == ["collateral_missing"]
    (need,) = sample.scheme.needs({"quote": sample.quote})
    assert (need.role, need.source) == ("collateral", "intel-pcs")
    assert need.key == "collateral/tdx/b0c06f000000/platform"


@pytest.mark.parametrize("name", SAMPLES)
def test_what_intel_signed_of_its_tds_enclave_is_what_is_known_without_it(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    if sample.scheme is not tdx.SCHEME or "collateral" not in sample.files:
        return
    identity = json.loads(json.loads(sample.files["collateral"])["qe_identity"])
    known = (TD_QE_MRSIGNER.hex(), TD_QE_ISVPRODID)
    same = (identity["mrsigner"].lower(), identity["isvprodid"]) == known
    assert same is (identity["id"] == "TD_QE")
    assert check_td_quoting_enclave(parse_quote(sample.quote)).startswith("Intel's for TDs")


def test_an_sgx_quote_without_collateral_is_not_genuine(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "sgx-v3-config-sw-hardening")
    del sample.files["collateral"]
    examined = sample.examine()
    assert examined.authentic is False
    assert [reason.code for reason in examined.reasons] == ["collateral_missing"]


def test_processor_ca_is_asked_for_by_an_sgx_quote_under_it(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "sgx-v3-config-sw-hardening")
    (need,) = sample.scheme.needs({"quote": sample.quote})
    assert need.key == "collateral/sgx/00a067110000/processor"


def test_report_data_binds_only_when_it_was_asked_for_and_found(vectors: dict[str, Any]) -> None:
    sample = Sample(vectors, "tdx-v4-uptodate-b0c06f")
    held = bytes.fromhex(sample.vector["expected"]["claims"]["report_data"])

    def asked(expected: bytes | None) -> Examined:
        question = Question(
            {"quote": sample.quote}, INTEL, sample.now, sample.files, Expected(expected)
        )
        return sample.scheme.examine(question)

    assert asked(None).bound is False
    assert asked(held).bound is True
    refused = asked(held[:-1] + b"\x00")
    assert [reason.code for reason in refused.reasons] == ["report_data_mismatch"]
    assert refused.bound is False
