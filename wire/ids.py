"""Identifiers: base64url without padding, key ids, binding hashes, digest tags."""

from __future__ import annotations

import base64
import hashlib
import re

from .errors import MalformedError

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
_SHA256_TAG = re.compile(r"sha256:[0-9a-f]{64}")
_WID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,64}")


def b64u(data: bytes) -> str:
    """Base64url text of `data`, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64u(text: str, n: int | None = None) -> bytes:
    """Bytes of unpadded base64url text, strictly.

    Only the one canonical spelling is accepted: padding, white space, the other alphabet and
    non-zero spare bits are refused, because two spellings of one value split caches and hashes.

    Args:
        text: base64url without padding.
        n: expected number of bytes, or None for any.

    Raises:
        MalformedError: not canonical base64url, or not `n` bytes.
    """
    if not isinstance(text, str):
        raise MalformedError(f"base64url: expected a string, found {type(text).__name__}")
    if _ALPHABET.fullmatch(text) is None or len(text) % 4 == 1:
        raise MalformedError("base64url: expected the URL alphabet without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64u(data) != text:
        raise MalformedError("base64url: spare bits are not zero")
    if n is not None and len(data) != n:
        raise MalformedError(f"base64url: expected {n} bytes, found {len(data)}")
    return data


def kid_of(suite: str, pk: bytes) -> bytes:
    """Key id of one public key under one suite: 32 bytes, spec §4.1."""
    name = suite.encode("ascii")
    head = b"anchorhold/1 kid\0" + len(name).to_bytes(2, "big")
    return hashlib.sha256(head + name + pk).digest()


def bh_of(binding: bytes) -> bytes:
    """Binding hash: SHA-256 of the binding's bytes as received (32 bytes)."""
    return hashlib.sha256(binding).digest()


def sha256_tag(data: bytes) -> str:
    """`sha256:<64 lower-case hex digits>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_sha256_tag(text: object) -> bool:
    """Whether `text` is a well-formed `sha256:` tag."""
    return isinstance(text, str) and _SHA256_TAG.fullmatch(text) is not None


def is_wid(text: object) -> bool:
    """Whether `text` can name a worker: 1 to 64 of `A-Z a-z 0-9 - _ .`, and not dots alone.

    Log events hold the name, and it is a segment of a path that clients ask: one that leads
    elsewhere must have no meaning anywhere.
    """
    return isinstance(text, str) and _WID.fullmatch(text) is not None
