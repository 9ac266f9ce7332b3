"""Tokens, key sets and bundles as bytes: one spelling each, and one kind of error for others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nras import NrasService
from simulators.tokens import Issuer, compact, segment

from attestation.anchors import NONE
from attestation.examined import Question
from attestation.formats.detached_eat import BUNDLE_MAX, DEVICES_MAX, parse_bundle
from attestation.formats.ear import SUBMODS_MAX, VECTOR, parse_result, tier
from attestation.formats.jose import DEPTH_MAX, KID_MAX, TOKEN_MAX, parse_token
from attestation.formats.jwks import JWKS_MAX, KEYS_MAX, PEM_MAX, X5C_MAX, parse_keys
from attestation.schemes import ear, nras
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUER = Issuer("ES256")
TOKEN = ISSUER.sign({"iat": 1})
SERVICE = NrasService(devices=2)
BUNDLE = SERVICE.bundle()
RESULT: dict[str, Any] = {
    "eat_profile": "test",
    "iat": 1,
    "ear.verifier-id": {"developer": "d", "build": "b"},
    "submods": {"test": {"ear.status": "none"}},
}


def bad(parse: Callable[[bytes], object], raw: bytes | str) -> str:
    with pytest.raises(MalformedError) as caught:
        parse(raw.encode() if isinstance(raw, str) else raw)
    return caught.value.message


def test_a_token_parses_to_what_was_signed() -> None:
    token = parse_token(TOKEN.encode())
    assert token.claims == {"iat": 1}
    assert token.header == {"alg": "ES256", "kid": "key-1"}
    assert len(token.signature) == 64


def test_one_line_end_after_a_token_is_tolerated_and_nothing_else() -> None:
    for end in ("\n", "\r\n"):
        assert parse_token((TOKEN + end).encode()).compact == TOKEN
    for end in ("\n\n", " ", "=", ".", "\0", "é"):
        bad(parse_token, TOKEN + end)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_padding_and_the_other_alphabet_are_refused(part: int) -> None:
    for change in (lambda text: text + "=", lambda text: "+" + text[1:]):
        parts = TOKEN.split(".")
        parts[part] = change(parts[part])
        bad(parse_token, ".".join(parts))


def test_spare_bits_in_the_signature_are_refused() -> None:
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(TOKEN[-1]) ^ 1]
    bad(parse_token, TOKEN[:-1] + other)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "e30.e30", ".e30.", "e30.."])
def test_anything_but_three_parts_is_refused(text: str) -> None:
    bad(parse_token, text)


def test_a_member_that_stands_twice_is_refused_in_header_and_claims() -> None:
    twice = '{"alg":"ES256","kid":"key-1","alg":"none"}'
    bad(parse_token, ISSUER.sign_text(twice, "{}"))
    bad(parse_token, ISSUER.sign_text('{"alg":"ES256"}', '{"exp":1,"exp":2}'))
    bad(parse_token, ISSUER.sign_text('{"alg":"ES256"}', '{"a":{"b":1,"b":1}}'))


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "{", "{}x", '{"a":NaN}', '{"a":1e999}'])
def test_header_and_claims_must_be_strict_json_objects(text: str) -> None:
    bad(parse_token, ISSUER.sign_text(text, "{}"))
    bad(parse_token, ISSUER.sign_text('{"alg":"ES256"}', text))


@pytest.mark.parametrize("alg", [None, 1, "", "ES 256", "x" * 33, ["ES256"]])
def test_an_algorithm_that_is_no_name_is_refused(alg: object) -> None:
    bad(parse_token, compact({"alg": alg}, {}, b""))


@pytest.mark.parametrize("kid", [None, 1, "", "x" * (KID_MAX + 1), "a\nb"])
def test_a_kid_that_is_no_name_is_refused(kid: object) -> None:
    bad(parse_token, compact({"alg": "ES256", "kid": kid}, {}, b""))


def test_nesting_and_size_are_bounded() -> None:
    deep = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    bad(parse_token, ISSUER.sign_text('{"alg":"ES256"}', f'{{"a":{deep}}}'))
    bad(parse_token, b"e30.e30." + b"A" * TOKEN_MAX)
    assert "signature" in bad(parse_token, f"{TOKEN.rpartition('.')[0]}.{'A' * 1400}")
    header = segment({"alg": "ES256", "x5c": ["A" * 20_000]})
    assert "header" in bad(parse_token, f"{header}.e30.")


# --- key sets


def test_a_key_set_keeps_what_it_does_not_know_without_an_algorithm() -> None:
    found = parse_keys(json.dumps({"keys": [{"kty": "AKP", "kid": "pq"}, ISSUER.jwk()]}).encode())
    assert [key.algorithms for key in found.keys] == [(), ("ES256",)]
    assert found.single is False


@pytest.mark.parametrize(
    "change",
    [
        {"kty": 1},
        {"kty": "oct"},
        {"crv": 7},
        {"x": "AA"},
        {"x": 7},
        {"x": "AA=="},
        {"kid": ""},
        {"kid": 7},
        {"d": "AA"},
        {"k": "AA"},
        {"x5c": "AA"},
        {"x5c": [7]},
        {"x5c": ["!"]},
        {"x5c": ["AAAA"] * (X5C_MAX + 1)},
    ],
)
def test_a_key_with_one_wrong_member_is_refused(change: dict[str, Any]) -> None:
    bad(parse_keys, json.dumps({**ISSUER.jwk(), **change}))
    bad(parse_keys, json.dumps({"keys": [{**ISSUER.jwk(), **change}]}))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys":{}}', '{"keys":[1]}', '{"keys":[],"keys":[]}']
)
def test_anything_but_keys_is_refused(text: str) -> None:
    bad(parse_keys, text)


def test_key_sets_are_bounded() -> None:
    bad(parse_keys, json.dumps({"keys": [ISSUER.jwk()] * (KEYS_MAX + 1)}))
    bad(parse_keys, b" " * (JWKS_MAX + 1))
    bad(parse_keys, ISSUER.pem() + b" " * PEM_MAX)


# --- bundles


def test_a_bundle_parses_in_either_wrapping() -> None:
    inner = json.loads(BUNDLE)
    wrapped = json.dumps({"result_code": 0, "claims": [{"iss": "lie"}], "detached_eat": inner})
    for raw in (BUNDLE, wrapped.encode()):
        found = parse_bundle(raw)
        assert sorted(found.devices) == ["GPU-0", "GPU-1"]
        assert found.digests_match()
        assert found.claims()["iss"] == "https://nras.attestation.nvidia.com"


def test_what_all_devices_say_alike_is_said_once_and_what_they_do_not_is_not() -> None:
    claims = parse_bundle(BUNDLE).claims()
    assert claims["hwmodel"] == "GH100 A01 GSP BROM"
    assert "ueid" not in claims
    assert sorted(claims["devices"]) == ["GPU-0", "GPU-1"]


def changed(change: Callable[[list[Any]], object]) -> bytes:
    obj = json.loads(BUNDLE)
    replaced = change(obj)
    return json.dumps(obj if replaced is None else replaced).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj[:1],
        lambda obj: [*obj, 1],
        lambda _: {},
        lambda _: {"detached_eat": {}},
        lambda obj: obj[0].__setitem__(0, "CWT"),
        lambda obj: obj[0].append("x"),
        lambda obj: obj[0].__setitem__(1, 7),
        lambda obj: obj[0].__setitem__(1, "é.e30."),
        lambda obj: obj.__setitem__(1, []),
        lambda obj: obj[1].__setitem__("GPU-0", ["JWT", "x"]),
        lambda obj: obj[1].__setitem__("a b", obj[1]["GPU-0"]),
        lambda obj: obj[1].update({f"GPU-{i}": obj[1]["GPU-0"] for i in range(DEVICES_MAX + 1)}),
    ],
    ids=[
        "one-item", "three-items", "empty-object", "wrapped-object", "other-format", "long-head",
        "number", "not-ascii", "list-of-devices", "nested-bundle", "name-with-space", "too-many",
    ],
)  # fmt: skip
def test_a_bundle_of_another_shape_is_refused(change: Callable[[list[Any]], object]) -> None:
    bad(parse_bundle, changed(change))


@pytest.mark.parametrize(
    "submods",
    [
        None,
        [],
        {"GPU-0": "x"},
        {"GPU-0": ["DIGEST"]},
        {"GPU-0": ["OTHER", ["SHA-256", "0" * 64]]},
        {"GPU-0": ["DIGEST", ["SHA-1", "0" * 64]]},
        {"GPU-0": ["DIGEST", ["SHA-256", "0" * 63]]},
        {"GPU-0": ["DIGEST", ["SHA-256", "A" * 64]]},
        {"GPU-0": ["DIGEST", "0" * 64]},
    ],
)
def test_digests_of_another_shape_are_refused(submods: object) -> None:
    service = NrasService()
    service.overall["submods"] = submods
    bad(parse_bundle, service.bundle())


def test_bundles_are_bounded() -> None:
    bad(parse_bundle, b" " * (BUNDLE_MAX + 1))


# --- attestation results


def test_a_minimal_result_parses() -> None:
    found = parse_result(RESULT)
    assert found.submods["test"].status == "none"
    assert dict(found.submods["test"].vector) == {}


@pytest.mark.parametrize("name", ["eat_profile", "iat", "ear.verifier-id", "submods"])
def test_a_result_without_a_mandatory_claim_is_refused(name: str) -> None:
    claims = {key: value for key, value in RESULT.items() if key != name}
    with pytest.raises(MalformedError):
        parse_result(claims)


@pytest.mark.parametrize(
    "change",
    [
        {"iat": True},
        {"iat": "1"},
        {"eat_profile": 7},
        {"eat_profile": "x" * 1025},
        {"ear.verifier-id": {"developer": "d"}},
        {"ear.verifier-id": {"developer": "d", "build": 1}},
        {"submods": {}},
        {"submods": {"a": 1}},
        {"submods": {"a": {}}},
        {"submods": {"a": {"ear.status": "good"}}},
        {"submods": {"a": {"ear.status": True}}},
        {"submods": {"a": {"ear.status": 3}}},
        {"submods": {"a": {"ear.status": ["affirming"]}}},
        {"submods": {"a": {"ear.status": "none", "ear.appraisal-policy-id": 7}}},
        {"submods": {"a": {"ear.status": "none", "ear.trustworthiness-vector": []}}},
        {"submods": {"a": {"ear.status": "none", "ear.trustworthiness-vector": {"luck": 2}}}},
        {"submods": {"a": {"ear.status": "none", "ear.trustworthiness-vector": {"hardware": 128}}}},
        {"submods": {"a": {"ear.status": "none", "ear.trustworthiness-vector": {"hardware": 2.0}}}},
        {"submods": {str(i): {"ear.status": "none"} for i in range(SUBMODS_MAX + 1)}},
    ],
)
def test_a_result_with_one_wrong_claim_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_result({**RESULT, **change})


@pytest.mark.parametrize(
    ("status", "value", "holds"),
    [
        ("affirming", 2, True),
        ("affirming", 0, True),
        ("affirming", 32, False),
        ("warning", 32, True),
        ("warning", 96, False),
        ("contraindicated", 2, True),
        (2, 2, True),
        (32, 97, False),
        (96, 97, True),
    ],
)
def test_a_status_is_no_better_than_its_own_vector(status: object, value: int, holds: bool) -> None:
    vector = dict.fromkeys(VECTOR, 2) | {"hardware": value}
    submods = {"a": {"ear.status": status, "ear.trustworthiness-vector": vector}}
    if holds:
        assert parse_result({**RESULT, "submods": submods}).submods["a"].vector == vector
    else:
        with pytest.raises(MalformedError):
            parse_result({**RESULT, "submods": submods})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (-128, "contraindicated"), (-97, "contraindicated"), (-96, "warning"), (-33, "warning"),
        (-32, "affirming"), (-2, "affirming"), (-1, "none"), (0, "none"), (1, "none"),
        (2, "affirming"), (31, "affirming"), (32, "warning"), (95, "warning"),
        (96, "contraindicated"), (127, "contraindicated"),
    ],
)  # fmt: skip
def test_the_tiers_of_a_trust_claim(value: int, name: str) -> None:
    assert tier(value) == name


# --- arbitrary bytes


def examine_all(data: bytes) -> None:
    """Every entry point on the same bytes: only a verdict comes out."""
    for scheme, role in ((ear.SCHEME, "token"), (nras.SCHEME, "eat")):
        scheme.needs({role: data})
        for keys in (data, ISSUER.jwks()):
            question = Question({role: data}, NONE, 1_790_000_000, {"jwks": keys})
            found = scheme.examine(question)
            json.dumps(dict(found.claims))
            scheme.examine(Question({role: TOKEN.encode()}, NONE, 1, {"public_key": data}))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_a_refusal_and_no_other_error(data: bytes) -> None:
    examine_all(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_samples_give_a_refusal_and_no_other_error(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from([BUNDLE, TOKEN.encode(), ISSUER.jwks(), ISSUER.pem()]))
    at = data.draw(st.integers(0, len(sample)))
    cut = data.draw(st.integers(0, 8))
    examine_all(sample[:at] + data.draw(st.binary(max_size=8)) + sample[at + cut :])


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_json_as_header_claims_or_key_gives_a_refusal_and_no_other_error(obj: object) -> None:
    examine_all(compact({"alg": "ES256", "jwk": obj, "x5c": obj}, obj, b"x").encode())
    examine_all(ISSUER.sign({"submods": obj, "ear.verifier-id": obj, "exp": obj}).encode())
    examine_all(json.dumps([["JWT", TOKEN], obj]).encode())
    examine_all(json.dumps({"keys": [obj, ISSUER.jwk(x5c=obj, key_ops=obj, alg=obj)]}).encode())


def test_the_largest_bundle_is_examined() -> None:
    service = NrasService(devices=DEVICES_MAX)
    raw = service.bundle()
    question = Question({"eat": raw}, NONE, service.now, {"jwks": service.jwks()})
    assert nras.SCHEME.examine(question).authentic is True


def test_a_key_set_full_of_keys_is_searched() -> None:
    others = [ISSUER.jwk(kid=f"other-{i}") for i in range(KEYS_MAX - 1)]
    token, keys = ISSUER.sign(RESULT), ISSUER.jwks(*others)
    examined = ear.examine(Question({"token": token.encode()}, NONE, 2, {"jwks": keys}))
    assert examined.authentic is True
