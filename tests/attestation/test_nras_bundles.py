"""NVIDIA's detached EAT: authentic as a whole or not at all. Each test changes one fact."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from simulators.nras import LIFE_S, NOW, NrasService, switch_claims
from simulators.tokens import Issuer, unsigned

from attestation.anchors import NONE
from attestation.examined import Examined, Expected, Question
from attestation.schemes.nras import SCHEME, examine

NONCE = bytes(range(32))


@pytest.fixture
def service() -> NrasService:
    return NrasService(devices=2)


def ask(service: NrasService, raw: bytes | None = None, **changes: Any) -> Examined:
    evidence = {"eat": service.bundle(NONCE) if raw is None else raw}
    collateral = changes.pop("collateral", {"jwks": service.jwks()})
    facts = {"anchors": NONE, "now": NOW + 1, "expected": Expected(nonce=NONCE), **changes}
    return examine(Question(evidence=evidence, collateral=collateral, **facts))


def codes(examined: Examined) -> list[str]:
    assert examined.authentic is False
    assert examined.bound is False
    return [reason.code for reason in examined.reasons]


def test_an_honest_bundle_is_authentic_bound_and_ends_with_its_tokens(service: NrasService) -> None:
    examined = ask(service)
    assert examined.authentic is True
    assert examined.bound is True
    assert examined.not_after == NOW + LIFE_S
    assert all(check.ok for check in examined.checks)
    assert examined.identities[-1] == f"key:{service.issuer.fingerprint()}"
    assert len([i for i in examined.identities if i.startswith("ueid:")]) == 2
    assert examined.claims["submods_digest_match"] is True


def test_without_a_nonce_asked_for_it_is_authentic_but_bound_to_nothing(
    service: NrasService,
) -> None:
    examined = ask(service, expected=Expected())
    assert examined.authentic is True
    assert examined.bound is False


def test_claims_of_version_two_are_as_authentic() -> None:
    assert ask(NrasService(version="2.0")).authentic is True


def test_a_switch_is_a_device_like_any_other(service: NrasService) -> None:
    service.devices["SWITCH-0"] = switch_claims()
    assert ask(service).authentic is True


def test_an_unsigned_bundle_of_a_local_verifier_is_refused_and_still_read() -> None:
    device = unsigned({"iss": "NVAT-LOCAL-VERIFIER"})
    overall = unsigned({"iss": "NVAT-LOCAL-VERIFIER", "submods": {}})
    raw = json.dumps({"detached_eat": [["JWT", overall], {"GPU-0": device}]}).encode()
    examined = ask(NrasService(), raw)
    assert codes(examined)[0] == "alg_none"
    assert examined.claims["iss"] == "NVAT-LOCAL-VERIFIER"
    assert SCHEME.needs({"eat": raw}) == ()


def test_one_unsigned_device_token_spoils_the_bundle(service: NrasService) -> None:
    tokens = service.device_tokens(NONCE)
    claims = {**service.devices["GPU-0"], "eat_nonce": NONCE.hex(), "exp": NOW + 9}
    tokens["GPU-0"] = unsigned({**claims, "iss": "https://nras.attestation.nvidia.com"})
    raw = json.dumps([["JWT", service.overall_token(NONCE, tokens)], tokens]).encode()
    assert codes(ask(service, raw)) == ["alg_none"]


def test_no_key_set_means_no_key(service: NrasService) -> None:
    assert codes(ask(service, collateral={})) == ["unknown_signing_key"]


def test_two_key_sets_under_both_roles_are_refused(service: NrasService) -> None:
    both = dict.fromkeys(("jwks", "public_key"), service.jwks())
    assert codes(ask(service, collateral=both)) == ["key_set_malformed"]


def test_a_key_that_left_the_set_signs_no_more(service: NrasService) -> None:
    collateral = {"jwks": Issuer("ES384", "another").jwks()}
    assert codes(ask(service, collateral=collateral)) == ["unknown_signing_key"]


def test_a_device_token_by_a_key_outside_the_set_is_refused(service: NrasService) -> None:
    tokens = service.device_tokens(NONCE)
    service.header["kid"] = "another"
    tokens["GPU-1"] = service.device_tokens(NONCE)["GPU-1"]
    service.header.clear()
    raw = json.dumps([["JWT", service.overall_token(NONCE, tokens)], tokens]).encode()
    assert codes(ask(service, raw)) == ["unknown_signing_key"]


def test_a_device_token_signed_by_another_key_is_refused(service: NrasService) -> None:
    tokens = service.device_tokens(NONCE)
    honest, service.issuer = service.issuer, Issuer("ES384", service.issuer.kid)
    tokens["GPU-1"] = service.device_tokens(NONCE)["GPU-1"]
    service.issuer = honest
    raw = json.dumps([["JWT", service.overall_token(NONCE, tokens)], tokens]).encode()
    assert codes(ask(service, raw)) == ["signature_invalid"]


def test_a_duplicate_kid_in_the_key_set_is_refused(service: NrasService) -> None:
    collateral = {"jwks": service.jwks(Issuer("ES384", service.issuer.kid).jwk())}
    assert codes(ask(service, collateral=collateral)) == ["duplicate_kid"]


def test_another_algorithm_than_the_services_is_refused(service: NrasService) -> None:
    service.issuer = Issuer("ES256", service.issuer.kid)
    assert codes(ask(service)) == ["alg_not_accepted"]


def test_a_key_that_came_in_the_header_is_refused(service: NrasService) -> None:
    service.header["jwk"] = service.issuer.jwk()
    assert codes(ask(service)) == ["unknown_signing_key"]


def test_a_key_past_its_certificate_signs_no_more(service: NrasService) -> None:
    start, end = NOW - 9 * 86_400, NOW - 7 * 86_400
    chain = [service.authority.issue(service.issuer, start, end), service.authority.der()]
    x5c = [base64.b64encode(der).decode() for der in chain]
    collateral = {"jwks": service.issuer.jwks(x5c=x5c)}
    assert codes(ask(service, collateral=collateral)) == ["certificate_not_valid_at_time"]


@pytest.mark.parametrize(
    ("now", "code"), [(NOW + LIFE_S, "token_expired"), (NOW - 121, "token_not_yet_valid")]
)
def test_a_bundle_out_of_its_time_is_refused(service: NrasService, now: int, code: str) -> None:
    assert codes(ask(service, now=now)) == [code]


@pytest.mark.parametrize("where", ["overall", "device_claims"])
@pytest.mark.parametrize(
    ("claim", "value", "code"),
    [
        ("exp", None, "expiry_missing"),
        ("exp", NOW, "token_expired"),
        ("nbf", NOW + 9999, "token_not_yet_valid"),
        ("iat", "now", "evidence_malformed"),
        ("iss", "https://nras.attestation-stg.nvidia.com", "issuer_mismatch"),
        ("iss", "https://nras.attestation.nvidia.com/", "issuer_mismatch"),
        ("iss", None, "issuer_mismatch"),
        ("iss", 7, "evidence_malformed"),
        ("eat_nonce", bytes(32).hex(), "nonce_mismatch"),
        ("eat_nonce", None, "nonce_mismatch"),
    ],
)
def test_one_wrong_claim_in_any_token_is_refused(
    service: NrasService, where: str, claim: str, value: object, code: str
) -> None:
    # A claim whose value is None is left out.
    setattr(service, where, {claim: value})
    assert codes(ask(service)) == [code]


def test_another_nonce_than_the_one_asked_for_is_refused(service: NrasService) -> None:
    assert codes(ask(service, service.bundle(bytes(32)))) == ["nonce_mismatch"]


def test_a_device_token_of_another_request_is_refused_by_its_digest(service: NrasService) -> None:
    obj = json.loads(service.bundle(NONCE))
    obj[1]["GPU-1"] = service.device_tokens(NONCE)["GPU-1"]  # signed anew: other bytes
    examined = ask(service, json.dumps(obj).encode())
    assert codes(examined) == ["submods_digest_mismatch"]
    assert examined.claims["submods_digest_match"] is False


def test_a_device_that_is_left_out_is_missed(service: NrasService) -> None:
    obj = json.loads(service.bundle(NONCE))
    del obj[1]["GPU-1"]
    assert codes(ask(service, json.dumps(obj).encode())) == ["submods_digest_mismatch"]


def test_a_device_nobody_named_is_refused(service: NrasService) -> None:
    obj = json.loads(service.bundle(NONCE))
    obj[1]["GPU-2"] = obj[1]["GPU-1"]
    assert codes(ask(service, json.dumps(obj).encode())) == ["submods_digest_mismatch"]


def test_a_bundle_without_devices_is_refused(service: NrasService) -> None:
    service.devices.clear()
    assert codes(ask(service)) == ["submods_digest_mismatch"]


def test_a_digest_of_something_else_is_refused(service: NrasService) -> None:
    service.digests["GPU-0"] = "0" * 64
    assert codes(ask(service)) == ["submods_digest_mismatch"]


@pytest.mark.parametrize(("arch", "ok"), [("HOPPER", True), ("BLACKWELL", False), ("ADA", False)])
def test_devices_of_another_architecture_are_refused(
    service: NrasService, arch: str, ok: bool
) -> None:
    examined = ask(service, expected=Expected(nonce=NONCE, arch=arch))
    if ok:
        assert examined.authentic is True
    else:
        assert codes(examined) == ["product_not_accepted"]


def test_a_switch_does_not_pass_as_a_gpu(service: NrasService) -> None:
    service.devices["GPU-1"] = switch_claims()
    refused = ask(service, expected=Expected(nonce=NONCE, arch="HOPPER"))
    assert codes(refused) == ["product_not_accepted"]


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        (Expected(report_data=bytes(64)), "report_data_mismatch"),
        (Expected(user_data=b"x"), "user_data_mismatch"),
    ],
)
def test_a_binding_it_cannot_carry_is_refused(
    service: NrasService, expected: Expected, code: str
) -> None:
    assert codes(ask(service, expected=expected)) == [code]


def test_what_does_not_parse_is_refused(service: NrasService) -> None:
    examined = ask(service, b"{}")
    assert codes(examined) == ["evidence_malformed"]
    assert examined.facts is None
    assert SCHEME.needs({"eat": b"{}"}) == ()
    assert SCHEME.needs({}) == ()


def test_the_key_set_is_asked_of_the_service_by_a_closed_name(service: NrasService) -> None:
    (need,) = SCHEME.needs({"eat": service.bundle(NONCE)})
    assert (need.role, need.source, need.key) == ("jwks", "jwks", "jwks/nvidia-nras")


# --- published samples


@pytest.mark.parametrize("name", ["nras-local-alg-none", "nras-v3-unknown-kid"])
def test_published_bundles_give_the_expected_verdict(vectors: dict[str, Any], name: str) -> None:
    vector = vectors[name]
    files = {role: (vectors["root"] / path).read_bytes() for role, path in vector["files"].items()}
    now = int(datetime.fromisoformat(vector["verify_at"]).timestamp())
    examined = examine(Question(files, NONE, now))
    assert examined.authentic is vector["expected"]["authentic"]
    assert {r.code for r in examined.reasons} & set(vector["expected"]["reasons"])
    claims = vector["expected"]["claims"]
    assert {key: examined.claims[key] for key in claims} == claims
