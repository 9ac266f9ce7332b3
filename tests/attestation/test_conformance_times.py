"""The time of a sample's verdict: stated, it is nobody's clock; null, it plays no part."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from simulators.corim import CorimPublisher
from simulators.nras import NrasService
from simulators.nvidia import Nvidia
from simulators.tokens import Issuer
from simulators.vendor_samples import QUOTE, changed, needs_samples, sample
from simulators.vtpm import DAY, NONCE, NOW, Vtpm, VtpmMaker

from attestation.conformance.index import parse_index
from attestation.conformance.run import run_sample
from attestation.examined import FOREVER, Question
from attestation.schemes import SCHEMES
from attestation.verify.crl import check_crl
from attestation.verify.x509 import began, load_certificate
from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.conformance.run import Outcome

SKEWS = [0, 1, CLOCK_SKEW_S, CLOCK_SKEW_S + 1]


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def published(name: str, at: str | None) -> Outcome:
    """A published sample at another time."""
    return changed(name, lambda entry: entry.update(verify_at=at))


def made(kind: str, at: int | None, files: Mapping[str, bytes], root: bytes = b"") -> Outcome:
    """A sample of ours."""
    entry = {
        "id": "made",
        "kind": kind,
        "files": {role: role for role in files},
        "verify_at": None if at is None else moment(at),
        "inputs": {},
        "expected": {"authentic": True, "strict": "accept"},
    }
    roots = {"own": {"sha256_der": hashlib.sha256(root).hexdigest()}} if root else {}
    document: dict[str, Any] = {
        "schema": "attestation-vectors/1",
        "roots": roots,
        "vectors": [entry],
    }
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, files.__getitem__)


def codes(found: Outcome) -> set[str]:
    return {reason.code for reason in found.reasons}


def token(**claims: Any) -> dict[str, bytes]:
    said = {
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "iat": NOW,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {"cpu0": {"ear.status": "affirming"}},
    }
    issuer = Issuer("ES384")
    return {"token": issuer.sign({**said, **claims}).encode(), "jwks": issuer.jwks()}


# ---- a stated time


@needs_samples
def test_collateral_holds_from_the_second_it_was_issued_at_a_stated_time() -> None:
    start = int(datetime.fromisoformat(sample(QUOTE)["valid_window"]["not_before"]).timestamp())
    assert published(QUOTE, moment(start)).accepted is True
    for early in (1, 100, CLOCK_SKEW_S):
        found = published(QUOTE, moment(start - early))
        assert (found.authentic, found.accepted) == (False, False)
        assert codes(found) & {"collateral_not_yet_valid", "certificate_not_valid_at_time",
                               "crl_not_yet_valid"}  # fmt: skip


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_holds_from_the_second_it_names_at_a_stated_time(name: str) -> None:
    assert made("ear-jwt", NOW, token(**{name: NOW})).accepted is True
    for late in (1, 60, CLOCK_SKEW_S):
        found = made("ear-jwt", NOW, token(**{name: NOW + late}))
        assert (found.authentic, codes(found)) == (False, {"token_not_yet_valid", "token_expired"})


def test_a_services_word_holds_from_the_second_it_names_at_a_stated_time() -> None:
    service = NrasService()
    files = {"eat": service.bundle(), "jwks": service.jwks()}
    assert made("nvidia-nras-eat", service.now, files).accepted is True
    found = made("nvidia-nras-eat", service.now - 1, files)
    assert "token_not_yet_valid" in codes(found)


# ---- a clock's, in live use


@pytest.mark.parametrize("early", SKEWS)
@pytest.mark.parametrize("skew", [None, 0, 1])
def test_a_questions_skew_is_what_an_issuers_clock_may_be_ahead(
    early: int, skew: int | None
) -> None:
    files = token()
    scheme = SCHEMES["ear-jwt"]
    question = Question(
        {"token": files["token"]}, scheme.anchors, NOW - early, {"jwks": files["jwks"]}
    )
    if skew is not None:
        question = replace(question, skew=skew)
    allowed = CLOCK_SKEW_S if skew is None else skew
    assert scheme.examine(question).authentic is (early <= allowed)


@pytest.mark.parametrize("early", SKEWS)
@pytest.mark.parametrize("skew", [0, 1, CLOCK_SKEW_S])
def test_a_revocation_list_may_be_ahead_by_the_skew(early: int, skew: int) -> None:
    maker = VtpmMaker()
    issuer = load_certificate(maker.issuer)
    crl = maker.crl()
    start = maker.now - DAY
    try:
        check_crl(crl, issuer, [], start - early, skew=skew)
        held = True
    except AttestationError as refusal:
        held = refusal.reasons != ("crl_not_yet_valid",)
    assert held is (early <= skew)


@pytest.mark.parametrize("early", SKEWS)
@pytest.mark.parametrize("skew", [0, CLOCK_SKEW_S])
def test_a_tpms_list_is_judged_by_the_questions_skew(early: int, skew: int) -> None:
    maker = VtpmMaker()
    later = VtpmMaker(now=maker.now + DAY + early).crl()  # by the same key, from then on
    question = maker.question(
        Vtpm(maker).evidence(NONCE), collateral=maker.collateral(crl_intermediate=later), skew=skew
    )
    assert SCHEMES["tpm2-quote"].examine(question).authentic is (early <= skew)


@pytest.mark.parametrize("early", SKEWS)
@pytest.mark.parametrize("skew", [0, CLOCK_SKEW_S, FOREVER])
def test_an_answer_about_revocation_may_be_ahead_by_the_skew(early: int, skew: int) -> None:
    vendor = Nvidia()
    gpu = vendor.gpu()
    answer = vendor.ocsp(gpu.brom, vendor.icas["GH100"], start=early)
    question = Question(
        {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()},
        vendor.anchors,
        vendor.now,
        {"ocsp": answer},
        skew=skew,
    )
    assert SCHEMES["nvidia-gpu-spdm"].examine(question).authentic is (early <= skew)


# ---- no time


@pytest.mark.parametrize(
    "claims", [{}, {"exp": 1}, {"exp": NOW, "nbf": NOW - 5}, {"nbf": 253_402_214_400}]
)
def test_a_token_is_judged_without_its_times_where_none_plays_a_part(
    claims: dict[str, int],
) -> None:
    found = made("ear-jwt", None, token(**claims))
    assert (found.faults, found.accepted) == ((), True)


def test_the_certificates_of_a_key_must_have_held_together_where_there_is_no_time() -> None:
    service = NrasService()
    files = {"eat": service.bundle(), "jwks": service.jwks()}
    assert made("nvidia-nras-eat", None, files).accepted is True
    assert "x5c" in json.loads(files["jwks"])["keys"][0]


def test_a_quote_by_a_key_that_was_brought_needs_no_time() -> None:
    tpm = Vtpm(VtpmMaker())
    files = {**tpm.evidence(NONCE, ak_cert=None), "ak_spki": tpm.spki}
    assert made("tpm2-quote", None, files).accepted is True


@needs_samples
def test_certificates_need_a_time() -> None:
    names = ("snp-genoa-v3", "nitro-production", "azure-snp-milan-v1", QUOTE, "nvidia-hopper-550",
             "sgx-v3-debug-outofdate", "gce-cos-85-nonce9009")  # fmt: skip
    for name in names:
        found = published(name, None)
        assert (found.authentic, found.accepted, found.reasons) == (None, None, ())
        assert "verify_at is null" in found.faults[0], name


@needs_samples
def test_what_is_refused_for_something_else_needs_no_time() -> None:
    found = published("snp-wrong-product-chain", None)
    assert (found.authentic, found.ok) == (False, True)


@needs_samples
def test_the_first_second_of_1970_is_a_time() -> None:
    for name in ("ccel-gcp-cos113", "snp-genoa-v3"):
        found = published(name, "1970-01-01T00:00:00Z")
        assert (found.authentic, codes(found)) == (False, {"certificate_not_valid_at_time"})
    early = made("ear-jwt", 0, token())
    assert codes(early) == {"token_not_yet_valid", "token_expired"}


# ---- manifests


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (None, None),
        (NOW - 1, "manifest_not_yet_valid"),
        (NOW, None),
        (NOW + 10, None),
        (NOW + 11, "manifest_expired"),
    ],
)
def test_a_signed_manifest_is_authentic_at_the_times_it_states(at: int | None, code: str) -> None:
    publisher = CorimPublisher(not_before=NOW, not_after=NOW + 10)
    found = made("corim", at, {"corim": publisher.signed(), "public_key": publisher.public_key})
    assert (found.authentic, found.accepted) == (code is None, code is None)
    assert codes(found) == ({code, "collateral_expired"} if code else set())
    assert len(found.reasons) == len(codes(found))


@pytest.mark.parametrize(("at", "accepted"), [(None, True), (NOW, True), (NOW + 1, False)])
def test_an_unsigned_manifest_outside_its_time_is_not_accepted(
    at: int | None, accepted: bool
) -> None:
    window = {0: cbor2.CBORTag(1, NOW - 10), 1: cbor2.CBORTag(1, NOW)}
    found = made("corim", at, {"corim": CorimPublisher(members={4: window}).unsigned()})
    assert (found.authentic, found.accepted) == (None, accepted)


def test_a_certified_manifest_without_a_time_is_judged_when_its_certificates_held() -> None:
    maker = VtpmMaker()
    publisher = CorimPublisher()
    for start, authentic in ((-3600, True), (400 * DAY, False)):
        leaf = maker.certify(publisher.key, start=start, end=500 * DAY)
        publisher.headers = {33: [leaf, maker.issuer]}
        files = {"corim": publisher.signed(), "root": maker.root}
        found = made("corim", None, files, maker.root)
        assert found.authentic is authentic  # the root has ended before the second began
    assert made("corim", maker.now, files, maker.root).authentic is False


def test_the_youngest_certificate_says_when_all_had_begun() -> None:
    maker = VtpmMaker()
    key = CorimPublisher().key
    young, old = maker.certify(key, start=7), maker.certify(key, start=-7)
    assert began([young, old]) == maker.now + 7
    assert (began([]), began([b"no certificate"])) == (0, 0)
