"""What is done to a genuine input: blind changes, and changes that know a little of the format.

`mutate` draws one to four of them. Blind ones find wrong bounds. Those that know quotes, lengths,
PEM, JSON, DER and CBOR, and those that look inside hex and base64, come past the first checks.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.draws import Draws

SIZE_MAX: Final = 512 * 1024  # several times the largest honest input; growth stays bounded

_NUMBERS: Final = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 47, 48, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512,
    1023, 1024, 4095, 4096, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 0x100000000, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_TOKENS: Final = (
    # JSON
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"-1", b"1e999", b"0.5", b"1e-400",
    b"9" * 30, b"9" * 5000, b'"\\ud800"', b"\\u0000", b"NaN", b"Infinity", b'""', b"{}", b"[]",
    b"[" * 64, b'{"a":' * 64, b"\xef\xbb\xbf", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80",
    # PEM
    b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN X-----", b"\r\n",
    b"\n", b"\0", b"====", b"-----",
    # CBOR: indefinite lengths, breaks, tags, floats, huge lengths, deep nesting
    b"\x9f", b"\xbf", b"\x5f", b"\x7f", b"\xff", b"\xf6", b"\xf7", b"\xf9\x7e\x00", b"\xc2\x41\x01",
    b"\xd2", b"\xd9\x01\xf5", b"\xd9\x02\x30", b"\xd8\x1c", b"\xd8\x1d\x00", b"\xa0", b"\x80",
    b"\x81" * 64, b"\xa1\x00" * 64, b"\x5b" + b"\xff" * 8, b"\x9b" + b"\0" * 4 + b"\xff" * 4,
    b"\xbb" + b"\0" * 4 + b"\xff" * 4, b"\x1b" + b"\xff" * 8, b"\x3b" + b"\xff" * 8,
    # DER: long and indefinite lengths, other types, times that no clock shows
    b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x83\x00\x00\x01", b"\x02\x01\xff", b"\x05\x00",
    b"\x02\x81\x01\x00", b"\x06\x01\x80", b"\x06\x00", b"\x0c\x00", b"\x13\x01\xff", b"\x1e\x01a",
    b"\x17\x0d991332256161Z", b"\x18\x0f99991231235959Z", b"\x18\x0f00000101000000Z", b"\x03\x00",
    b"\x03\x01\x09", b"\x01\x01\x02", b"\x24\x80", b"\x31\x00", b"\x30\x00",
    b"\xa0\x03\x02\x01\x7f",
    # XML
    b"<", b"</", b"]]>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<?xml version='1.1'?>",
    b"<a>" * 64, b"xmlns:a='b'", b"<![CDATA[",
    # JOSE
    b".", b"..", b"eyJhbGciOiJub25lIn0.",
)  # fmt: skip
_TAGS: Final = bytes((
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1A, 0x1B,
    0x1C, 0x1E, 0x30, 0x31, 0x80, 0x81, 0x82, 0xA0, 0xA1, 0xA2, 0xA3,
))  # fmt: skip
_WRAPPED = re.compile(rb"[A-Za-z0-9+/_\-\r\n]{24,}={0,2}")
_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**64, -(2**63), 1.5, "", "a", "\0", "\ud800",
    "a" * 70_000, "0" * 64, "AA", "A" * 86, "1970-01-01T00:00:00Z", "9999-12-31T23:59:60Z",
    "0000-00-00T00:00:00Z", "٣", "sha256:" + "0" * 64, [], {}, [[]], [None], {"": None}, [0] * 300,
    {str(n): 0 for n in range(300)},
)  # fmt: skip


def mutate(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    """The input with one to four changes.

    Args:
        data: a seed.
        others: seeds to splice with.
        words: what this format in particular knows.
        draws: where the choices come from.
    """
    out = data
    for _ in range(1 + draws.below(4) // 2 + draws.below(2)):
        out = draws.pick(_CHANGES)(out, others, words, draws)[:SIZE_MAX]
    return out


def _flip(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    return _put(data, at := draws.below(len(data)), bytes([_at(data, at) ^ (1 << draws.below(8))]))


def _byte(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    return _put(data, draws.below(len(data)), bytes([draws.below(256)]))


def _tag(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    """Another DER type where one stands; anything may follow it."""
    for _ in range(16):
        at = draws.below(len(data))
        if _at(data, at) in _TAGS:
            return _put(data, at, bytes([draws.pick(_TAGS)]))
    return data


def _near(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    """A length or count that is off by a little."""
    at = draws.below(len(data))
    return _put(data, at, bytes([(_at(data, at) + draws.pick((-2, -1, 1, 2, 16, -16))) % 256]))


def _number(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    width = draws.pick((1, 2, 4, 8))
    value = draws.pick((*_NUMBERS, len(data))) % 256**width
    # Lengths stand at even places; half of the writes go there.
    at = draws.below(len(data))
    at -= at % width if draws.chance(2) else 0
    return _put(data, at, value.to_bytes(width, draws.pick(("little", "big"))))


def _cut(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    return data[: draws.below(len(data) + 1)]


def _behead(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    return data[draws.short(len(data)) :]


def _extend(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    tail = draws.octets(draws.short(256))
    return data + (bytes(len(tail)) if draws.chance(2) else tail)


def _remove(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    at = draws.below(len(data))
    return data[:at] + data[at + draws.short(len(data) - at) :]


def _double(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    at = draws.below(len(data))
    block = data[at : at + draws.short(len(data) - at)]
    times = draws.pick((1, 1, 1, 2, 16, 200)) if len(block) < 1024 else 1
    return data[:at] + block * times + data[at:]


def _swap(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    size = draws.short(len(data) // 2)
    one, two = sorted((draws.below(len(data) - size), draws.below(len(data) - size)))
    if two < one + size:
        return data
    middle = data[one + size : two]
    return (
        data[:one] + data[two : two + size] + middle + data[one : one + size] + data[two + size :]
    )


def _noise(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    return _put(data, draws.below(len(data)), draws.octets(draws.short(64)))


def _zero(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    size = draws.short(96)
    return _put(data, draws.below(len(data)), (b"\0" if draws.chance(2) else b"\xff") * size)


def _splice(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    other = draws.pick(others) if others else data
    at = draws.below(len(data) + 1)
    # The same place in both, where fields are the same; or any.
    return data[:at] + other[at if draws.chance(2) else draws.below(len(other) + 1) :]


def _token(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    token = draws.pick(words) if words and draws.chance(2) else draws.pick(_TOKENS)
    at = draws.below(len(data) + 1)
    return data[:at] + token + data[at + (0 if draws.chance(2) else len(token)) :]


def _json(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    """One value, key or member of a JSON text; not JSON: a token."""
    if data[:1] not in (b"{", b"["):
        return _token(data, others, words, draws)
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return _token(data, others, words, draws)
    node = root
    for _ in range(24):
        inner = node.values() if isinstance(node, dict) else node
        below = [child for child in inner if isinstance(child, dict | list) and child]
        if not below or draws.chance(4):
            break
        node = draws.pick(below)
    _change(node, words, draws)
    try:
        return json.dumps(root, separators=(",", ":"), sort_keys=draws.chance(2)).encode()
    except (ValueError, RecursionError):
        return data


def _change(node: Any, words: Sequence[bytes], draws: Draws) -> None:
    if not node:
        return
    if isinstance(node, list):
        at = draws.below(len(node))
        if draws.chance(4):
            del node[at]
        elif draws.chance(4):
            node.extend([node[at]] * draws.pick((1, 2, 40)))
        else:
            node[at] = _value(node[at], words, draws)
        return
    key = draws.pick(list(node))
    if draws.chance(6):
        del node[key]
    elif draws.chance(6):
        node[draws.pick((key + "x", "", "a" * 300, *map(_text, words)))] = node[key]
    else:
        node[key] = _value(node[key], words, draws)


def _value(held: Any, words: Sequence[bytes], draws: Draws) -> Any:
    if isinstance(held, str) and held and draws.chance(2):
        changed = draws.pick((_flip, _byte, _cut, _inside, _double))
        return _text(changed(held.encode("utf-8", "replace"), (), words, draws))
    if isinstance(held, int) and draws.chance(2):
        return draws.pick((held + 1, held - 1, -held, *_NUMBERS))
    if words and draws.chance(4):
        return _text(draws.pick(words))
    return draws.pick(_VALUES)


def _inside(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draws: Draws) -> bytes:
    """A change within what hex or base64 wraps: certificates, tokens, reports."""
    start = draws.below(len(data))
    if draws.chance(4):
        match = _HEX.search(data, start) or _HEX.search(data)
        if match is None:
            return data
        held = bytes.fromhex(match[0][: len(match[0]) & ~1].decode())
        return _put(data, match.start(), _raw(held, words, draws).hex().encode(), match.end())
    match = _WRAPPED.search(data, start) if draws.chance(2) else None
    match = match or _WRAPPED.search(data)
    if match is None:
        return data
    url = b"-" in match[0] or b"_" in match[0] or b"." in data
    text = match[0].translate(bytes.maketrans(b"-_", b"+/"), b"\r\n=")
    try:
        held = base64.b64decode(text + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return data
    changed = base64.b64encode(_raw(held, words, draws))
    if url:
        changed = changed.translate(bytes.maketrans(b"+/", b"-_"), b"=")
    elif b"\n" in match[0]:
        rows = range(0, len(changed), 64)
        changed = b"\n" + b"\n".join(changed[at : at + 64] for at in rows) + b"\n"
    return _put(data, match.start(), changed, match.end())


def _raw(held: bytes, words: Sequence[bytes], draws: Draws) -> bytes:
    return draws.pick(_INNER)(held, (), words, draws)[: SIZE_MAX // 4]


def _put(data: bytes, at: int, new: bytes, end: int | None = None) -> bytes:
    return data[:at] + new + data[at + len(new) if end is None else end :]


def _at(data: bytes, at: int) -> int:
    return data[at] if data else 0


def _text(word: bytes) -> str:
    return word.decode("utf-8", "replace")


_INNER: Final = (_flip, _byte, _tag, _near, _number, _cut, _remove, _double, _json, _zero, _token)
_CHANGES: Final = (
    _flip, _flip, _byte, _byte, _tag, _tag, _near, _near, _number, _number, _number, _cut, _behead,
    _extend, _remove, _double, _swap, _noise, _zero, _splice, _token, _token, _json, _json, _json,
    _inside, _inside, _inside, _inside,
)  # fmt: skip
