"""The aci/1 document: published constants, and nothing in it that the binding does not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from simulators.tee import SoftwareTee

from attestation.aci import (
    TEE_TYPE,
    Provenance,
    attestation_report,
    keyset_digest,
    keyset_of,
    parse_nonce,
    report_data_of,
    response_headers,
    statement,
)
from attestation.appraise import appraise
from attestation.binding import parse_binding
from attestation.evidence import Evidence
from attestation.result import AppraisedEvidence
from wire.errors import AttestationError, MalformedError
from wire.ids import unb64u

NONCE = bytes(range(32))
PROVENANCE = Provenance("https://code.example/anchorhold", "0" * 40)


def worker(nonce: bytes | None = NONCE) -> SoftwareTee:
    tee = SoftwareTee()
    tee.facts["nonce"] = nonce
    return tee


def report(tee: SoftwareTee, nonce: bytes | None = NONCE) -> dict[str, Any]:
    raw = tee.binding()
    items = [tee.evidence(raw)]
    return attestation_report(parse_binding(raw), items, tee.posture(), nonce, PROVENANCE)


def test_keyset_digest_and_statement_are_the_published_ones() -> None:
    # The specification's own test vectors, sections 1 and 2.
    receipt = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32).public_key()
    e2ee = X25519PrivateKey.from_private_bytes(b"\x03" * 32).public_key()
    keyset = {
        "subject": "dstack-app://example-app",
        "not_after": 1_800_000_000,
        "receipt_signing_keys": [
            {
                "key_id": "receipt-1",
                "algo": "ed25519",
                "public_key": receipt.public_bytes_raw().hex(),
            }
        ],
        "e2ee_public_keys": [
            {
                "key_id": "e2ee-1",
                "algo": "x25519-aes-256-gcm-hkdf-sha256",
                "public_key": e2ee.public_bytes_raw().hex(),
            }
        ],
        "tls_public_keys": [{"spki_sha256": "c0" * 32, "domain": "api.example.com"}],
    }
    digest = keyset_digest(keyset)
    assert digest == "sha256:53a5cd44b30dcc51999754c719f2628a041f174ecbf9662a6f8e898a10cd9371"
    assert report_data_of(digest, NONCE).hex() == (
        "df2174d28130852b413646a3786927b93e94c11d770268b65def8bdba45cb49e"
    )
    assert report_data_of(digest, None).hex() == (
        "0633919ca3f00e97bafaa3304278eb22420cc3ff0d19f87dfca2d3f7508150bc"
    )


def test_the_statement_has_exactly_the_bytes_of_the_template() -> None:
    found = statement("sha256:" + "0" * 64, NONCE).decode()
    assert found == (
        '{"keyset_digest":"sha256:' + "0" * 64 + '","nonce":"' + NONCE.hex()
        + '","purpose":"aci.report_data.v1"}'
    )  # fmt: skip
    assert b'"nonce":null' in statement("sha256:" + "0" * 64, None)


def test_a_report_has_the_members_of_the_specification_and_no_others() -> None:
    found = report(worker())
    assert sorted(found) == [
        "api_version", "attestation", "service_capabilities", "workload_keyset_digest",
    ]  # fmt: skip
    assert found["api_version"] == "aci/1"
    inner = found["attestation"]
    assert sorted(inner) == [
        "evidence", "report_data", "source_provenance", "tee_type", "workload_keyset",
    ]  # fmt: skip
    assert inner["tee_type"] == TEE_TYPE
    assert sorted(inner["source_provenance"]) == [
        "image_digest", "image_provenance", "repo_commit", "repo_url",
    ]  # fmt: skip
    assert found["service_capabilities"]["serving"] == "direct"


@pytest.mark.parametrize("nonce", [NONCE, None])
def test_a_verifier_recomputes_every_value_from_the_evidence(nonce: bytes | None) -> None:
    tee = worker(nonce)
    found = json.loads(json.dumps(report(tee, nonce)))
    inner = found["attestation"]
    raw = unb64u(inner["evidence"]["binding"])
    items = [Evidence.from_json(item) for item in inner["evidence"]["items"]]
    posture = unb64u(inner["evidence"]["posture"])
    verdict = appraise(raw, items, posture, tee.policy(), tee.now, nonce=nonce)  # steps 1 and 2
    assert isinstance(verdict, AppraisedEvidence)
    keyset = keyset_of(verdict.binding)  # step 3
    assert inner["workload_keyset"] == keyset
    assert found["workload_keyset_digest"] == keyset_digest(keyset)  # step 4
    assert inner["report_data"] == report_data_of(keyset_digest(keyset), nonce).hex()


def test_a_binding_made_for_another_nonce_gives_no_report() -> None:
    for made_for in (None, bytes(32)):
        with pytest.raises(AttestationError) as caught:
            report(worker(made_for))
        assert caught.value.reasons == ("nonce_mismatch",)


def test_an_unasked_report_claims_no_freshness() -> None:
    found = report(worker(), None)
    digest = found["workload_keyset_digest"]
    assert found["attestation"]["report_data"] == report_data_of(digest, None).hex()


@pytest.mark.parametrize(
    "text",
    ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, " " + "0" * 63, "0x" + "0" * 62, "0" * 64 + "\n"],
)
def test_a_nonce_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_nonce(text)


def test_a_nonce_is_thirty_two_bytes() -> None:
    assert parse_nonce(NONCE.hex()) == NONCE


@pytest.mark.parametrize("fact", ["sig_pk", "exp", "kems", "wid"])
def test_the_digest_changes_with_every_key_and_time_of_the_binding(fact: str) -> None:
    tee, other = worker(), SoftwareTee("another")
    before = report(tee)["workload_keyset_digest"]
    tee.facts[fact] = tee.facts["exp"] + 1 if fact == "exp" else other.facts[fact]
    if fact == "sig_pk":
        tee.posture_signer = other.sig
    assert report(tee)["workload_keyset_digest"] != before


def test_no_key_has_two_roles_and_no_algorithm_is_one_of_acis_own() -> None:
    keyset = report(worker())["attestation"]["workload_keyset"]
    keys = [*keyset["receipt_signing_keys"], *keyset["e2ee_public_keys"]]
    publics = [key["public_key"] for key in keys]
    assert len(set(publics)) == len(publics)
    assert all(key["algo"].startswith("anchorhold-1-") for key in keys)
    assert keyset["tls_public_keys"] == []


def test_the_headers_repeat_the_version_and_the_digest() -> None:
    found = report(worker())
    assert response_headers(found) == {
        "X-ACI-Version": "aci/1",
        "X-ACI-Keyset-Digest": found["workload_keyset_digest"],
    }
