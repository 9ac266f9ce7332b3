"""The receipt statement: what one worker says it did for one request, signed inside the enclave.

A COSE_Sign1 whose payload is `evj1` JSON. Protected header: 1 algorithm, 3 content type, 4 key id =
SHA-256(sig.pk)[:16], 15 CWT claims {1 issuer `anchorhold:worker/<bh>`, 2 subject `rid/<rid>`}. The
unprotected header is empty. Content appears only as salted commitments (`commit`).

A verified statement proves that the holder of the attested key `sig.pk` said this; it is worth what
the attestation of that key is worth (docs/spec/receipts.md, "What a receipt does not prove").
Refusals are `ReceiptError`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import encode, parse_evj1
from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u

from . import shape
from .cose import (
    CWT_ISS,
    CWT_SUB,
    HEADER_ALG,
    HEADER_CONTENT_TYPE,
    HEADER_CWT_CLAIMS,
    HEADER_KID,
    Sign1,
    parse_sign1,
    sign1,
    verify_sign1,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from attestation.formats.cbor import CborKey, CborValue

CONTENT_TYPE: Final = "application/vnd.anchorhold.receipt+json"
STATEMENT_MAX: Final = 16 * 1024  # about 2 KiB in practice; bounds what a peer can make us parse
BLIND_LEN: Final = 32
PAR_MAX: Final = 32  # sampling parameters of one request

_SIDE = shape.shaped(
    {"c": shape.raw(32), "n": shape.whole(0, 4096), "len_b": shape.whole(), "ct": shape.raw(32)}
)
_OPTIONAL_DIGEST = shape.optional(shape.digest)
_MEMBERS: Final = {
    "v": shape.whole(1, 1),
    "type": shape.one_of("infer"),
    "rid": shape.raw(16),
    "th": shape.raw(32),
    "kid": shape.raw(32),
    "wid": shape.text(64),
    "boot": shape.raw(16),
    "wseq": shape.whole(),
    "op": shape.text(32),
    "t0": shape.whole(),
    "t1": shape.whole(),
    "req": _SIDE,
    "resp": _SIDE,
    "finish": shape.text(64),
    "trunc": shape.flag,
    "model": shape.shaped(
        {
            "name": shape.text(),
            "digest": shape.digest,
            "weights": shape.digest,
            "tokenizer": _OPTIONAL_DIGEST,
            "template": _OPTIONAL_DIGEST,
            "dtype": shape.text(32),
        }
    ),
    "eng": shape.shaped({"name": shape.text(64), "version": shape.text(64), "det": shape.flag}),
    "par": shape.scalars(PAR_MAX),
    "use": shape.shaped(
        {
            "in": shape.whole(),
            "out": shape.whole(),
            "cached": shape.whole(),
            "reasoning": shape.whole(),
        }
    ),
    "att": shape.shaped(
        {
            "bh": shape.raw(32),
            "evidence": shape.digest,
            "type": shape.text(32),
            "measurement": shape.digest,
            "trust": shape.one_of("hardware", "vtpm", "simulated", "software"),
        }
    ),
    "pol": shape.shaped({"service": shape.digest}),
    "ret": shape.text(64),
    "cache": shape.scalars(8),
}
_WRITTEN = shape.shaped(_MEMBERS)
# A later writer may say more under the same `v`: what it adds is signed, kept, shown, not judged.
_READ = shape.shaped(_MEMBERS, closed=False)


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of the exchange: commitment root `c`, `n` segments, `len_b` length bucket in
    bytes, `ct` SHA-256 over the ciphertext frames (what the gateway saw and logs too)."""

    c: bytes
    n: int
    len_b: int
    ct: bytes

    def claims(self) -> dict[str, Any]:
        """The member as it stands in the statement."""
        return {"c": b64u(self.c), "n": self.n, "len_b": self.len_b, "ct": b64u(self.ct)}


