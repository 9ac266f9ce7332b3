"""Several devices' evidence in one JSON document. Parse only.

An item, as NVIDIA's own tools write it, is

    {"arch": "HOPPER", "evidence": base64, "certificate": base64 PEM, "nonce": hex}

where "arch" and "nonce" may be missing, and "version", "driver_version", "vbios_version" and "uuid"
be there. Older tools, and servers to this day, write the report as hex text, as base64 of it or as

    {"attestationReportHexStr": hex, "certChainBase64Encoded": base64 PEM}

with the same members beside. No report is hex text itself: it begins with its version, which is no
digit. Hex is read once, in one case. Some senders write a number of their own as an item's "arch",
which says nothing: whose numbers they are is not said. The document is one of

    [ITEM, ...]  or one ITEM                                              its libraries
    {"evidences": [ITEM, ...], "result_code": 0, "result_message": text}  its command line
    {"device_evidence_list": [ITEM, ...]}                                 Confidential Containers
    {"nonce": hex, "arch": "HOPPER", "evidence_list": [ITEM, ...]}        inference servers

and nothing else: a member that is not known could be what says that a device is missing here. The
last is the request of NVIDIA's remote service, perhaps with "claims_version".

What stands beside a report is a claim of the sender. Where it speaks of what the report says, it
must agree with it; then it says nothing more.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .nvidia_chain import CHAIN_MAX
from .spdm import REPORT_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRIES_MAX: Final = 16  # a node has eight GPUs and four switches
# Sixteen devices take 230 KiB, 280 with full buffers or with reports in hex.
LIST_MAX: Final = 320 * 1024
# Commas and opening brackets: sixteen devices of eight members take 150, and a stated version may
# have some. Small items would take 0.14 ms a KiB, long texts take a hundredth of that.
LIST_ITEMS_MAX: Final = 512
ARCHITECTURES: Final = ("HOPPER", "BLACKWELL", "LS10")

_HEX64 = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(rb"[0-9A-Fa-f]+")
_HEX = re.compile(rb"(?:[0-9a-f]{2})+|(?:[0-9A-F]{2})+")  # mixed cases spell one report many ways
_VERSION: Final = "1.0"
_LISTED = ("driver_version", "vbios_version")
_NAMES = ("evidence", "certificate")
_HEX_NAMES = ("attestationReportHexStr", "certChainBase64Encoded")
_LISTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = MappingProxyType(
    {  # the member that holds the items: the members beside it, (required, optional)
        "evidence_list": (("nonce",), ("arch", "claims_version")),
        "evidences": ((), ("result_code", "result_message")),
        "device_evidence_list": ((), ()),
    }
)


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
    doc = parse_strict(raw, max_bytes=LIST_MAX, max_items=LIST_ITEMS_MAX)
    shared: dict[str, Any] = {}
    if isinstance(doc, dict):
        key = next((key for key in _LISTS if key in doc), None)
        doc, shared = ([doc], shared) if key is None else _opened(doc, key)
    if not isinstance(doc, list) or not 1 <= len(doc) <= ENTRIES_MAX:
        raise MalformedError(f"GPU evidence: expected an array of 1 to {ENTRIES_MAX} devices")
    return tuple(_entry(item, shared, number) for number, item in enumerate(doc))


def _opened(doc: dict[str, Any], key: str) -> tuple[object, dict[str, Any]]:
    """The items in a document, and what it says of them all."""
    required, optional = _LISTS[key]
    members = Members(doc, "GPU evidence", required=(key, *required), optional=optional)
    if "result_code" in members:
        members.integer("result_code", 0, 0)  # another one: not every device gave its report
    if "result_message" in members:
        members.text("result_message")
    return members.value(key), {name: doc[name] for name in ("nonce", "arch") if name in doc}


def _entry(item: object, shared: dict[str, Any], number: int) -> Entry:
    in_hex = isinstance(item, dict) and _HEX_NAMES[0] in item
    names = _HEX_NAMES if in_hex else _NAMES
    members = Members(
        item,
        f"GPU evidence[{number}]",
        required=names,
        optional=("arch", "nonce", "version", "uuid", *_LISTED),
    )
    if "version" in members and members.value("version") != _VERSION:
        raise members.fail("version", f'"{_VERSION}"')
    texts = {key: members.text(key) for key in (*_LISTED, "uuid") if key in members}
    arch = members.value("arch") if "arch" in members else None
    if arch is None or type(arch) is int:
        arch = shared.get("arch")
    nonce = members.value("nonce") if "nonce" in members else shared.get("nonce")
    if arch is not None:
        arch = arch.upper() if isinstance(arch, str) else ""  # some write it in lower case
        if arch not in ARCHITECTURES:
            raise members.fail("arch", " or ".join(ARCHITECTURES))
    return Entry(
        report=_hex_report(members, names[0]) if in_hex else _report(members, names[0]),
        chain=_chain(members, names[1]),
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


def _report(members: Members, key: str) -> bytes:
    """A report in base64, or its hex text in base64."""
    data = _decoded(members.value(key), 2 * REPORT_MAX)
    if data is not None and _DIGITS.fullmatch(data) is not None:
        return _unhexed(members, key, data)
    if data is None or len(data) > REPORT_MAX:
        raise members.fail(key, f"at most {REPORT_MAX} bytes in base64")
    return data


def _hex_report(members: Members, key: str) -> bytes:
    value = members.value(key)
    # What is no ASCII is no digit, as which it is refused.
    return _unhexed(members, key, value.encode() if isinstance(value, str) else b"")


def _unhexed(members: Members, key: str, text: bytes) -> bytes:
    if len(text) > 2 * REPORT_MAX or _HEX.fullmatch(text) is None:
        raise members.fail(key, f"at most {REPORT_MAX} bytes in hex")
    return binascii.unhexlify(text)


def _chain(members: Members, key: str) -> bytes:
    data = _decoded(members.value(key), CHAIN_MAX)
    if data is None:
        raise members.fail(key, f"at most {CHAIN_MAX} bytes in base64")
    return data


def _decoded(value: object, limit: int) -> bytes | None:
    """At least one byte and at most so many in base64; None for any other text."""
    if not isinstance(value, str) or len(value) > limit * 4 // 3 + 4:
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Two spellings of one report would be two pieces of evidence.
    same = base64.b64encode(data).decode("ascii") == value
    return data if same and 0 < len(data) <= limit else None
