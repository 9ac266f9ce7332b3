"""What a policy demands of another verifier's result. Each test changes one fact of a good one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from simulators.tokens import Issuer

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.ear import TRUSTEE_PROFILE, VERAISON_PROFILE
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.ear import SCHEME
from wire.errors import PolicyError

NOW = 1_790_000_000
ISSUER = Issuer("ES384")
KEYS = {"keys": [f"sha256:{ISSUER.fingerprint()}"]}
AS_SUPPLIED = dict.fromkeys(("keys", "profiles", "expiry", "status", "audience"), "as_supplied")


def submod(status: str = "affirming", policy: str = "p1", **vector: int) -> dict[str, Any]:
    return {
        "ear.status": status,
        "ear.appraisal-policy-id": policy,
        "ear.trustworthiness-vector": {"hardware": 2, "executables": 3, **vector},
    }


def claims(**changes: Any) -> dict[str, Any]:
    honest = {
        "eat_profile": TRUSTEE_PROFILE,
        "iss": "verifier",
        "iat": NOW,
        "exp": NOW + 300,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {"cpu0": submod(), "gpu0": submod()},
    }
    return {name: value for name, value in {**honest, **changes}.items() if value is not None}


def rule(document: dict[str, Any]) -> Any:
    required, optional = SCHEME.rule_keys
    return SCHEME.rule(
        Members(document, "rule", required=required, optional=optional, error=PolicyError)
    )


def examined(document: dict[str, Any], now: int = NOW) -> Examined:
    evidence = {"token": ISSUER.sign(document).encode()}
    return SCHEME.examine(Question(evidence, NONE, now, {"jwks": ISSUER.jwks()}))


def judge(document: dict[str, Any], demands: dict[str, Any], now: int = NOW) -> list[str]:
    found = examined(document, now)
    assert found.facts is not None
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, rule(demands), now)
    assert bool(ledger.reasons) is not ledger.accepted
    return [reason.code for reason in ledger.reasons]


@pytest.mark.parametrize("profile", [TRUSTEE_PROFILE, VERAISON_PROFILE])
def test_a_good_result_meets_the_least_rule_there_is(profile: str) -> None:
    assert judge(claims(eat_profile=profile), KEYS) == []


def test_a_rule_must_name_the_keys_it_trusts() -> None:
    with pytest.raises(PolicyError):
        rule({})


def test_a_result_by_a_key_the_rule_does_not_name_is_refused() -> None:
    demands = {"keys": [f"sha256:{'0' * 64}"]}
    assert judge(claims(), demands) == ["key_not_accepted"]


def test_a_result_nobody_signed_meets_no_rule_that_names_keys() -> None:
    evidence = {"token": Issuer("ES384").sign(claims()).encode()}
    found = SCHEME.examine(Question(evidence, NONE, NOW, {"jwks": ISSUER.jwks()}))
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, rule(KEYS), NOW)
    assert [reason.code for reason in ledger.reasons] == ["key_not_accepted"]


@pytest.mark.parametrize(
    ("change", "demands", "code"),
    [
        ({"eat_profile": "test"}, {}, "profile_not_accepted"),
        ({"exp": None}, {}, "expiry_missing"),
        ({"iat": NOW - 61}, {"max_age_s": 60}, "evidence_stale"),
        ({"iss": "another"}, {"issuer": "verifier"}, "issuer_mismatch"),
        ({"iss": None}, {"issuer": "verifier"}, "issuer_mismatch"),
        ({"aud": "us"}, {}, "audience_mismatch"),
        ({"aud": "them"}, {"audience": "us"}, "audience_mismatch"),
        ({"aud": ["them", "us too"]}, {"audience": "us"}, "audience_mismatch"),
        ({"aud": 7}, {"audience": "us"}, "audience_mismatch"),
        ({}, {"audience": "us"}, "audience_mismatch"),
        ({"aud": 7}, {"audience": "as_supplied"}, "audience_mismatch"),
        ({"aud": ["us", 7]}, {"audience": "as_supplied"}, "audience_mismatch"),
        ({}, {"policies": ["p2"]}, "policy_not_accepted"),
        ({}, {"submods": ["cpu0", "cpu1"]}, "submod_missing"),
        ({"dbgstat": "enabled"}, {}, "debug_enabled"),
        ({"dbgstat": 0}, {}, "debug_enabled"),
    ],
)
def test_one_fact_that_the_rule_does_not_accept_is_refused(
    change: dict[str, Any], demands: dict[str, Any], code: str
) -> None:
    assert judge(claims(**change), {**KEYS, **demands}) == [code]


def test_what_the_rule_names_is_accepted() -> None:
    demands = {
        **KEYS,
        "profiles": [TRUSTEE_PROFILE],
        "expiry": "required",
        "max_age_s": 60,
        "issuer": "verifier",
        "audience": "us",
        "policies": ["p1"],
        "submods": ["cpu0"],
        "status": "affirming",
        "vector": {"hardware": "affirming"},
        "debug": False,
    }
    for aud in ("us", ["them", "us"]):
        assert judge(claims(aud=aud, dbgstat="disabled-since-boot"), demands) == []


@pytest.mark.parametrize(
    ("status", "demanded", "ok"),
    [
        ("affirming", "affirming", True),
        ("warning", "affirming", False),
        ("none", "affirming", False),
        ("contraindicated", "affirming", False),
        ("warning", "warning", True),
        ("none", "warning", False),
        ("contraindicated", "warning", False),
        ("contraindicated", "as_supplied", True),
    ],
)
def test_the_worst_of_all_appraisals_counts(status: str, demanded: str, ok: bool) -> None:
    found = claims(submods={"cpu0": submod(), "gpu0": submod(status)})
    assert judge(found, {**KEYS, "status": demanded}) == ([] if ok else ["status_not_accepted"])


@pytest.mark.parametrize(
    ("value", "demanded", "code"),
    [
        (2, "affirming", None),
        (0, "affirming", "trust_claim_not_accepted"),
        (32, "affirming", "trust_claim_not_accepted"),
        (32, "warning", None),
        (96, "warning", "trust_claim_not_accepted"),
        (None, "warning", "trust_claim_missing"),
    ],
)
def test_a_trust_claim_demanded_must_be_made_and_good_enough(
    value: int | None, demanded: str, code: str | None
) -> None:
    vector = {} if value is None else {"configuration": value}
    found = claims(submods={"cpu0": submod("contraindicated", **vector)})
    demands = {**KEYS, "status": "as_supplied", "vector": {"configuration": demanded}}
    assert judge(found, demands) == ([] if code is None else [code])


def test_everything_as_supplied_takes_any_authentic_result_but_a_debug_one() -> None:
    found = claims(eat_profile="test", exp=None, submods={"test": {"ear.status": "none"}})
    assert judge(found, AS_SUPPLIED) == []
    for aud in ("them", ["them", "others"], None):
        assert judge({**found, "aud": aud}, AS_SUPPLIED) == []
    assert judge({**found, "dbgstat": "enabled"}, AS_SUPPLIED) == ["debug_enabled"]


def test_a_token_that_is_no_result_is_not_authentic_and_is_still_read() -> None:
    found = examined(claims(submods={}))
    assert [reason.code for reason in found.reasons] == ["profile_violation"]
    assert found.facts is None
    assert found.claims["iss"] == "verifier"


@pytest.mark.parametrize(
    "document",
    [
        {"keys": []},
        {"keys": "all"},
        {"keys": ["sha256:short"]},
        {**KEYS, "profiles": "any"},
        {**KEYS, "profiles": []},
        {**KEYS, "expiry": "optional"},
        {**KEYS, "expiry": False},
        {**KEYS, "status": "contraindicated"},
        {**KEYS, "status": "none"},
        {**KEYS, "vector": {"luck": "affirming"}},
        {**KEYS, "vector": {"hardware": "contraindicated"}},
        {**KEYS, "vector": {"hardware": 2}},
        {**KEYS, "vector": ["hardware"]},
        {**KEYS, "debug": True},
        {**KEYS, "max_age_s": 0},
        {**KEYS, "colour": "green"},
    ],
)
def test_a_rule_that_is_not_understood_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(document)


@pytest.mark.parametrize("name", ["ear-testjwt", "ear-testrealmjwt"])
def test_published_results_give_the_expected_verdict(vectors: dict[str, Any], name: str) -> None:
    vector = vectors[name]
    files = {role: (vectors["root"] / path).read_bytes() for role, path in vector["files"].items()}
    now = int(datetime.fromisoformat(vector["verify_at"]).timestamp())
    key = {"public_key": files.pop("public_key")}
    found = SCHEME.examine(Question(files, NONE, now, key))
    expected = vector["expected"]
    assert found.authentic is expected["authentic"]
    assert {r.code for r in found.reasons} == set(expected["reasons"])
    assert found.claims == expected["claims"]
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, rule(AS_SUPPLIED), now)
    accepted = found.authentic is True and not ledger.reasons
    assert accepted is (expected["strict"] == "accept")


@pytest.mark.parametrize("status", ["enabled", 0, None, "DISABLED", ["disabled"], {}])
@pytest.mark.parametrize(
    "place",
    [
        lambda told: told,
        lambda told: {"submods": {"inner": told}},
        lambda told: {"ear.veraison.annotated-evidence": {"list": [1, {"device": told}]}},
    ],
    ids=["submodule", "submodule's submodule", "evidence"],
)
def test_a_debug_status_counts_wherever_it_is_stated(place: Any, status: object) -> None:
    submods = {"cpu0": submod(), "gpu0": submod() | place({"dbgstat": status})}
    for demands in (KEYS, AS_SUPPLIED):
        assert judge(claims(submods=submods), demands) == ["debug_enabled"]


def test_a_submodule_whose_debugger_is_off_is_accepted() -> None:
    submods = {"cpu0": submod() | {"dbgstat": "disabled-since-boot"}, "gpu0": submod()}
    assert judge(claims(submods=submods, dbgstat="disabled"), KEYS) == []
