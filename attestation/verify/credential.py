"""Credential activation: proof that an attestation key lives in the TPM of an endorsement key.

The verifier encrypts a secret to the endorsement key, bound to the attestation key's name. A TPM
gives the secret back only if it holds both keys. The name covers the key's attributes, so a key
that lies about them has another name and gets no secret.

    challenge = challenge_for(evidence, os.urandom)         # None: the kind needs no activation
    answer    = …send challenge.credential.to_json(), receive the worker's answer…
    appraise(…, activation=challenge.activation(answer))

A challenge is for one appraisal and for the one who made it: an activation someone else ran proves
nothing to you. Source: TPM 2.0 Library Specification, Part 1 §24 and annexes B.10.3, C.6.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestation.evidence import TPM2, Evidence
from attestation.formats.tpm import parse_body
from attestation.formats.tpm_structures import parse_public
from attestation.members import Members
from wire.errors import AttestationError, MalformedError, refused
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable

_refused: Final = partial(refused, about="activation")
SECRET_LEN: Final = 32
SEED_LEN: Final = 32  # one block of the name hash, SHA-256
AES_128_CFB: Final = (0x0006, 128, 0x0043)  # what TCG's default endorsement key template names
NAME_LEN_MAX: Final = 66  # u16 hash id and a SHA-512 digest
CREDENTIAL_PART_MAX: Final = 1024

_IDENTITY = b"IDENTITY\0"  # OAEP label, with its terminating zero


@dataclass(frozen=True, slots=True)
class Credential:
    """A challenge for one TPM and one key in it.

    Attributes:
        blob: TPMS_ID_OBJECT: TPM2B integrity HMAC ‖ encrypted secret.
        enc_secret: the seed, encrypted to the endorsement key.
        ak_name: name of the attestation key it is for.
        ek_name: name of the endorsement key it is for.
    """

    blob: bytes
    enc_secret: bytes
    ak_name: bytes
    ek_name: bytes

    def to_json(self) -> dict[str, str]:
        """The form sent to the worker."""
        return {
            "blob": b64u(self.blob),
            "secret": b64u(self.enc_secret),
            "ak": b64u(self.ak_name),
            "ek": b64u(self.ek_name),
        }

    @classmethod
    def from_json(cls, obj: object) -> Credential:
        """Inverse of `to_json`.

        Raises:
            MalformedError: not a credential.
        """
        members = Members(obj, "credential", required=("blob", "secret", "ak", "ek"))
        return cls(
            members.blob("blob", CREDENTIAL_PART_MAX),
            members.blob("secret", CREDENTIAL_PART_MAX),
            members.blob("ak", NAME_LEN_MAX),
            members.blob("ek", NAME_LEN_MAX),
        )


@dataclass(frozen=True, slots=True)
class Activation:
    """A finished challenge: what was asked, what was expected, what came back.

    Attributes:
        credential: the challenge as sent.
        secret_expected: the secret inside it.
        answer: what the worker returned, or None for no usable answer.
    """

    credential: Credential
    secret_expected: bytes = field(repr=False)
    answer: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge and its secret, kept by the verifier that made it."""

    credential: Credential
    secret: bytes = field(repr=False)

    def activation(self, answer: object) -> Activation:
        """Pair the challenge with the worker's answer ({"secret": b64}, or anything else)."""
        try:
            members = Members(answer, "activation", required=("secret",))
            found: bytes | None = members.blob("secret", CREDENTIAL_PART_MAX)
        except MalformedError:
            found = None
        return Activation(self.credential, self.secret, found)


def challenge_for(evidence: Evidence, rng: Callable[[int], bytes]) -> Challenge | None:
    """A fresh challenge for the keys that `evidence` claims; None where its kind needs none.

    Raises:
        MalformedError: the evidence does not follow its format.
        AttestationError: its endorsement key cannot carry a challenge (`ek_attributes`).
    """
    if evidence.kind != TPM2:
        return None
    parsed = parse_body(evidence.body)
    secret = rng(SECRET_LEN)
    return Challenge(make_credential(parsed.ek.raw, parsed.ak.name, secret, rng), secret)


def make_credential(
    ek_pub: bytes, ak_name: bytes, secret: bytes, rng: Callable[[int], bytes]
) -> Credential:
    """What TPM2_MakeCredential computes, without a TPM.

    Args:
        ek_pub: TPM2B_PUBLIC of an RSA endorsement key with AES-128-CFB and SHA-256 names.
        ak_name: name of the key to be activated.
        secret: 16 to 32 bytes.
        rng: source of the seed. OAEP's own padding randomness comes from the crypto library.

    Raises:
        MalformedError: `ek_pub` does not parse.
        AttestationError: another kind of endorsement key (`ek_attributes`).
    """
    if not 16 <= len(secret) <= SECRET_LEN:
        raise ValueError(f"expected a secret of 16 to {SECRET_LEN} bytes, found {len(secret)}")
    ek = parse_public(ek_pub)
    if (
        not isinstance(ek.key, rsa.RSAPublicKey)
        or ek.symmetric != AES_128_CFB
        or ek.name_hash != "sha256"
    ):
        raise AttestationError(
            "endorsement key: expected an RSA key with AES-128-CFB and SHA-256 names",
            reasons=("ek_attributes",),
        )
    seed = rng(SEED_LEN)
    sha256 = hashes.SHA256()
    try:
        enc_secret = ek.key.encrypt(
            seed, padding.OAEP(padding.MGF1(sha256), algorithm=sha256, label=_IDENTITY)
        )
    except ValueError:  # a modulus that is no RSA modulus, such as an even one
        raise AttestationError(
            "endorsement key: found one that cannot encrypt, expected an RSA key",
            reasons=("ek_attributes",),
        ) from None
    sym_key = _kdfa(seed, b"STORAGE", ak_name, 128)
    # The zero IV is the standard's: the key is used once, for this one message.
    encryptor = Cipher(algorithms.AES(sym_key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", 256), identity + ak_name, "sha256")
    return Credential(_sized(integrity) + identity, enc_secret, ak_name, ek.name)


def check_activation(activation: Activation | None, ak_name: bytes, ek_name: bytes) -> str:
    """The TPM of `ek_name` proved that it holds `ak_name`.

    Raises:
        AttestationError: `activation_missing`, `activation_foreign` (made for other keys) or
            `activation_mismatch`.
    """
    if activation is None or activation.answer is None:
        raise _refused("activation_missing", "the TPM was not asked, or gave no answer")
    credential = activation.credential
    if (credential.ak_name, credential.ek_name) != (ak_name, ek_name):
        raise _refused("activation_foreign", "the challenge was made for other keys")
    if not hmac.compare_digest(activation.answer, activation.secret_expected):
        raise _refused("activation_mismatch", "the answer is not the challenge's secret")
    return "one TPM holds both keys"


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (SP 800-108 counter mode, HMAC-SHA256), at most one block."""
    message = (1).to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, hashlib.sha256)[: bits // 8]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
