"""`software` evidence: a development root's statement about a binding. Parse only.

    body      = JSON {"statement": b64, "sig": b64 64}
    statement = evj1 {"v":1, "report_data": b64 64, "measurement": "sha256:…",
                      "parts": {name: "sha256:…"}, "ts": Unix ms}
    sig       = Ed25519 by the development root over "anchorhold/1 software\\0" ‖ statement

Spec: docs/spec/evidence.md §4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.evidence import BODY_ITEMS_MAX, EVIDENCE_MAX
from attestation.measurement import parts_of
from attestation.members import Members
from wire.canonical import encode, parse_evj1, parse_strict
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

STATEMENT_MAX: Final = 16_384
REPORT_DATA_LEN: Final = 64
LABEL: Final = b"anchorhold/1 software\0"


@dataclass(frozen=True, slots=True)
class SoftwareStatement:
    """What a development root says; unverified.

    Attributes:
        report_data: 64 bytes that must equal `binding.report_data`.
        measurement: claimed measurement, a "sha256:" tag.
        parts: part name to "sha256:" tag, from which the measurement must follow.
        ts: when it was made, Unix milliseconds, by the attester's clock.
        raw: the signed bytes.
        sig: Ed25519 signature, 64 bytes.
    """

    report_data: bytes
    measurement: str
    parts: Mapping[str, str]
    ts: int
    raw: bytes
    sig: bytes


def encode_statement(
    *, report_data: bytes, measurement: str, parts: Mapping[str, str], ts: int
) -> bytes:
    """Statement bytes, ready to be signed with LABEL in front."""
    return encode(
        {
            "v": 1,
            "report_data": b64u(report_data),
            "measurement": measurement,
            "parts": dict(parts),
            "ts": ts,
        }
    )


def encode_body(statement: bytes, sig: bytes) -> bytes:
    """Evidence body bytes."""
    return encode({"statement": b64u(statement), "sig": b64u(sig)})


def parse_body(body: bytes) -> SoftwareStatement:
    """The statement in an evidence body, unverified.

    Raises:
        MalformedError: any deviation from the format.
    """
    outer = Members(
        parse_strict(body, max_bytes=EVIDENCE_MAX, max_items=BODY_ITEMS_MAX),
        "software",
        required=("statement", "sig"),
    )
    raw = outer.blob("statement", STATEMENT_MAX)
    inner = Members(
        parse_evj1(raw, STATEMENT_MAX, max_items=BODY_ITEMS_MAX),
        "software.statement",
        required=("v", "report_data", "measurement", "parts", "ts"),
    )
    inner.integer("v", 1, 1)
    return SoftwareStatement(
        report_data=inner.data("report_data", REPORT_DATA_LEN),
        measurement=inner.digest("measurement"),
        parts=MappingProxyType(parts_of(inner.value("parts"))),
        ts=inner.integer("ts"),
        raw=raw,
        sig=outer.data("sig", 64),
    )
