"""Keys that verify tokens: a token that brings its own key along vouches for nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from simulators.tokens import Authority as TokenAuthority
from simulators.tokens import Issuer
from simulators.verdicts import refusal

from attestation.anchors import NONE, Anchors
from attestation.formats.jose import parse_token
from attestation.formats.jwks import parse_keys
from attestation.verify.signing_key import check_independent, load_key


def independent(issuer: Issuer, keys: bytes, **header: Any) -> str:
    token = parse_token(issuer.sign({"iss": "somebody"}, **header).encode())
    return check_independent(token, load_key(parse_keys(keys).keys[0]), NONE)


def test_what_a_token_brings_along_is_said() -> None:
    issuer = Issuer("ES256")
    assert independent(issuer, issuer.jwks()) == "the token brings no key along"
    url = "https://issuer.invalid/keys"
    assert independent(issuer, issuer.jwks(), jku=url).endswith("are ignored: jku")


def test_a_pinned_key_is_said_to_be_pinned() -> None:
    issuer = Issuer("ES256")
    token = parse_token(issuer.sign({}, jwk=issuer.jwk()).encode())
    key = load_key(parse_keys(issuer.jwks()).keys[0])
    pinned = Anchors(frozenset({bytes.fromhex(issuer.fingerprint())}))
    assert check_independent(token, key, pinned) == "the key is pinned"


def test_a_key_is_recognised_in_the_tokens_own_certificate() -> None:
    issuer, authority, other = Issuer("ES256"), TokenAuthority(), Issuer("ES256")
    leaf, foreign = (authority.issue(one, 0, 2_000_000_000) for one in (issuer, other))
    for chain, why in (
        ([leaf], "in the token's own header"),
        ([leaf, authority.der()], "in the token's own header"),
        ([foreign, leaf], "that is not the issuer's"),
    ):
        x5c = [base64.b64encode(der).decode() for der in chain]
        code = refusal(lambda x5c=x5c: independent(issuer, issuer.jwks(), x5c=x5c), why)
        assert code == "unknown_signing_key"


def test_a_certificate_in_a_header_that_is_no_base64_cannot_be_read() -> None:
    issuer, authority = Issuer("ES256"), TokenAuthority()
    text = base64.b64encode(authority.issue(issuer, 0, 2_000_000_000)).decode()
    for odd in ("!" + text, text[:8] + "\n" + text[8:]):
        code = refusal(lambda odd=odd: independent(issuer, issuer.jwks(), x5c=[odd]), "be read")
        assert code == "unknown_signing_key"


@pytest.mark.parametrize(
    "jwk", [{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, {"kty": "AKP", "crv": "P-256"}]
)
def test_a_key_of_an_unknown_kind_or_curve_is_refused(jwk: dict[str, str]) -> None:
    key = parse_keys(json.dumps({"keys": [jwk]}).encode()).keys[0]
    assert refusal(lambda: load_key(key), "unknown kind") == "key_invalid"


def test_an_ed25519_key_in_pem_verifies_eddsa() -> None:
    issuer = Issuer("EdDSA")
    pem = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert load_key(parse_keys(pem).keys[0]).algorithms == ("EdDSA",)
