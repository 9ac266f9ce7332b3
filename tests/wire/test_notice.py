"""A worker's refusal counts only when signed, about this request, by one of its candidates."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wire.canonical import encode
from wire.errors import ProtocolFailure
from wire.ids import b64u
from wire.notice import CODES, LABEL, notice_kid, sign_notice, verify_notice

SK = Ed25519PrivateKey.from_private_bytes(bytes(32))
PK = SK.public_key().public_bytes_raw()
RID, TH, KID = b"r" * 16, b"t" * 32, b"k" * 32


def notice(**changes):
    return sign_notice(SK, RID, TH, KID, "replay", 1_790_000_000) | changes


def resigned(**changes):
    body = {key: value for key, value in notice(**changes).items() if key != "sig"}
    return body | {"sig": b64u(SK.sign(LABEL + encode(body)))}


def verify(doc):
    return verify_notice(doc, PK, RID, TH, [b"x" * 32, KID])


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_signed_notice_is_believed(code):
    doc = json.loads(json.dumps(sign_notice(SK, RID, TH, KID, code, 5)))
    assert verify(doc) == code
    assert notice_kid(doc) == KID


@pytest.mark.parametrize(
    "changes",
    [
        {"rid": b64u(b"q" * 16)},
        {"th": b64u(b"q" * 32)},
        {"kid": b64u(b"x" * 32)},
        {"code": "busy"},
        {"t": 1},
        {"sig": b64u(bytes(64))},
    ],
    ids=str,
)
def test_a_changed_notice_is_not_believed(changes):
    with pytest.raises(ProtocolFailure):
        verify(notice(**changes))


@pytest.mark.parametrize(
    ("doc", "words"),
    [
        (resigned(rid=b64u(b"q" * 16)), "another request"),
        (resigned(th=b64u(b"q" * 32)), "another request"),
        (resigned(kid=b64u(b"q" * 32)), "not a candidate"),
        (resigned(code="paid"), "unknown code"),
        (resigned(code=5), "unknown code"),
        (resigned(t="now"), "expected rid"),
        (resigned(t=True), "expected rid"),
        (resigned(extra=1), "expected rid"),
        (resigned(rid=5), "base64url"),
        (resigned(code="x" * 3000), "at most"),
        (resigned(t=2**60 - 2**60), "never"),
        ({}, "expected rid"),
        ([], "expected rid"),
        (None, "expected rid"),
        (notice(t=1.5), "expected rid"),
        (notice(t=2**60), "2\\^53"),
        (notice(sig="AA"), "64 bytes"),
        (notice(sig=None), "base64url"),
    ],
)
def test_a_malformed_or_foreign_notice_is_not_believed(doc, words):
    if words == "never":
        assert verify(doc) == "replay"  # t decides nothing
        return
    with pytest.raises(ProtocolFailure, match=words):
        verify(doc)


def test_a_notice_of_another_key_is_not_believed():
    other = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key().public_bytes_raw()
    with pytest.raises(ProtocolFailure, match="signature"):
        verify_notice(notice(), other, RID, TH, [KID])


def test_an_unknown_code_cannot_be_signed():
    with pytest.raises(ValueError, match="notice code"):
        sign_notice(SK, RID, TH, KID, "paid", 0)


@pytest.mark.parametrize("doc", [{}, {"kid": 5}, {"kid": "AA"}])
def test_a_notice_without_a_key_id_names_none(doc):
    with pytest.raises(ProtocolFailure, match="kid"):
        notice_kid(doc)
