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
