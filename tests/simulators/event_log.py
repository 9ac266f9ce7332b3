"""A writer of TCG and CC event logs, with any fact in them.

    log = EventLog(banks=("sha1", "sha256"))         # agile; EventLog.legacy() for SHA-1 form
    log.locality(3)                                  # the TPM was started from locality 3
    log.measure(4, b"kernel")                        # digests of the data, in every bank
    raw = log.encode()
    values = log.registers("sha256")                 # what a TPM would hold after it

    log = EventLog.cc()                              # a CCEL; registers are RTMR number + 1

`add` appends an event with any register, type, digests and data; `append` any bytes. Nothing is
checked: a log is not signed, so that whoever writes it may lie.

Source: TCG PC Client Platform Firmware Profile 1.05.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IDS = {"sha1": 0x04, "sha256": 0x0B, "sha384": 0x0C, "sha512": 0x0D, "sm3_256": 0x12}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sm3_256": 32}
NO_ACTION, IPL = 3, 0x0D


class EventLog:
    """One log under construction.

    Attributes:
        banks: declared in its first event, in order; () writes a legacy log.
        events: (register, type, bank to digest, data), without the first event of an agile log.
    """

    def __init__(self, banks: Sequence[str] = ("sha256",), first_register: int = 0) -> None:
        self.banks = tuple(banks)
        self.first_register = first_register
        self.events: list[tuple[int, int, dict[str, bytes], bytes]] = []
        self.tail = b""
        self.spec_id: bytes | None = None
        self.started_from = 0

    @classmethod
    def legacy(cls) -> EventLog:
        """A log in SHA-1 form."""
        return cls(())

    @classmethod
    def cc(cls) -> EventLog:
        """A CC event log."""
        return cls(("sha384",), first_register=1)

    def measure(self, register: int, data: bytes, kind: int = IPL) -> None:
        """An event whose digests are those of its data."""
        banks = self.banks or ("sha1",)
        self.add(register, kind, {b: hashlib.new(b, data).digest() for b in banks}, data)

    def add(self, register: int, kind: int, digests: Mapping[str, bytes], data: bytes) -> None:
        """An event as given."""
        self.events.append((register, kind, dict(digests), data))

    def locality(self, locality: int) -> None:
        """Say where the TPM was started from."""
        self.started_from = locality
        zeros = {bank: bytes(SIZES[bank]) for bank in self.banks or ("sha1",)}
        self.add(0, NO_ACTION, zeros, b"StartupLocality\0" + bytes([locality]))

    def append(self, data: bytes) -> None:
        """Bytes after the events: padding, or worse."""
        self.tail += data

    def encode(self) -> bytes:
        """The log."""
        first = b""
        if self.banks:
            data = spec_id(self.banks) if self.spec_id is None else self.spec_id
            first = sha1_event(self.first_register, NO_ACTION, bytes(20), data)
        return first + b"".join(map(self._event, self.events)) + self.tail

    def registers(self, bank: str) -> dict[int, bytes]:
        """What the registers of one bank hold after these extensions."""
        size = SIZES[bank]
        values: dict[int, bytes] = {}
        for register, kind, digests, _ in self.events:
            if kind != NO_ACTION:
                start = bytes(size - 1) + bytes([0 if register else self.started_from])
                value = values.get(register, start)
                values[register] = hashlib.new(bank, value + digests[bank]).digest()
        return values

    def _event(self, event: tuple[int, int, dict[str, bytes], bytes]) -> bytes:
        register, kind, digests, data = event
        if not self.banks:
            return sha1_event(register, kind, digests["sha1"], data)
        listed = b"".join(u16(IDS[bank]) + digest for bank, digest in digests.items())
        return u32(register) + u32(kind) + u32(len(digests)) + listed + u32(len(data)) + data


def sha1_event(register: int, kind: int, digest: bytes, data: bytes) -> bytes:
    """An event in SHA-1 form."""
    return u32(register) + u32(kind) + digest + u32(len(data)) + data


def spec_id(banks: Sequence[str], version: tuple[int, int] = (2, 0), vendor: bytes = b"") -> bytes:
    """The data of an agile log's first event."""
    listed = b"".join(u16(IDS[bank]) + u16(SIZES[bank]) for bank in banks)
    head = b"Spec ID Event03\0" + u32(0) + bytes([version[1], version[0], 0, 2])
    return head + u32(len(banks)) + listed + bytes([len(vendor)]) + vendor


def u16(value: int) -> bytes:
    """Two bytes, little-endian."""
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    """Four bytes, little-endian."""
    return value.to_bytes(4, "little")
