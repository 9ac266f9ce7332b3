"""Policies: what is not understood is refused, what is not named is not accepted."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee

from attestation.members import TEXT_MAX
from attestation.policy import AGE_MAX_S, COLLATERAL_AGE_MAX_S, parse_policy
from attestation.rules.software import SoftwareRule
from attestation.rules.tpm import TpmRule
from wire.canonical import encode
from wire.errors import PolicyError
from wire.ids import b64u, sha256_tag
from wire.verifier_key import VerifierKey

TAG = sha256_tag(b"x")
VKEY = VerifierKey("example/log", bytes(range(32))).vkey
PEM = TpmTee().rule["roots"][0]
FULL: dict[str, Any] = {
    **SoftwareTee().demands,
    "min_version": 1,
    "require_pq": False,
    "k": 5,
    "min_workers": 4,
    "allow_simulated": True,
    "accept": [
        SoftwareTee().rule,
        {"kind": "tpm2", "roots": [PEM], "measurements": [TAG], "pcr": 12, "trust": "simulated"},
    ],
    "models": [{"name": "m", "digest": TAG}, {"name": "n"}],
    "directory": {"keys": [{"kid": "dir-1", "alg": "ed25519", "pk": b64u(bytes(32))}]},
    "log": {"origin": "example/log", "vkeys": [VKEY]},
    "deny": {"bh": [b64u(bytes(32))], "measurements": [TAG], "kids": [b64u(bytes(32))]},
    "freshness": {"beacon_max_age_s": 60, "directory_max_age_s": 90, "require_beacon": True},
}
MINIMAL = {
    key: FULL[key]
    for key in (
        "v", "id", "seq", "not_before", "expires", "aud", "accept", "models", "service_policies",
    )
}  # fmt: skip


def parse(document: Any) -> Any:
    return parse_policy(json.dumps(document).encode())


def at(path: str, value: Any, document: dict[str, Any] = FULL) -> dict[str, Any]:
    """The document with the member at dotted `path` set (numbers index arrays)."""
    changed = copy.deepcopy(document)
    *steps, last = path.split(".")
    here: Any = changed
    for step in steps:
        here = here[int(step)] if step.isdigit() else here[step]
    here[last] = value
    return changed


def test_a_full_policy_says_what_it_says() -> None:
    policy = parse(FULL)
    software, tpm = policy.accept
    assert isinstance(software, SoftwareRule)
    assert isinstance(tpm, TpmRule)
    assert (software.kind, dict(software.posture)) == ("software", {"seccomp": "applied"})
    assert (tpm.kind, tpm.pcr, tpm.measurements) == ("tpm2", 12, frozenset({TAG}))
    assert tpm.roots == (TpmTee().maker.root,)
    assert (policy.k, policy.min_workers, policy.require_pq) == (5, 4, False)
    assert policy.directory_keys[0].kid == "dir-1"
    assert (policy.log_origin, policy.log_vkeys) == ("example/log", (VKEY,))
    assert policy.deny.bh == {bytes(32)}
    assert (policy.beacon_max_age_s, policy.directory_max_age_s, policy.require_beacon) == (
        60, 90, True,
    )  # fmt: skip
    assert policy.digest == sha256_tag(encode(FULL))
    assert parse_policy(json.dumps(FULL, indent=3).encode()).digest == policy.digest


def test_what_a_minimal_policy_leaves_out_is_denied() -> None:
    policy = parse(MINIMAL)
    assert policy.require_pq
    assert not policy.allow_software
    assert not policy.allow_simulated
    assert (policy.k, policy.min_workers) == (3, 3)
    assert policy.directory_keys == ()
    assert (policy.log_origin, policy.log_vkeys) == (None, ())


@pytest.mark.parametrize("key", sorted(MINIMAL))
def test_a_needed_key_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(PolicyError, match=f'policy: key "{key}" is missing, expected'):
        parse({name: value for name, value in FULL.items() if name != key})


UNKNOWN_PLACES = [
    ("", "policy"),
    ("accept.0.", "policy.accept"),
    ("accept.1.", "policy.accept"),
    ("models.0.", "policy.models"),
    ("directory.", "policy.directory"),
    ("directory.keys.0.", "policy.directory.keys"),
    ("log.", "policy.log"),
    ("deny.", "policy.deny"),
    ("freshness.", "policy.freshness"),
]


@pytest.mark.parametrize(("place", "named"), UNKNOWN_PLACES)
def test_an_unknown_key_anywhere_is_refused_and_named(place: str, named: str) -> None:
    with pytest.raises(PolicyError, match=f'{named}: found unknown key "surprise", expected only'):
        parse(at(f"{place}surprise", True))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("v", 2, "policy.v: found 2, expected an integer from 1 to 1"),
        ("seq", "1", 'policy.seq: found "1", expected an integer'),
        ("expires", 1, "policy.expires: found 1, expected a time after not_before"),
        ("aud", 5, "policy.aud: found 5"),
        ("k", 9, "policy.k: found 9, expected an integer from 1 to 8"),
        ("k", True, "policy.k: found true, expected an integer"),
        ("min_workers", 0, "policy.min_workers: found 0"),
        ("require_pq", "yes", 'policy.require_pq: found "yes", expected true or false'),
        ("allow_software", 1, "policy.allow_software: found 1, expected true or false"),
        ("accept", [], "policy.accept: found an array of 0 items, expected an array of 1 to"),
        ("accept.0.kind", "sgx", 'policy.accept.kind: found "sgx", expected software or tpm2'),
        ("accept.0.kind", "ear-jwt", 'found "ear-jwt", which names no worker, expected software'),
        ("accept.0.kind", None, "policy.accept.kind: found null, expected software"),
        ("accept.0.roots", [], "policy.accept.roots"),
        ("accept.0.roots", [b64u(bytes(31))], "Ed25519 public keys of 32 bytes"),
        ("accept.0.roots", [7], "Ed25519 public keys of 32 bytes"),
        ("accept.0.measurements", [], "policy.accept.measurements"),
        ("accept.0.measurements", ["sha256:00"], "policy.accept.measurements"),
        ("accept.0.measurements", [TAG, TAG], "in it, expected each item once"),
        ("accept.0.posture", [], "policy.accept.posture"),
        ("accept.0.posture", {"seccomp": "on"}, 'seccomp: found "on", expected applied or'),
        ("accept.0.posture", {"seccomp": "refused"}, 'found "refused", expected applied or'),
        ("accept.1.pcr", 16, "policy.accept.pcr: found 16, expected an integer from 8 to 15"),
        ("accept.1.pcr", 7, "policy.accept.pcr: found 7"),
        ("accept.1.roots", ["not pem"], "PEM texts of one certificate each"),
        ("accept.1.roots", [PEM + PEM], "PEM texts of one certificate each"),
        ("accept.1.trust", "hardware", 'found "hardware", expected "simulated"'),
        ("accept.1.trust", "vtpm", 'found "vtpm", expected "simulated"'),
        ("models", [], "policy.models"),
        ("models.0.digest", None, "policy.models.digest"),
        ("service_policies", [], "policy.service_policies"),
        ("directory.keys.0.alg", "rsa", 'policy.directory.keys.alg: found "rsa"'),
        ("directory.keys", [FULL["directory"]["keys"][0]] * 2, "found a kid twice"),
        ("log", {"origin": "o"}, 'policy.log: key "vkeys" is missing'),
        ("log.vkeys", [], "policy.log.vkeys"),
        ("log.vkeys", ["junk"], "policy.log.vkeys: found 'junk', expected a verifier key of the"),
        ("log.vkeys", [VKEY[:-4] + "AAAA"], "policy.log.vkeys: key hash [0-9a-f]{8} expected"),
        ("log.vkeys", [VKEY.replace("+", "+0", 1)], "policy.log.vkeys: key hash"),
        ("log.vkeys", [VKEY, "junk"], "policy.log.vkeys: found 'junk'"),
        ("log.origin", "other/log", 'expected a key that is named for the origin "other/log"'),
        ("accept.0.posture", {"secomp": "applied"}, "found 'secomp', expected only wrapper, "),
        ("models", [{"name": "m"}, {"name": "m"}], 'policy.models: found "m" twice'),
        ("models", [{"name": "m", "digest": TAG}] * 2, 'policy.models: found "m" twice'),
        ("models", [{"name": "m"}, {"name": "m", "digest": TAG}], "with a digest and without"),
        ("deny.bh", ["AA"], "hashes of 32 bytes"),
        ("deny.measurements", ["x"], "policy.deny.measurements"),
        ("freshness.beacon_max_age_s", 0, "policy.freshness.beacon_max_age_s: found 0"),
        ("freshness", 600, "policy.freshness: found an integer, expected an object"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence):
        parse(at(path, value))


def test_a_model_may_have_several_digests_and_a_log_keys_of_other_names() -> None:
    models = [{"name": "m", "digest": TAG}, {"name": "m", "digest": sha256_tag(b"y")}]
    assert len(parse(at("models", models)).models) == 2
    other = VerifierKey("example/other", bytes(32)).vkey
    assert parse(at("log.vkeys", [other, VKEY])).log_vkeys == (other, VKEY)


def test_a_kind_that_names_no_worker_is_not_offered() -> None:
    with pytest.raises(PolicyError) as caught:
        parse(at("accept.0.kind", "bogus"))
    offered = caught.value.message.partition("expected ")[2].split(" or ")
    assert "amd-sev-snp-report" in offered
    assert "ear-jwt" not in offered
    for kind in offered:
        with pytest.raises(PolicyError, match=r"key "):
            parse(at("accept", [{"kind": kind}]))


def test_a_tpm_rule_may_not_carry_a_software_rules_root() -> None:
    with pytest.raises(PolicyError, match="PEM texts"):
        parse(at("accept.1.roots", FULL["accept"][0]["roots"]))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"v":1,"v":1}', b"\xff", b'{"v":NaN}', b" " * 300_000]
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(raw)
    assert caught.value.code == "policy_invalid"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
_PATHS = [
    *FULL,
    *(f"accept.0.{key}" for key in FULL["accept"][0]),
    *(f"accept.1.{key}" for key in FULL["accept"][1]),
]


@given(st.sampled_from(_PATHS), _JSON)
def test_any_json_in_any_member_is_parsed_or_refused(path: str, value: Any) -> None:
    with contextlib.suppress(PolicyError):
        assert parse(at(path, value)).digest


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("freshness.beacon_max_age_s", AGE_MAX_S),
        ("freshness.directory_max_age_s", AGE_MAX_S),
        ("freshness.result_ttl_s", AGE_MAX_S),
        ("freshness.collateral_max_age_s", COLLATERAL_AGE_MAX_S),
    ],
)
def test_ages_end_at_their_limits(path: str, most: int) -> None:
    assert parse(at(path, most))
    for wrong in (0, most + 1):
        with pytest.raises(PolicyError, match=f"policy.{path}: found {wrong}"):
            parse(at(path, wrong))


def test_names_in_lists_end_at_their_limit() -> None:
    name = "n" * (TEXT_MAX - len(VerifierKey("", bytes(32)).vkey))
    longest = VerifierKey(name, bytes(32)).vkey
    assert parse(at("log", {"origin": name, "vkeys": [longest]}))
    with pytest.raises(PolicyError, match=r"policy\.log\.vkeys"):
        parse(at("log.vkeys", [longest + "="]))
