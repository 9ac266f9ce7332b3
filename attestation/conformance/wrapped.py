"""What a file holds inside: other people's tools wrap evidence in JSON, base64 or hex.

One level of each is opened: a text that is base64 or hex as a whole, and the members of a JSON
object or array, such as {"gpu": [ITEM, …]} or {"nvidia_payload": "{…}"}. What is found so is only
looked at by those who know what they look for; most members are nothing to them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError

from .document import Repeated, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_MAX: Final = 16 * 1024 * 1024  # the longest file that a sample may have
MEMBERS_MAX: Final = 64  # of one object or array: sixteen devices, and what is said of each
TEXT_MIN: Final = 64  # shorter texts are numbers and words, and no evidence
_HEX: Final = re.compile(rb"(?:0[xX])?((?:[0-9A-Fa-f]{2})+)")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_BLANK: Final = b" \t\r\n"
_WEB: Final = bytes.maketrans(b"-_", b"+/")


def contents(data: bytes) -> Iterator[bytes]:
    """The data itself, and what it wraps, in their order."""
    yield from spelled(data)
    for member in members(data):
        yield from spelled(member)


def spelled(data: bytes) -> tuple[bytes, ...]:
    """The data itself and, where it is a text in base64 or hex, what that says."""
    inner = _decoded(data)
    return (data,) if inner is None else (data, inner)


def members(data: bytes) -> Iterator[bytes]:
    """The members of a JSON object or array, each as a file of its own."""
    doc: object = None
    with contextlib.suppress(MalformedError):
        doc = read_document(spelled(data)[-1], FILE_MAX)
    if isinstance(doc, Repeated):  # which of two members is meant, nobody knows
        return
    values = doc.values() if isinstance(doc, dict) else doc if isinstance(doc, list) else ()
    for value in islice(values, MEMBERS_MAX):
        if isinstance(value, str):
            yield value.encode(errors="replace")
        elif isinstance(value, dict | list):
            with contextlib.suppress(RecursionError):
                yield json.dumps(value, default=_unread).encode()


def _unread(value: Any) -> str:
    """In place of a number that is too long to be read."""
    return type(value).__name__


def _decoded(data: bytes) -> bytes | None:
    """What a text in base64 or hex says; None for any other."""
    text = data.translate(None, _BLANK)
    if len(text) < TEXT_MIN:
        return None
    digits = _HEX.fullmatch(text)
    if digits is not None:
        return binascii.unhexlify(digits[1])
    if _BASE64.fullmatch(text) is None:
        return None
    text = text.rstrip(b"=").translate(_WEB)
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    return None
