"""Signed tokens: whose key, which algorithm, which time. Each test changes one fact."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from simulators.tokens import Authority, Issuer, compact, segment, unsigned

from attestation.anchors import NONE, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.ear import VERAISON_PROFILE
from attestation.schemes.ear import SCHEME, examine
from wire.ids import b64u

NOW = 1_790_000_000
ISSUER = Issuer("ES256")
RSA = Issuer("RS256")
OTHER = Issuer("ES256", "key-2")
AUTHORITY = Authority()
CLAIMS: dict[str, Any] = {
    "eat_profile": VERAISON_PROFILE,
    "iat": NOW,
    "exp": NOW + 300,
    "ear.verifier-id": {"developer": "somebody", "build": "1"},
    "submods": {"cpu": {"ear.status": "affirming", "ear.trustworthiness-vector": {"hardware": 2}}},
}


def ask(token: str | bytes, keys: bytes | None, role: str = "jwks", **changes: Any) -> Examined:
    raw = token.encode() if isinstance(token, str) else token
    collateral = {} if keys is None else {role: keys}
    question = {"anchors": NONE, "now": NOW, **changes}
    return examine(Question(evidence={"token": raw}, collateral=collateral, **question))


def codes(examined: Examined) -> list[str]:
    assert examined.authentic is False
    return [reason.code for reason in examined.reasons]


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "alg", ["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "PS256", "PS512"]
)
def test_a_token_of_each_accepted_algorithm_is_authentic(alg: str) -> None:
    issuer = Issuer(alg)
    examined = ask(issuer.sign(CLAIMS), issuer.jwks())
    assert examined.authentic is True
    assert examined.claims == CLAIMS
    assert examined.not_after == NOW + 300
    assert examined.identities == (f"key:{issuer.fingerprint()}",)
    assert examined.bound is False


def test_one_jwk_or_one_pem_key_serves_a_token_that_names_no_key() -> None:
    token = ISSUER.sign(CLAIMS, kid=None)
    for key in (json.dumps(ISSUER.jwk()).encode(), ISSUER.pem()):
        assert ask(token, key, "public_key").authentic is True


def test_an_rsa_key_in_pem_verifies() -> None:
    assert ask(RSA.sign(CLAIMS, kid=None), RSA.pem(), "public_key").authentic is True


# --- attestation checklist: alg none, HS256 with the public key, kid unknown, duplicate kid


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
def test_an_unsigned_token_is_refused_in_every_spelling(alg: str) -> None:
    assert codes(ask(unsigned(CLAIMS, alg), ISSUER.jwks())) == ["alg_none"]


def test_an_unsigned_token_still_says_what_it_claims() -> None:
    assert ask(unsigned(CLAIMS), ISSUER.jwks()).claims["iat"] == NOW


def test_none_with_a_genuine_signature_is_refused() -> None:
    assert codes(ask(ISSUER.sign(CLAIMS, alg="none"), ISSUER.jwks())) == ["alg_none"]


@pytest.mark.parametrize("issuer", [ISSUER, RSA], ids=["ec", "rsa"])
def test_hs256_keyed_with_the_public_key_is_refused(issuer: Issuer) -> None:
    token = issuer.hmac_with_public_key(CLAIMS)
    for keys, role in ((issuer.jwks(), "jwks"), (issuer.pem(), "public_key"), (None, "jwks")):
        examined = ask(token, keys, role)
        assert codes(examined) == ["alg_not_accepted"]
        assert examined.reasons[0].step == "ear 3 algorithm"  # before any key is looked at


def test_a_symmetric_key_in_a_key_set_is_refused() -> None:
    keys = json.dumps({"keys": [{"kty": "oct", "kid": "key-1", "k": "AAAA"}]}).encode()
    assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["key_set_malformed"]


def test_a_private_key_in_a_key_set_is_refused() -> None:
    assert codes(ask(ISSUER.sign(CLAIMS), ISSUER.jwks(d="AAAA"))) == ["key_set_malformed"]


def test_a_kid_that_is_not_in_the_set_is_refused() -> None:
    assert codes(ask(ISSUER.sign(CLAIMS, kid="key-9"), ISSUER.jwks())) == ["unknown_signing_key"]


def test_a_token_that_names_no_key_of_a_set_is_refused() -> None:
    for keys in (ISSUER.jwks(), ISSUER.jwks(kid=None)):
        assert codes(ask(ISSUER.sign(CLAIMS, kid=None), keys)) == ["unknown_signing_key"]


def test_no_key_set_at_all_is_refused() -> None:
    for keys in (None, b'{"keys":[]}'):
        assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["unknown_signing_key"]


@pytest.mark.parametrize("other", [ISSUER, OTHER])
def test_a_key_and_a_key_set_together_are_refused_whichever_signed(other: Issuer) -> None:
    both = {"public_key": json.dumps(ISSUER.jwk()).encode(), "jwks": other.jwks()}
    token = ISSUER.sign(CLAIMS).encode()
    question = Question(evidence={"token": token}, collateral=both, anchors=NONE, now=NOW)
    assert codes(examine(question)) == ["key_set_malformed"]
    for role, keys in both.items():
        assert ask(token, keys, role).authentic is (role == "public_key" or other is ISSUER)


def test_one_key_does_not_serve_a_token_that_names_another() -> None:
    key = json.dumps(ISSUER.jwk()).encode()
    refused = ask(ISSUER.sign(CLAIMS, kid="key-9"), key, "public_key")
    assert codes(refused) == ["unknown_signing_key"]


def test_a_kid_that_names_two_keys_is_refused() -> None:
    keys = ISSUER.jwks(OTHER.jwk(kid="key-1"))
    assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["duplicate_kid"]


def test_a_key_of_an_unknown_kind_does_not_spoil_the_set() -> None:
    stranger = {"kty": "EC", "crv": "secp256k1", "kid": "key-3", "x": "AA", "y": "AA"}
    assert ask(ISSUER.sign(CLAIMS), ISSUER.jwks(stranger)).authentic is True
    named = ask(ISSUER.sign(CLAIMS, kid="key-3"), ISSUER.jwks(stranger))
    assert codes(named) == ["key_invalid"]


# --- the key decides the algorithm


def test_the_key_decides_the_algorithm_and_the_token_does_not() -> None:
    issuer = Issuer("ES384")
    token = ISSUER.sign(CLAIMS)  # says ES256, as its key would
    assert codes(ask(token, issuer.jwks())) == ["alg_not_accepted"]


def test_a_key_that_states_one_algorithm_verifies_no_other() -> None:
    token = RSA.sign(CLAIMS)
    assert ask(token, RSA.jwks(alg="RS256")).authentic is True
    assert codes(ask(token, RSA.jwks(alg="PS256"))) == ["alg_not_accepted"]
    assert codes(ask(token, RSA.jwks(alg="HS256"))) == ["alg_not_accepted"]


@pytest.mark.parametrize("change", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
def test_a_key_for_something_else_verifies_nothing(change: dict[str, Any]) -> None:
    assert codes(ask(ISSUER.sign(CLAIMS), ISSUER.jwks(**change))) == ["alg_not_accepted"]


def test_an_rsa_key_too_short_to_trust_is_refused() -> None:
    short = Issuer("RS256", bits=1024)
    assert codes(ask(short.sign(CLAIMS), short.jwks())) == ["key_invalid"]


@pytest.mark.parametrize("exponent", ["Aw", b64u(b"\x01" + bytes(200) + b"\x01")])
def test_an_rsa_exponent_too_small_or_ruinous_is_refused(exponent: str) -> None:
    assert codes(ask(RSA.sign(CLAIMS), RSA.jwks(e=exponent))) == ["key_invalid"]


def test_a_point_off_the_curve_is_refused() -> None:
    x = ISSUER.jwk()["x"]
    assert codes(ask(ISSUER.sign(CLAIMS), ISSUER.jwks(y=x))) == ["key_invalid"]


# --- signature


def test_a_flipped_bit_in_header_claims_or_signature_is_refused() -> None:
    token = ISSUER.sign(CLAIMS)
    header, body, signature = token.split(".")
    changed = {**CLAIMS, "iat": NOW - 1}
    assert codes(ask(f"{header}.{segment(changed)}.{signature}", ISSUER.jwks())) == [
        "signature_invalid"
    ]
    other = segment(ISSUER.header(typ="JWT"))
    assert codes(ask(f"{other}.{body}.{signature}", ISSUER.jwks())) == ["signature_invalid"]
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[-1] ^= 1
    assert codes(ask(f"{header}.{body}.{b64u(bytes(raw))}", ISSUER.jwks())) == ["signature_invalid"]


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), bytes(32) + b"\xff" * 32, b"\x01" * 63, b"\x01" * 65],
    ids=["none", "zero", "r-zero", "short", "long"],
)
def test_a_signature_of_another_shape_is_refused(signature: bytes) -> None:
    token = compact(ISSUER.header(), CLAIMS, signature)
    assert codes(ask(token, ISSUER.jwks())) == ["signature_invalid"]


def test_a_signature_in_der_is_refused() -> None:
    head = f"{segment(ISSUER.header())}.{segment(CLAIMS)}"
    raw = ISSUER.raw_signature(head.encode())
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    der = encode_dss_signature(r, s)
    assert codes(ask(f"{head}.{b64u(der)}", ISSUER.jwks())) == ["signature_invalid"]


def test_a_token_signed_by_another_key_under_our_kid_is_refused() -> None:
    token = OTHER.sign(CLAIMS, kid="key-1")
    assert codes(ask(token, ISSUER.jwks())) == ["signature_invalid"]


# --- what a token brings along never becomes a key


def test_a_jwk_in_the_header_never_becomes_a_key() -> None:
    token = OTHER.sign(CLAIMS, jwk=OTHER.jwk(), kid="key-1")
    assert codes(ask(token, ISSUER.jwks())) == ["unknown_signing_key"]
    assert codes(ask(token, None)) == ["unknown_signing_key"]


def test_a_key_set_copied_from_the_tokens_header_is_not_independent() -> None:
    token = ISSUER.sign(CLAIMS, jwk=ISSUER.jwk())
    assert codes(ask(token, ISSUER.jwks())) == ["unknown_signing_key"]


def test_a_pin_of_exactly_this_key_makes_it_independent() -> None:
    token = ISSUER.sign(CLAIMS, jwk=ISSUER.jwk())
    pinned = Anchors(frozenset({bytes.fromhex(ISSUER.fingerprint())}))
    assert ask(token, ISSUER.jwks(), anchors=pinned).authentic is True


def test_a_certificate_in_the_header_never_becomes_a_key() -> None:
    leaf = base64.b64encode(AUTHORITY.issue(OTHER, NOW - 10, NOW + 10)).decode()
    root = base64.b64encode(AUTHORITY.der()).decode()
    token = OTHER.sign(CLAIMS, x5c=[leaf, root], kid="key-1")
    pinned = Anchors(frozenset({bytes(32)}))
    assert codes(ask(token, ISSUER.jwks(), anchors=pinned)) == ["unknown_signing_key"]


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_an_address_in_the_header_is_never_followed(name: str) -> None:
    url = "https://issuer.invalid/keys"
    assert codes(ask(ISSUER.sign(CLAIMS, **{name: url}), None)) == ["unknown_signing_key"]
    # With the issuer's own key set it changes nothing: the address is not read at all.
    assert ask(ISSUER.sign(CLAIMS, **{name: url}), ISSUER.jwks()).authentic is True


@pytest.mark.parametrize("jwk", ["text", {"kty": "EC"}, {"kty": "oct", "k": "AA"}, 7])
def test_an_unreadable_key_in_the_header_is_refused(jwk: object) -> None:
    token = ISSUER.sign(CLAIMS, jwk=jwk)
    assert codes(ask(token, ISSUER.jwks())) == ["unknown_signing_key"]


@pytest.mark.parametrize("member", [{"crit": ["exp"]}, {"b64": False}, {"zip": "DEF"}])
def test_a_header_that_changes_the_rules_is_refused(member: dict[str, Any]) -> None:
    assert codes(ask(ISSUER.sign(CLAIMS, **member), ISSUER.jwks())) == ["evidence_malformed"]


# --- certificates that a key set states for its key


def with_chain(*certificates: bytes) -> bytes:
    return ISSUER.jwks(x5c=[base64.b64encode(der).decode() for der in certificates])


def test_the_certificates_of_a_key_bound_how_long_it_counts() -> None:
    for chain in (
        (AUTHORITY.issue(ISSUER, NOW - 10, NOW + 10),),
        (AUTHORITY.issue(ISSUER, NOW - 10, NOW + 10), AUTHORITY.der()),
    ):
        assert ask(ISSUER.sign(CLAIMS), with_chain(*chain)).not_after == NOW + 10


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("window", [(-20, -10), (10, 20)], ids=["expired", "not-yet"])
def test_a_key_whose_certificate_does_not_hold_now_is_refused(
    window: tuple[int, int], alone: bool
) -> None:
    start, end = window
    chain = [AUTHORITY.issue(ISSUER, NOW + start * 86400, NOW + end * 86400)]
    keys = with_chain(*chain) if alone else with_chain(*chain, AUTHORITY.der())
    assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["certificate_not_valid_at_time"]


def test_a_certificate_for_another_key_is_refused() -> None:
    keys = with_chain(AUTHORITY.issue(OTHER, NOW - 10, NOW + 10))
    assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["chain_invalid"]


def test_a_chain_that_another_authority_continues_is_refused() -> None:
    stranger = Authority()
    keys = with_chain(AUTHORITY.issue(ISSUER, NOW - 10, NOW + 10), stranger.der())
    assert codes(ask(ISSUER.sign(CLAIMS), keys)) == ["untrusted_root"]


def test_a_certificate_that_does_not_parse_is_refused() -> None:
    assert codes(ask(ISSUER.sign(CLAIMS), with_chain(b"\x30\x00"))) == ["chain_invalid"]


# --- time


def test_an_expired_token_is_refused_from_the_second_it_ends() -> None:
    token = ISSUER.sign(claims(exp=NOW))
    assert codes(ask(token, ISSUER.jwks())) == ["token_expired"]
    assert ask(token, ISSUER.jwks(), now=NOW - 1).authentic is True


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_from_the_future_is_refused(name: str) -> None:
    token = ISSUER.sign(claims(**{name: NOW + 121}))
    assert codes(ask(token, ISSUER.jwks())) == ["token_not_yet_valid"]
    assert ask(token, ISSUER.jwks(), now=NOW + 1).authentic is True


@pytest.mark.parametrize("value", ["1790000300", True, -1, 1e300, [1]])
def test_a_time_that_is_none_is_refused(value: object) -> None:
    assert codes(ask(ISSUER.sign(claims(exp=value)), ISSUER.jwks())) == ["evidence_malformed"]


def test_an_unknown_key_does_not_hide_that_the_token_expired() -> None:
    token = ISSUER.sign(claims(exp=NOW), kid="key-9")
    assert codes(ask(token, ISSUER.jwks())) == ["unknown_signing_key", "token_expired"]


# --- nonce and binding


@pytest.mark.parametrize(
    "spell",
    [bytes.hex, b64u, lambda n: base64.b64encode(n).decode(), lambda n: [b64u(n)]],
    ids=["hex", "base64url", "base64", "array"],
)
def test_the_nonce_asked_for_binds_a_token_in_every_spelling(spell: Any) -> None:
    nonce = bytes(range(32))
    token = ISSUER.sign(claims(eat_nonce=spell(nonce)))
    examined = ask(token, ISSUER.jwks(), expected=Expected(nonce=nonce))
    assert examined.authentic is True
    assert examined.bound is True


@pytest.mark.parametrize(
    "found",
    [None, "", bytes(32).hex(), bytes(range(31)).hex(), bytes(range(32)).hex().upper(), 7],
    ids=["none", "empty", "other", "prefix", "upper-case", "number"],
)
def test_any_other_nonce_is_refused(found: object) -> None:
    token = ISSUER.sign(claims(eat_nonce=found))
    examined = ask(token, ISSUER.jwks(), expected=Expected(nonce=bytes(range(32))))
    assert codes(examined) == ["nonce_mismatch"]
    assert examined.bound is False


def test_two_nonces_are_no_nonce() -> None:
    nonce = bytes(range(32))
    token = ISSUER.sign(claims(eat_nonce=[b64u(nonce), b64u(bytes(32))]))
    examined = ask(token, ISSUER.jwks(), expected=Expected(nonce=nonce))
    assert codes(examined) == ["nonce_mismatch"]


def test_an_empty_nonce_asked_for_is_never_found() -> None:
    token = ISSUER.sign(claims(eat_nonce=""))
    refused = ask(token, ISSUER.jwks(), expected=Expected(nonce=b""))
    assert codes(refused) == ["nonce_mismatch"]


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        (Expected(report_data=bytes(64)), "report_data_mismatch"),
        (Expected(user_data=b"x"), "user_data_mismatch"),
        (Expected(arch="HOPPER"), "product_not_accepted"),
    ],
)
def test_what_a_result_cannot_carry_is_refused_when_asked(expected: Expected, code: str) -> None:
    assert codes(ask(ISSUER.sign(CLAIMS), ISSUER.jwks(), expected=expected)) == [code]


def test_the_scheme_asks_nobody_for_keys() -> None:
    assert SCHEME.needs({"token": ISSUER.sign(CLAIMS).encode()}) == ()
    assert SCHEME.carries is None


def test_an_rsa_modulus_of_absurd_size_is_refused() -> None:
    modulus = b64u(b"\x81" + bytes(1030))
    assert codes(ask(RSA.sign(CLAIMS), RSA.jwks(n=modulus))) == ["key_set_malformed"]
    assert isinstance(RSA.key, rsa.RSAPrivateKey)
