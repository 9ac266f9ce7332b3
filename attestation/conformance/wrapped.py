"""What a file holds inside: other people's tools wrap evidence in JSON, base64 or hex.

One level of each is opened: a text that is base64 or hex as a whole, and the members of a JSON
object or array, such as {"gpu": [ITEM, …]} or {"nvidia_payload": "{…}"}. Who looks for something
passes over the rest (`contents`); who must know all that is said takes it whole, or not (`parts`).
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

from .document import Repeated, check, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_MAX: Final = 640 * 1024  # of a file that is opened: the longest list of devices, in hex
# Commas and opening brackets of it: small items would take the most time to read by far.
ITEMS_MAX: Final = 4096
MEMBERS_MAX: Final = 128  # of one object or array: twenty devices, and what is said of each
TEXT_MIN: Final = 64  # shorter texts are numbers and words, and no evidence
_HEX: Final = re.compile(rb"(?:0[xX])?((?:[0-9A-Fa-f]{2})+)")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_BLANK: Final = b" \t\r\n"
_ITEMS: Final = (b",", b"[", b"{")
_WEB: Final = bytes.maketrans(b"-_", b"+/")


def contents(data: bytes) -> Iterator[bytes]:
    """The data itself, and what it wraps, in their order."""
    yield from spelled(data)
    for member in members(data):
        yield from spelled(member)


def spelled(data: bytes) -> tuple[bytes, ...]:
    """The data itself and, where it is a text in base64 or hex, what that says."""
    inner = _decoded(data) if len(data) <= FILE_MAX else None
    return (data,) if inner is None else (data, inner)


def members(data: bytes) -> Iterator[bytes]:
    """The members of a JSON object or array, each as a file of its own; the first of very many."""
    doc: object = None
    with contextlib.suppress(MalformedError):
        doc = opened(spelled(data)[-1])
    if isinstance(doc, Repeated):  # which of two members is meant, nobody knows
        return
    values = doc.values() if isinstance(doc, dict) else doc if isinstance(doc, list) else ()
    for value in islice(values, MEMBERS_MAX):
        if isinstance(value, str | dict | list):
            yield as_file(value)


def parts(data: bytes) -> tuple[object, ...]:
    """The members of a JSON object or array, and its keys: all of them.

    Raises:
        MalformedError: it is none, has too many, or says something in two ways, at any depth.
    """
    doc = opened(spelled(data)[-1])
    check(doc, "GPU evidence")
    if not isinstance(doc, dict | list):
        raise MalformedError("GPU evidence: expected a JSON object or array")
    if len(doc) > MEMBERS_MAX:
        raise MalformedError(
            f"GPU evidence: found {len(doc)} members, expected at most {MEMBERS_MAX}"
        )
    return (*doc, *doc.values()) if isinstance(doc, dict) else (*doc,)


def opened(data: bytes) -> Any:
    """The JSON in a file.

    Raises:
        MalformedError: none is there, or it is larger than any evidence.
    """
    if len(data) <= FILE_MAX and sum(map(data.count, _ITEMS)) > ITEMS_MAX:
        raise MalformedError(f"JSON: expected at most {ITEMS_MAX} items")
    return read_document(data, FILE_MAX)


def as_file(value: object) -> bytes:
    """A member as a file of its own: a text's own bytes, or JSON."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    with contextlib.suppress(RecursionError):
        return json.dumps(value, default=_unread).encode()
    return b""


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
