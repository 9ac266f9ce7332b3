"""`tpm2` evidence: a TPM quote, the keys behind it, and the registers it covers. Parse only.

    body = JSON {"quote": b64 TPMS_ATTEST, "sig": b64 TPMT_SIGNATURE,
                 "pcrs": {"sha256": {"0": hex}}, "ak": b64 TPM2B_PUBLIC, "ek": b64 TPM2B_PUBLIC,
                 "ek_cert": b64 DER, "chain": [b64 DER], "parts": {name: "sha256:…"}}

Spec: docs/spec/evidence.md §4.2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.evidence import BODY_ITEMS_MAX, EVIDENCE_MAX
from attestation.measurement import parts_of
from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.ids import b64u, unb64u

from .tpm_structures import (
    TPM2B_MAX,
    Public,
    Quote,
    Signature,
    parse_public,
    parse_quote,
    parse_signature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CERT_MAX: Final = 8192
CHAIN_MAX: Final = 4  # EK certificate chains have one or two intermediates
BANK: Final = "sha256"  # the one bank that counts: SHA-1 registers can be collided
PCR_COUNT: Final = 24
PCR_LEN: Final = 32

_KEYS = ("quote", "sig", "pcrs", "ak", "ek", "ek_cert", "chain", "parts")
_INDEX = re.compile(r"0|[1-9][0-9]?")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TpmEvidence:
    """A parsed, unverified TPM evidence body.

    Attributes:
        quote, signature: what the TPM signed, and the signature.
        pcrs: register number to 32-byte value of the SHA-256 bank, as claimed beside the quote.
        ak: the attestation key that signed.
        ek: the endorsement key of the same TPM.
        ek_cert: DER of the endorsement key's certificate.
        chain: DER of intermediates, from the certificate upwards; never anchors.
        parts: what the measurement is made of.
    """

    quote: Quote
    signature: Signature
    pcrs: Mapping[int, bytes]
    ak: Public
    ek: Public
    ek_cert: bytes
    chain: tuple[bytes, ...]
    parts: Mapping[str, str]


def encode_body(
    *,
    quote: bytes,
    sig: bytes,
    pcrs: Mapping[int, bytes],
    ak: bytes,
    ek: bytes,
    ek_cert: bytes,
    chain: Sequence[bytes],
    parts: Mapping[str, str],
) -> bytes:
    """Evidence body bytes for the given TPM structures."""
    obj = {
        "quote": b64u(quote),
        "sig": b64u(sig),
        "pcrs": {BANK: {str(index): value.hex() for index, value in pcrs.items()}},
        "ak": b64u(ak),
        "ek": b64u(ek),
        "ek_cert": b64u(ek_cert),
        "chain": [b64u(der) for der in chain],
        "parts": dict(parts),
    }
    return json.dumps(obj, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_body(body: bytes) -> TpmEvidence:
    """The evidence in a body, unverified.

    Raises:
        MalformedError: any deviation from the format.
    """
    members = Members(
        parse_strict(body, max_bytes=EVIDENCE_MAX, max_items=BODY_ITEMS_MAX),
        "tpm2",
        required=_KEYS,
    )
    chain = members.array("chain", CHAIN_MAX)
    for der in chain:
        if not isinstance(der, str) or len(der) > (CERT_MAX * 4 + 2) // 3:
            raise members.fail("chain", f"certificates of at most {CERT_MAX} bytes in base64url")
    return TpmEvidence(
        quote=parse_quote(members.blob("quote", TPM2B_MAX)),
        signature=parse_signature(members.blob("sig", TPM2B_MAX)),
        pcrs=MappingProxyType(_pcrs(members.value("pcrs"))),
        ak=parse_public(members.blob("ak", TPM2B_MAX)),
        ek=parse_public(members.blob("ek", TPM2B_MAX)),
        ek_cert=_certificate(members, "ek_cert", members.blob("ek_cert", CERT_MAX)),
        chain=tuple(_certificate(members, "chain", unb64u(der)) for der in chain),
        parts=MappingProxyType(parts_of(members.value("parts"))),
    )


def _certificate(members: Members, key: str, der: bytes) -> bytes:
    if not der:
        raise members.fail(key, "a certificate in DER, not nothing")
    return der


def _pcrs(obj: object) -> dict[int, bytes]:
    bank = Members(obj, "tpm2.pcrs", required=(BANK,)).value(BANK)
    if not isinstance(bank, dict) or not 1 <= len(bank) <= PCR_COUNT:
        raise MalformedError(f"tpm2.pcrs: expected an object of 1 to {PCR_COUNT} registers")
    found: dict[int, bytes] = {}
    for index, value in bank.items():
        if _INDEX.fullmatch(index) is None or int(index) >= PCR_COUNT:
            raise MalformedError(f"tpm2.pcrs: expected register numbers below {PCR_COUNT}")
        if not isinstance(value, str) or _HEX.fullmatch(value) is None:
            raise MalformedError(f"tpm2.pcrs: expected {PCR_LEN} bytes in lower-case hex")
        found[int(index)] = bytes.fromhex(value)
    return found
