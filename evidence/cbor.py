"""The CBOR a COSE_Sign1 of ours needs, and nothing else.

Types: integers of -2^64..2^64-1, byte strings, text strings, arrays, maps with integer or text
keys, tag 18. Floats, simple values (true, false, null), other tags, indefinite lengths are refused.
Exactly one encoding of a value is accepted (RFC 8949 §4.2.1): shortest heads, map keys in bytewise
order of their encodings, no duplicates, no trailing bytes. General codecs accept all of these, and
every second spelling of a signed header is a place to hide a second meaning.

Bytes are read by the reader that vendors' evidence is read by; ours is the narrower dialect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.formats.cbor import TAG_SIGN1, Dialect, Tagged
from attestation.formats.cbor import decode as read
from wire.errors import MalformedError

if TYPE_CHECKING:
    from attestation.formats.cbor import CborValue

DATA_MAX: Final = 64 * 1024  # a statement is about 2 KiB
DEPTH_MAX: Final = 6  # tag > array > map > map is what COSE with CWT claims uses
ITEMS_MAX: Final = 512  # a message is seven and a header's pairs
CODE: Final = "cbor_malformed"

_DIALECT: Final = Dialect(
    "CBOR", DATA_MAX, DEPTH_MAX, ITEMS_MAX, tags=frozenset({TAG_SIGN1}), simples=False
)
_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_HEAD_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}


def encode(value: CborValue) -> bytes:
    """Encode deterministically. A type outside the subset is a caller bug: `TypeError`."""
    if isinstance(value, bool) or not isinstance(value, int | bytes | str | list | dict | Tagged):
        msg = f"int, bytes, str, list, dict or Tagged expected, found {type(value).__name__}"
        raise TypeError(msg)
    if isinstance(value, int):
        return _head(_UINT, value) if value >= 0 else _head(_NINT, -1 - value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(_TEXT, len(raw)) + raw
    if isinstance(value, list):
        return _head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(_MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    if value.tag != TAG_SIGN1:
        msg = f"tag {TAG_SIGN1} expected, found {value.tag}"
        raise ValueError(msg)
    return _head(_TAG, value.tag) + encode(value.value)


def decode(data: bytes) -> CborValue:
    """Decode one item that fills `data` exactly; anything else raises `MalformedError`."""
    try:
        value = read(data, _DIALECT)
    except MalformedError as error:
        raise MalformedError(error.message, code=CODE) from error
    # The reader took shortest heads and no key twice, so only the order of keys can still differ.
    if encode(value) != data:
        raise MalformedError("CBOR: found map keys in another order than ascending", code=CODE)
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in _HEAD_SIZES.items():
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    msg = "integer of at most 64 bits expected"
    raise ValueError(msg)