@dataclass(frozen=True, slots=True)
class ReceiptClaims:
    """Everything a worker states about one inference.

    Times are integer milliseconds UTC by the worker's host clock. Digests are `sha256:<hex>`. In
    `par` decimals are strings (`"0.7"`), all values as used, after defaults. `att_evidence` is the
    digest of the body of the evidence of kind `att_type`. Counts here are exact: the statement
    travels only inside the sealed stream; the outer event carries them rounded.
    """

    rid: bytes
    th: bytes
    kid: bytes
    wid: str
    boot: bytes
    wseq: int
    op: str
    t0: int
    t1: int
    req: Side
    resp: Side
    finish: str
    trunc: bool
    model: str
    model_digest: str
    weights: str
    tokenizer: str | None
    template: str | None
    dtype: str
    engine: str
    engine_version: str
    par: Mapping[str, str | int | bool | None]
    tokens_in: int
    tokens_out: int
    bh: bytes
    att_evidence: str
    att_type: str
    measurement: str
    trust: str
    service_policy: str
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    deterministic: bool = False
    ret: str = "none"
    cache: Mapping[str, str | int | bool | None] = field(
        default_factory=lambda: {"hit": False, "scope": "request"}
    )

    def claims(self) -> dict[str, Any]:
        """The statement's payload as a dict."""
        return {
            "v": 1,
            "type": "infer",
            "rid": b64u(self.rid),
            "th": b64u(self.th),
            "kid": b64u(self.kid),
            "wid": self.wid,
            "boot": b64u(self.boot),
            "wseq": self.wseq,
            "op": self.op,
            "t0": self.t0,
            "t1": self.t1,
            "req": self.req.claims(),
            "resp": self.resp.claims(),
            "finish": self.finish,
            "trunc": self.trunc,
            "model": {
                "name": self.model,
                "digest": self.model_digest,
                "weights": self.weights,
                "tokenizer": self.tokenizer,
                "template": self.template,
                "dtype": self.dtype,
            },
            "eng": {
                "name": self.engine,
                "version": self.engine_version,
                "det": self.deterministic,
            },
            "par": dict(self.par),
            "use": {
                "in": self.tokens_in,
                "out": self.tokens_out,
                "cached": self.tokens_cached,
                "reasoning": self.tokens_reasoning,
            },
            "att": {
                "bh": b64u(self.bh),
                "evidence": self.att_evidence,
                "type": self.att_type,
                "measurement": self.measurement,
                "trust": self.trust,
            },
            "pol": {"service": self.service_policy},
            "ret": self.ret,
            "cache": dict(self.cache),
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed, *unverified* statement: use it to find the key, not to believe it."""

    message: Sign1
    claims: Mapping[str, Any]


def sign_statement(
    claims: Mapping[str, Any] | ReceiptClaims,
    sk: Ed25519PrivateKey,
    bh: bytes,
    rid: bytes,
    sig_pk: bytes,
) -> bytes:
    """Sign the claims and return the COSE bytes. Claims that miss or add a member are refused."""
    payload = dict(claims.claims() if isinstance(claims, ReceiptClaims) else claims)
    _WRITTEN(payload, "statement")
    if payload["att"]["bh"] != b64u(bh) or payload["rid"] != b64u(rid):
        msg = "claims about the same binding and request as the header expected"
        raise ValueError(msg)
    header: dict[CborKey, CborValue] = {
        HEADER_CONTENT_TYPE: CONTENT_TYPE,
        HEADER_KID: key_id(sig_pk),
        HEADER_CWT_CLAIMS: {CWT_ISS: _issuer(b64u(bh)), CWT_SUB: _subject(b64u(rid))},
    }
    return sign1(sk, header, encode(payload))


def parse_statement(cose: bytes) -> Statement:
    """Parse without verifying: shape of the envelope, headers and claims."""
    if len(cose) > STATEMENT_MAX:
        raise _invalid(f"statement of at most {STATEMENT_MAX} bytes expected, found {len(cose)}")
    try:
        message = parse_sign1(cose)
        claims = parse_evj1(message.payload, STATEMENT_MAX)
        _READ(claims, "statement")
    except MalformedError as error:
        raise _invalid(error.message) from error
    return Statement(message, claims)


def verify_statement(cose: bytes, sig_pk: bytes) -> dict[str, Any]:
    """Verify a statement under the worker key `sig_pk` (raw Ed25519, from an appraised binding).

    Steps: 1 strict parse. 2 no header outside the signature. 3 header says what it is and by which
    key. 4 signature over the received bytes. 5 issuer and subject agree with the claims they frame.
    6 time does not run backwards. Returns the claims.
    """
    # 1
    statement = parse_statement(cose)
    message, claims = statement.message, statement.claims
    # 2: nothing unsigned travels with a receipt
    if message.unprotected:
        raise _invalid("empty unprotected header expected")
    # 3
    labels = {HEADER_ALG, HEADER_CONTENT_TYPE, HEADER_KID, HEADER_CWT_CLAIMS}
    if set(message.protected) != labels:
        raise _invalid("protected headers 1, 3, 4 and 15 expected")
    if message.protected[HEADER_CONTENT_TYPE] != CONTENT_TYPE:
        raise _invalid(f"content type {CONTENT_TYPE} expected")
    if message.protected[HEADER_KID] != key_id(sig_pk):
        raise _invalid("statement signed by the worker key of the binding expected")
    # 4
    try:
        verify_sign1(message, sig_pk)
    except MalformedError as error:
        raise _invalid(error.message) from error
    # 5
    framed = {CWT_ISS: _issuer(claims["att"]["bh"]), CWT_SUB: _subject(claims["rid"])}
    if message.protected[HEADER_CWT_CLAIMS] != framed:
        raise _invalid("issuer and subject naming the binding and request of the claims expected")
    # 6
    if claims["t1"] < claims["t0"]:
        raise _invalid("end not before start expected")
    return dict(claims)


def statement_commitment(statement: bytes, blind_s: bytes) -> bytes:
    """`sc` = HMAC-SHA256(blind_s, statement): stands in the public event for the statement."""
    if len(blind_s) != BLIND_LEN:
        raise _invalid(f"blind of {BLIND_LEN} bytes expected, found {len(blind_s)}")
    return hmac.digest(blind_s, statement, "sha256")


def key_id(sig_pk: bytes) -> bytes:
    """SHA-256(sig.pk)[:16]."""
    return sha256(sig_pk).digest()[:16]


def _issuer(bh: str) -> str:
    return f"anchorhold:worker/{bh}"


def _subject(rid: str) -> str:
    return f"rid/{rid}"


def _invalid(message: str) -> ReceiptError:
    return ReceiptError(message)
