"""HPKE suites: base mode, single shot, empty aad (RFC 9180; draft-ietf-hpke-pq for the hybrid).

A suite's name spells KEM, KDF and AEAD ids in hex. HPKE only ever wraps 64 bytes here; the body is
encrypted under keys derived from them (`schedule`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .errors import MalformedError, OpenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HYBRID: Final = "647a-0001-0002"  # MLKEM768-X25519, HKDF-SHA256, AES-256-GCM
X25519: Final = "0020-0001-0002"  # X25519, HKDF-SHA256, AES-256-GCM

SEED_LEN: Final = 32
_MLKEM_PK = 1184
_MLKEM_SEED = 64
_X25519_LEN = 32
_WRAPPED_LEN = 64 + 16  # secret and response secret, plus the AEAD tag

_SecretHandle = hpke.MLKEM768X25519PrivateKey | X25519PrivateKey
_PublicHandle = hpke.MLKEM768X25519PublicKey | X25519PublicKey


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A worker's HPKE key; the secret bytes live in the crypto library, which clears them."""

    suite: str
    pk: bytes
    handle: _SecretHandle = field(repr=False)


@dataclass(frozen=True, slots=True)
class Suite:
    """One way to wrap a request secret.

    Attributes:
        name: the suite's name on the wire.
        pk_len: public key bytes.
        wrap_len: bytes of a wrap of 64 bytes: encapsulation, ciphertext, tag.
        post_quantum: whether recorded traffic stays closed to a quantum computer.
    """

    name: str
    pk_len: int
    wrap_len: int
    post_quantum: bool
    _hpke: hpke.Suite = field(repr=False)

    def generate(self, rng: Callable[[int], bytes]) -> PrivateKey:
        """A new private key from `rng(32)`."""
        return self.private_key(rng(SEED_LEN))

    def private_key(self, seed: bytes) -> PrivateKey:
        """The private key of a 32-byte seed (`skRm` of the published HPKE vectors)."""
        if len(seed) != SEED_LEN:
            raise ValueError(f"suite {self.name}: expected {SEED_LEN} bytes, found {len(seed)}")
        if self.name == X25519:
            classic = X25519PrivateKey.from_private_bytes(seed)
            return PrivateKey(self.name, classic.public_key().public_bytes_raw(), classic)
        expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED + _X25519_LEN)
        lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED])
        classic = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED:])
        pk = lattice.public_key().public_bytes_raw() + classic.public_key().public_bytes_raw()
        return PrivateKey(self.name, pk, hpke.MLKEM768X25519PrivateKey(lattice, classic))

    def public_bytes(self, sk: PrivateKey) -> bytes:
        """Public key bytes as bindings carry them: ML-KEM key ‖ X25519 key for the hybrid."""
        return sk.pk

    def seal(self, pk: bytes, info: bytes, pt: bytes) -> bytes:
        """`enc ‖ ciphertext ‖ tag` of `pt` for the holder of `pk`.

        The ephemeral key comes from the crypto library's own generator.

        Raises:
            MalformedError: `pk` is not a public key of this suite.
        """
        try:
            return self._hpke.encrypt(pt, self._public_handle(pk), info)
        except ValueError as cause:  # a point of low order: the shared secret would be zero
            raise MalformedError(f"suite {self.name}: not a usable public key") from cause

    def open(self, sk: PrivateKey, info: bytes, ct: bytes) -> bytes:
        """The plaintext of `ct`.

        Raises:
            OpenError: for every cause alike.
        """
        if sk.suite != self.name:
            raise ValueError(f"suite {self.name}: the key is of suite {sk.suite}")
        try:
            return self._hpke.decrypt(ct, sk.handle, info)
        except (InvalidTag, ValueError) as cause:
            raise OpenError("the wrapped secret did not open") from cause

    def _public_handle(self, pk: bytes) -> _PublicHandle:
        if len(pk) != self.pk_len:
            raise MalformedError(
                f"suite {self.name}: expected a public key of {self.pk_len} bytes, found {len(pk)}"
            )
        try:
            if self.name == X25519:
                return X25519PublicKey.from_public_bytes(pk)
            return hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(pk[:_MLKEM_PK]),
                X25519PublicKey.from_public_bytes(pk[_MLKEM_PK:]),
            )
        except ValueError as cause:
            raise MalformedError(f"suite {self.name}: not a public key") from cause


def _suite(name: str, kem: hpke.KEM, pk_len: int, *, post_quantum: bool) -> Suite:
    combined = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    return Suite(name, pk_len, kem.enc_length() + _WRAPPED_LEN, post_quantum, combined)


_ORDERED: Final = (  # strongest first
    _suite(HYBRID, hpke.KEM.MLKEM768_X25519, _MLKEM_PK + _X25519_LEN, post_quantum=True),
    _suite(X25519, hpke.KEM.X25519, _X25519_LEN, post_quantum=False),
)
SUITES: Final[Mapping[str, Suite]] = MappingProxyType({suite.name: suite for suite in _ORDERED})


def strongest(names: Iterable[str], allow_x25519: bool = False) -> str | None:
    """The strongest known suite among `names`, or None where none is acceptable.

    `names` must come from an attested binding: a list from anywhere else is a downgrade. X25519
    alone is considered only where the caller's policy allows it.
    """
    listed = set(names)
    for suite in _ORDERED:
        if suite.name in listed and (suite.post_quantum or allow_x25519):
            return suite.name
    return None
