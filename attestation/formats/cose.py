"""COSE_Sign1 (RFC 9052), parsed and unverified; `verify.cose` checks the signature.

    [protected: bstr, unprotected: map, payload: bstr, signature: bstr], tag 18 before it or not

The algorithm is read from the protected header only. An algorithm, or a list of critical headers,
in the unprotected one, where no signature covers it, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError

from .cbor import TAG_SIGN1, Tagged, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .cbor import CborKey, CborValue, Dialect

HEADER_ALG: Final = 1
HEADER_CRIT: Final = 2
HEADER_CONTENT_TYPE: Final = 3
HEADER_KID: Final = 4
HEADER_X5CHAIN: Final = 33

_CONTEXT: Final = b"\x84\x6aSignature1"  # an array of four, its first item


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1, *unverified*.

    Attributes:
        tagged: whether tag 18 stood before it.
        protected_raw: the protected header's bytes: what the signature covers.
        protected, unprotected: headers by label.
        algorithm: the protected `alg`.
        payload: what is signed.
        signature: as received.
    """

    tagged: bool
    protected_raw: bytes
    protected: Mapping[CborKey, CborValue]
    unprotected: Mapping[CborKey, CborValue]
    algorithm: int
    payload: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """The Sig_structure (RFC 9052 §4.4) over the bytes as received."""
        return _CONTEXT + _string(self.protected_raw) + _string(b"") + _string(self.payload)


def parse_sign1(value: CborValue, header: Dialect) -> Sign1:
    """A decoded COSE_Sign1.

    Args:
        value: what `decode` gave, with tag 18 or without.
        header: how the protected header may be encoded.

    Raises:
        MalformedError: not a COSE_Sign1 with an attached payload, or a header in the wrong place.
    """
    tagged = isinstance(value, Tagged) and value.tag == TAG_SIGN1
    fields = value.value if isinstance(value, Tagged) and tagged else value
    if not isinstance(fields, list) or len(fields) != 4:
        raise MalformedError(f"{header.what}: expected a COSE_Sign1, an array of four")
    protected_raw, unprotected, payload, signature = fields
    if not (
        isinstance(protected_raw, bytes)
        and isinstance(unprotected, dict)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
    ):
        raise MalformedError(
            f"{header.what}: expected bytes, a map, payload bytes and signature bytes"
        )
    protected = decode(protected_raw, header)
    if not isinstance(protected, dict):
        raise MalformedError(f"{header.what}: expected a map as protected header")
    if HEADER_CRIT in protected or {HEADER_ALG, HEADER_CRIT} & set(unprotected):
        raise MalformedError(f"{header.what}: expected no critical and no unsigned algorithm")
    if set(protected) & set(unprotected):
        raise MalformedError(f"{header.what}: found a header twice, expected each in one place")
    algorithm = protected.get(HEADER_ALG)
    if isinstance(algorithm, bool) or not isinstance(algorithm, int):
        raise MalformedError(f"{header.what}: expected an algorithm number in the signed header")
    return Sign1(tagged, protected_raw, protected, unprotected, algorithm, payload, signature)


def _string(data: bytes) -> bytes:
    """A CBOR byte string."""
    size = len(data)
    if size < 24:
        return bytes([0x40 | size]) + data
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    return bytes([0x58 + width.bit_length() - 1]) + size.to_bytes(width, "big") + data
