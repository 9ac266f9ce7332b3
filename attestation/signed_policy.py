"""Policies as signed documents.

    document = {"payloadType": "application/vnd.anchorhold.policy+json",
                "payload": b64 of the policy's bytes,
                "signatures": [{"keyid": text, "sig": b64 64}]}      DSSE, Ed25519

Whoever is configured with a policy key takes only policies signed with it: a file that anybody who
can write the disk may replace is no demand of the tenant. Whoever is not takes plain policies only:
a signature nobody checks would look like one that was.

Spec: docs/spec/evidence.md §5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire.canonical import encode, parse_strict
from wire.dsse import pae
from wire.errors import MalformedError, PolicyError
from wire.excerpt import shown
from wire.ids import b64u

from .members import Members
from .policy import POLICY_MAX, Policy, parse_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

PAYLOAD_TYPE: Final = "application/vnd.anchorhold.policy+json"
SIGNATURES_MAX: Final = 8
DOCUMENT_MAX: Final = POLICY_MAX * 4 // 3 + 4096


def sign_policy(policy: bytes, keyid: str, key: Ed25519PrivateKey) -> bytes:
    """The signed document of a policy.

    Args:
        policy: the policy's bytes; must be a policy.
        keyid: the key's name, a hint for people.
        key: the tenant's policy key.

    Raises:
        PolicyError: not a policy, or one that is signed already.
    """
    if _is_signed(policy):
        raise PolicyError(
            "policy: found a signed policy, expected one that is not signed already",
            hint="sign the policy itself, from which that document was made",
        )
    parse_policy(policy)
    signature = key.sign(pae(PAYLOAD_TYPE, policy))
    return encode(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": b64u(policy),
            "signatures": [{"keyid": keyid, "sig": b64u(signature)}],
        }
    )


def load_policy(raw: bytes, keys: Sequence[bytes] = ()) -> Policy:
    """The policy in a file, signed if and only if keys are given.

    Args:
        raw: a policy, or a signed document of one.
        keys: Ed25519 public keys (32 bytes), one of which must have signed it; () for none.

    Raises:
        PolicyError: not a policy; unsigned or signed otherwise where keys are given; signed where
            there is no key to check it with.
    """
    signed = _is_signed(raw)
    if not keys:
        if signed:
            raise PolicyError(
                "policy: found a signed policy, expected the key to check it with",
                hint="give the tenant's policy key",
            )
        return parse_policy(raw)
    if not signed:
        raise PolicyError(
            "policy: found no signature, expected one by a configured policy key",
            hint="sign it with `anchorhold policy sign`",
        )
    return parse_policy(_opened(raw, keys))


def _is_signed(raw: bytes) -> bool:
    try:
        obj = parse_strict(raw, max_bytes=DOCUMENT_MAX)
    except MalformedError:
        return False
    return isinstance(obj, dict) and "payloadType" in obj


def _opened(raw: bytes, keys: Sequence[bytes]) -> bytes:
    members = Members(
        parse_strict(raw, max_bytes=DOCUMENT_MAX),
        "signed policy",
        required=("payloadType", "payload", "signatures"),
        error=PolicyError,
    )
    if members.value("payloadType") != PAYLOAD_TYPE:
        raise members.fail("payloadType", f'"{PAYLOAD_TYPE}"')
    payload = members.blob("payload", POLICY_MAX)
    named = []
    for item in members.array("signatures", SIGNATURES_MAX, 1):
        entry = Members(
            item, "signed policy.signatures", required=("keyid", "sig"), error=PolicyError
        )
        named.append(entry.text("keyid"))
        if any(_signed_by(key, entry.data("sig", 64), payload) for key in keys):
            return payload
    raise PolicyError(
        f"policy: found signatures named {', '.join(map(shown, named))}, "
        "expected one by a configured policy key",
        hint="the policy was changed after it was signed, or another key signed it",
    )


def _signed_by(key: bytes, signature: bytes, payload: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, pae(PAYLOAD_TYPE, payload))
    except InvalidSignature:
        return False
    return True
