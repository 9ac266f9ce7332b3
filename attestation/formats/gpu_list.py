"""Several devices' evidence in one JSON document. Parse only.

    [{"arch": "HOPPER", "evidence": base64, "certificate": base64 PEM, "nonce": hex}, ...]

as NVIDIA's own tools write it, where an item may also have "version", "driver_version" and
"vbios_version"; or the request of its remote service, which inference servers hand out:

    {"nonce": hex, "arch": "HOPPER", "evidence_list": [{"evidence": …, "certificate": …}, ...]}

What stands beside a report is a claim of the sender. It must agree with the report, and then says
nothing more.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .nvidia_chain import CHAIN_MAX
from .spdm import REPORT_MAX

ENTRIES_MAX: Final = 16  # a node has eight GPUs and four switches
LIST_MAX: Final = 512 * 1024  # sixteen devices take 200 KiB; reading JSON takes 0.2 ms a KiB
ARCHITECTURES: Final = ("HOPPER", "BLACKWELL", "LS10")

_HEX64 = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = "1.0"
_LISTED = ("driver_version", "vbios_version")


@dataclass(frozen=True, slots=True)
class Entry:
    """One device, as the sender describes it; all unverified.

    Attributes:
        report, chain: SPDM exchange, and certificates in PEM.
        arch, nonce, driver_version, vbios_version: what is stated beside them, or None.
    """

    report: bytes
    chain: bytes
    arch: str | None
    nonce: bytes | None
    driver_version: str | None
    vbios_version: str | None


def parse_list(raw: bytes) -> tuple[Entry, ...]:
    """The devices, in the sender's order.

    Raises:
        MalformedError: no such JSON, no device or too many.
    """
    doc = parse_strict(raw, max_bytes=LIST_MAX)
    shared: dict[str, Any] = {}
    if isinstance(doc, dict):
        members = Members(
            doc,
            "GPU evidence",
            required=("nonce", "evidence_list"),
            optional=("arch", "claims_version"),
        )
        shared = {key: members.value(key) for key in ("nonce", "arch") if key in members}
        doc = members.value("evidence_list")
    if not isinstance(doc, list) or not 1 <= len(doc) <= ENTRIES_MAX:
        raise MalformedError(f"GPU evidence: expected an array of 1 to {ENTRIES_MAX} devices")
    return tuple(_entry(item, shared, number) for number, item in enumerate(doc))


def _entry(item: object, shared: dict[str, Any], number: int) -> Entry:
    members = Members(
        item,
        f"GPU evidence[{number}]",
        required=("evidence", "certificate"),
        optional=("arch", "nonce", "version", *_LISTED),
    )
    if "version" in members and members.value("version") != _VERSION:
        raise members.fail("version", f'"{_VERSION}"')
    texts = {key: members.text(key) for key in _LISTED if key in members}
    arch = members.value("arch") if "arch" in members else shared.get("arch")
    nonce = members.value("nonce") if "nonce" in members else shared.get("nonce")
    if arch is not None and arch not in ARCHITECTURES:
        raise members.fail("arch", " or ".join(ARCHITECTURES))
    return Entry(
        report=_base64(members, "evidence", REPORT_MAX),
        chain=_base64(members, "certificate", CHAIN_MAX),
        arch=arch,
        nonce=None if nonce is None else _nonce(members, nonce),
        driver_version=texts.get("driver_version"),
        vbios_version=texts.get("vbios_version"),
    )


def _nonce(members: Members, value: object) -> bytes:
    text = value.lower() if isinstance(value, str) else ""
    if _HEX64.fullmatch(text) is None:
        raise members.fail("nonce", "32 bytes in hex")
    return bytes.fromhex(text)


def _base64(members: Members, key: str, limit: int) -> bytes:
    value = members.value(key)
    if isinstance(value, str) and len(value) <= limit * 4 // 3 + 4:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        # Two spellings of one report would be two pieces of evidence.
        if 0 < len(data) <= limit and base64.b64encode(data).decode("ascii") == value:
            return data
    raise members.fail(key, f"at most {limit} bytes in base64")
