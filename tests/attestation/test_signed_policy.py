"""A signed policy is what its envelope says it is."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.tee import SoftwareTee

from attestation.signed_policy import PAYLOAD_TYPE, SIGNATURES_MAX, load_policy, sign_policy
from wire.errors import PolicyError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = (KEY.public_key().public_bytes_raw(),)


def document(**changes: object) -> bytes:
    policy = json.dumps(SoftwareTee().demands).encode()
    signed = json.loads(sign_policy(policy, "tenant", KEY))
    return json.dumps({**signed, **changes}).encode()


def test_a_signed_policy_is_read_with_its_key() -> None:
    assert load_policy(document(), KEYS)


def test_any_of_several_keys_may_have_signed_it_and_no_other() -> None:
    """While a tenant changes its key, both are configured."""
    others = [Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2)]
    first, second = (other.public_key().public_bytes_raw() for other in others)
    for keys in ((*KEYS, first, second), (first, *KEYS, second), (first, second, *KEYS)):
        assert load_policy(document(), keys)
    with pytest.raises(PolicyError, match="expected one by a configured policy key"):
        load_policy(document(), (first, second))


@pytest.mark.parametrize("kind", ["application/vnd.in-toto+json", PAYLOAD_TYPE + "2", "", None, 7])
def test_a_signed_document_that_says_it_is_no_policy_is_refused(kind: object) -> None:
    with pytest.raises(PolicyError, match="payloadType"):
        load_policy(document(payloadType=kind), KEYS)


def test_signatures_are_one_to_as_many_as_the_limit() -> None:
    (genuine,) = json.loads(document())["signatures"]
    other = {"keyid": "another", "sig": "A" * 86}
    assert load_policy(document(signatures=[other] * (SIGNATURES_MAX - 1) + [genuine]), KEYS)
    for found in ([], [other] * SIGNATURES_MAX + [genuine]):
        with pytest.raises(PolicyError, match=f"an array of 1 to {SIGNATURES_MAX} items"):
            load_policy(document(signatures=found), KEYS)


def test_a_signed_policy_is_not_signed_again() -> None:
    with pytest.raises(PolicyError, match="found a signed policy, expected one that is not signed"):
        sign_policy(document(), "tenant", KEY)
