"""Certificates and keys as they are handed out: DER, or PEM with one or several. Parse only.

Strict: nothing but white space between the blocks, one label, canonical base64, bounded counts and
lengths. What is in the DER is for `verify.x509` to read.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

CERTIFICATE_MAX: Final = 16 * 1024  # vendors' are 1 to 3 KiB
CERTIFICATES_MAX: Final = 8  # the longest vendor chain has five
TEXT_MAX: Final = CERTIFICATES_MAX * CERTIFICATE_MAX * 3 // 2

_SEQUENCE: Final = 0x30
_LINE: Final = 64
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_KEY_BEGIN: Final = b"-----BEGIN PUBLIC KEY-----"
_KEY_END: Final = b"-----END PUBLIC KEY-----"
_SPACE: Final = b" \t\r\n"


def certificates(raw: bytes, where: str, limit: int = CERTIFICATES_MAX) -> tuple[bytes, ...]:
    """The certificates in `raw`, DER each, in their order.

    Args:
        raw: one certificate in DER, or PEM text with LF or CRLF.
        where: what it is, for the error sentence.
        limit: how many may be there; at least one must.

    Raises:
        MalformedError: neither DER nor PEM, too many, too long, or anything between the blocks.
    """
    if raw[:1] == bytes([_SEQUENCE]):
        return (_bounded(raw, where),)
    if len(raw) > TEXT_MAX:
        raise MalformedError(f"{where}: found {len(raw)} bytes, expected at most {TEXT_MAX}")
    found: list[bytes] = []
    rest = raw.strip()
    while rest:
        if len(found) == limit:
            raise MalformedError(f"{where}: found more than {limit} certificates")
        end = rest.find(_END)
        if not rest.startswith(_BEGIN) or end < 0:
            raise MalformedError(f"{where}: expected certificates in DER or PEM and nothing else")
        found.append(_bounded(_decode(rest[len(_BEGIN) : end], where), where))
        rest = rest[end + len(_END) :].lstrip()
    if not found:
        raise MalformedError(f"{where}: found no certificate, expected DER or PEM")
    return tuple(found)


def certificate(raw: bytes, where: str) -> bytes:
    """The one certificate in `raw`, DER.

    Raises:
        MalformedError: as `certificates`, or more than one.
    """
    return certificates(raw, where, 1)[0]


def public_key(raw: bytes, where: str) -> bytes:
    """The one public key in `raw`: what is no PEM text as it is, for its reader to judge.

    Raises:
        MalformedError: more than one in PEM, too long, or anything beside it.
    """
    text = raw.strip()
    if not text.startswith(_KEY_BEGIN):
        return raw
    if len(raw) > CERTIFICATE_MAX or not text.endswith(_KEY_END):
        raise MalformedError(f"{where}: expected one public key in DER or PEM and nothing else")
    return _decode(text[len(_KEY_BEGIN) : -len(_KEY_END)], where)


def encode(certificates: Iterable[bytes]) -> bytes:
    """PEM text of certificates in DER, in their order; `certificates` reads it."""
    return b"".join(
        b"\n".join((_BEGIN, *_lines(binascii.b2a_base64(der, newline=False)), _END, b""))
        for der in certificates
    )


def _lines(text: bytes) -> list[bytes]:
    return [text[at : at + _LINE] for at in range(0, len(text), _LINE)]


def _decode(body: bytes, where: str) -> bytes:
    text = body.translate(None, _SPACE)
    try:
        der = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise MalformedError(f"{where}: expected base64 in PEM") from None
    if (
        binascii.b2a_base64(der, newline=False) != text
    ):  # unused bits set: two texts for one certificate
        raise MalformedError(f"{where}: expected canonical base64 in PEM")
    return der


def _bounded(der: bytes, where: str) -> bytes:
    if not der or len(der) > CERTIFICATE_MAX:
        raise MalformedError(
            f"{where}: found {len(der)} bytes, expected a certificate of at most {CERTIFICATE_MAX}"
        )
    return der
