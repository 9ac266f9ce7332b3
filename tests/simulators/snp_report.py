"""SEV-SNP reports and certificate tables as bytes, with any fact in them; see `simulators.amd`.

Source: AMD 56860 (report, TCB_VERSION), 56421 (certificate table).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACES = {"Turin": (0, 1, 2, 3, 7)}
_PLACES_BEFORE = (0, 1, 6, 7)


def tcb(product: str, levels: Sequence[int]) -> bytes:
    """TCB_VERSION bytes of a product's component levels."""
    raw = bytearray(8)
    for place, level in zip(_PLACES.get(product, _PLACES_BEFORE), levels, strict=True):
        raw[place] = level
    return bytes(raw)


@dataclass(frozen=True)
class Facts:
    """What a report says; byte fields have their field's length, `*_tcb` are TCB_VERSION bytes."""

    version: int = 5
    guest_svn: int = 1
    policy: int = 1 << 17
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algo: int = 1
    platform_info: int = 1 << 5 | 1 << 2
    flags: int = 0
    report_data: bytes = bytes(64)
    measurement: bytes = hashlib.sha384(b"image").digest()
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = hashlib.sha256(b"guest").digest()
    report_id_ma: bytes = b"\xff" * 32
    cpuid: tuple[int, int, int] = (0, 0, 0)
    chip_id: bytes = bytes(64)
    current_tcb: bytes = bytes(8)
    reported_tcb: bytes = bytes(8)
    committed_tcb: bytes = bytes(8)
    launch_tcb: bytes = bytes(8)
    current_fw: tuple[int, int, int] = (1, 55, 40)
    committed_fw: tuple[int, int, int] = (1, 55, 40)
    launch_mit: int = 0x3F
    current_mit: int = 0x3F
    reserved: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The 672 bytes that are signed; `reserved` overwrites any offset at the end."""
        raw = bytearray(0x2A0)

        def put(at: int, value: bytes) -> None:
            raw[at : at + len(value)] = value

        def number(at: int, value: int, n: int) -> None:
            put(at, value.to_bytes(n, "little"))

        for at, value in ((0x00, self.version), (0x04, self.guest_svn), (0x30, self.vmpl),
                          (0x34, self.signature_algo), (0x48, self.flags)):  # fmt: skip
            number(at, value, 4)
        number(0x08, self.policy, 8)
        number(0x40, self.platform_info, 8)
        for at, data in ((0x10, self.family_id), (0x20, self.image_id), (0x38, self.current_tcb),
                         (0x50, self.report_data), (0x90, self.measurement),
                         (0xC0, self.host_data), (0xE0, self.id_key_digest),
                         (0x110, self.author_key_digest), (0x140, self.report_id),
                         (0x160, self.report_id_ma), (0x180, self.reported_tcb),
                         (0x1A0, self.chip_id), (0x1E0, self.committed_tcb),
                         (0x1E8, bytes(reversed(self.current_fw))),
                         (0x1EC, bytes(reversed(self.committed_fw))),
                         (0x1F0, self.launch_tcb)):  # fmt: skip
            put(at, data)
        if self.version >= 3:
            put(0x188, bytes(self.cpuid))
        if self.version >= 5:
            number(0x1F8, self.launch_mit, 8)
            number(0x200, self.current_mit, 8)
        for at, data in self.reserved.items():
            put(at, data)
        return bytes(raw)


def signature(r: int, s: int) -> bytes:
    """The 512 bytes of a report's signature field."""
    return (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(512, b"\0")


def table(entries: Mapping[str, bytes]) -> bytes:
    """A host's certificate table; names are those of `GUIDS`."""
    offset, head, body = 24 * (len(entries) + 1), b"", b""
    for name, data in entries.items():
        head += GUIDS[name] + (offset + len(body)).to_bytes(4, "little")
        head += len(data).to_bytes(4, "little")
        body += data
    return head + bytes(24) + body


# In the order they are written in, as hosts have them, not with numbers turned round.
GUIDS = {
    "vcek": bytes.fromhex("63da758de6644564adc5f4b93be8accd"),
    "vlek": bytes.fromhex("a8074bc2a25a483eaae639c045a0b8a1"),
    "ask": bytes.fromhex("4ab7b379bbac4fe4a02f05aef327c782"),
    "ark": bytes.fromhex("c0b406a4a803495297433fb6014cd0ae"),
    "crl": bytes.fromhex("92f81bc358114d3d97ffd19f88dc67ea"),
}
