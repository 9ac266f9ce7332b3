"""The certificate table a host may leave beside an SNP report (`auxblob`). Parse only.

    entry = GUID ‖ offset u32 ‖ length u32; a zero entry ends the list

GUIDs stand in the order they are written in, the two numbers little-endian; offsets count from the
table's first byte.

The host wrote it: a hint that saves a fetch, never an anchor. Source: AMD, SEV-ES Guest-Hypervisor
Communication Block Standardization (56421), SNP Extended Guest Request.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from uuid import UUID

from wire.errors import MalformedError

from .pem import CERTIFICATE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE_MAX: Final = 128 * 1024
ENTRIES_MAX: Final = 16  # six are defined

_ENTRY_LEN: Final = 24
_END: Final = bytes(16)
_NAMES: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes: "vcek",
        UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes: "vlek",
        UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes: "ask",  # or ASVK, which has none
        UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes: "ark",
    }
)


def parse_table(raw: bytes) -> Mapping[str, bytes]:
    """Name ("vcek", "vlek", "ask", "ark") to certificate bytes, of the entries known.

    Others are passed over: a host lists what it likes, and nothing rests on it.

    Raises:
        MalformedError: too long, no end, an entry twice, or one that points outside the table.
    """
    if not raw:
        return MappingProxyType({})  # the host supplied none
    if len(raw) > TABLE_MAX:
        raise MalformedError(f"certificate table: found {len(raw)} bytes, expected ≤ {TABLE_MAX}")
    found: dict[str, bytes] = {}
    for index in range(ENTRIES_MAX + 1):
        entry = raw[index * _ENTRY_LEN : (index + 1) * _ENTRY_LEN]
        if len(entry) != _ENTRY_LEN:
            raise MalformedError("certificate table: found no end of the list")
        if entry[:16] == _END:
            return MappingProxyType(found)
        name = _NAMES.get(entry[:16])
        offset, length = (int.from_bytes(entry[at : at + 4], "little") for at in (16, 20))
        if offset + length > len(raw) or length > CERTIFICATE_MAX:
            raise MalformedError("certificate table: an entry points outside it")
        if name in found:
            raise MalformedError("certificate table: found a certificate twice")
        if name is not None and length:
            found[name] = raw[offset : offset + length]
    raise MalformedError(f"certificate table: found more than {ENTRIES_MAX} entries")
