"""A signed policy is what its envelope says it is."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.tee import SoftwareTee

from attestation.signed_policy import PAYLOAD_TYPE, load_policy, sign_policy
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
