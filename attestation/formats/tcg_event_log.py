"""TCG event logs: what firmware and boot loader measured, in order. Parse only.

    log    = first event (SHA-1 form), then events in the log's own form
    legacy = u32 register ‖ u32 type ‖ SHA-1 digest ‖ u32 size ‖ data
    agile  = u32 register ‖ u32 type ‖ u32 count ‖ (u16 algorithm ‖ digest)* ‖ u32 size ‖ data

A log is agile exactly if its first event is EV_NO_ACTION with a "Spec ID Event03" that names the
algorithms and their digest sizes. Everything is little-endian. A log is not signed: it is worth
what its replay (`attestation.replay`) shows against registers that are.

Source: TCG PC Client Platform Firmware Profile 1.05, chapters 10.2 and 10.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG_MAX: Final = 1024 * 1024  # firmware reserves 64 to 256 KiB; replay must stay far below 50 ms
EVENTS_MAX: Final = 2048  # long real logs have some 200; each costs a hash a bank
BANKS_MAX: Final = 8  # no TPM has more
REGISTERS: Final = 24
EV_NO_ACTION: Final = 3  # information only: never extended into a register
SHA1_LEN: Final = 20

# Algorithm id to bank name and digest size. SM3 and SHA-3 are carried, so that a log that has them
# beside SHA-2 can be read, but a bank that `attestation.replay` does not know is never replayed.
ALGORITHMS: Final[Mapping[int, tuple[str, int]]] = MappingProxyType(
    {
        0x0004: ("sha1", 20),
        0x000B: ("sha256", 32),
        0x000C: ("sha384", 48),
        0x000D: ("sha512", 64),
        0x0012: ("sm3_256", 32),
        0x0027: ("sha3_256", 32),
        0x0028: ("sha3_384", 48),
        0x0029: ("sha3_512", 64),
    }
)

_SPEC_ID_03 = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_LOCALITIES = (0, 3, 4)  # where TPM2_Startup can come from; 4 is the hardware's own (H-CRTM)
_PADDING = (0x00, 0xFF)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        register: the register it was extended into (a CC log's own numbering in CC logs).
        kind: event type; EV_NO_ACTION was extended nowhere.
        digests: bank name to digest.
        data: what the firmware says about it: unsigned text, no digest's preimage in general.
    """

    register: int
    kind: int
    digests: Mapping[str, bytes]
    data: bytes

    @property
    def extends(self) -> bool:
        """Whether a register was extended with it."""
        return self.kind != EV_NO_ACTION


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed event log, unverified.

    Attributes:
        format: "legacy" (SHA-1 only) or "agile".
        banks: the banks its events carry.
        events: in the log's order, without the event that declares an agile log's banks.
        locality: where the TPM was started from; it is the last byte of register 0 then.
    """

    format: Literal["legacy", "agile"]
    banks: tuple[str, ...]
    events: tuple[Event, ...]
    locality: int


class LogCursor:
    """Reads little-endian fields of one log; a length past the end is refused."""

    __slots__ = ("_data", "_stop", "_where", "at")

    def __init__(self, data: bytes, where: str) -> None:
        if len(data) > LOG_MAX:
            raise MalformedError(f"{where}: found {len(data)} bytes, expected ≤ {LOG_MAX}")
        self._data, self._where, self.at = data, where, 0
        # Firmware pads its table with one byte value. Found once: looking at the rest of the log
        # before every event would let a hostile log cost the square of its length.
        self._stop = min(len(data.rstrip(bytes([value]))) for value in _PADDING)

    def ended(self) -> bool:
        """Whether only padding, if anything, is left."""
        return self.at >= self._stop

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        part = self._data[self.at : self.at + n]
        if len(part) != n:
            raise self.fail(f"{len(part)} bytes", f"{n} more")
        self.at += n
        return part

    def uint(self, n: int) -> int:
        """An unsigned integer of `n` bytes."""
        return int.from_bytes(self.take(n), "little")

    def algorithm(self) -> tuple[str, int]:
        """A known algorithm: its bank name and digest size."""
        found = self.uint(2)
        if found not in ALGORITHMS:
            raise self.fail(f"algorithm {found:#06x}", "a known one")
        return ALGORITHMS[found]

    def fail(self, found: str, expected: str) -> MalformedError:
        """The error for what stands here."""
        return MalformedError(f"{self._where}: found {found}, expected {expected}")


def parse_event_log(raw: bytes) -> EventLog:
    """The log in `raw`.

    Raises:
        MalformedError: any length, register, algorithm or order that the format does not have.
    """
    cursor = LogCursor(raw, "event log")
    first = sha1_event(cursor)
    banks = spec_id_banks(first, cursor)
    if banks is None:
        events = [first, *_events(cursor, None)]
        names: tuple[str, ...] = ("sha1",)
    else:
        events, names = _events(cursor, banks), tuple(banks)
    for event in events:
        if event.extends and event.register >= REGISTERS:
            raise cursor.fail(f"register {event.register}", f"one below {REGISTERS}")
    locality = _locality(events, cursor)
    return EventLog("legacy" if banks is None else "agile", names, tuple(events), locality)


def sha1_event(cursor: LogCursor) -> Event:
    """An event in SHA-1 form, as legacy logs have and every log begins with."""
    register, kind = cursor.uint(4), cursor.uint(4)
    digests = MappingProxyType({"sha1": cursor.take(SHA1_LEN)})
    return Event(register, kind, digests, cursor.take(cursor.uint(4)))


def agile_event(cursor: LogCursor, banks: Mapping[str, int]) -> Event:
    """An event in agile form, with one digest for each of the log's banks.

    An event that extends nothing may carry digests of other banks, or none: nothing uses them.

    Raises:
        MalformedError: a bank not declared, missing or twice. An event without a bank's digest
            would leave that bank's replay silently short.
    """
    register, kind, count = cursor.uint(4), cursor.uint(4), cursor.uint(4)
    extends = kind != EV_NO_ACTION
    if count > (len(banks) if extends else BANKS_MAX):
        raise cursor.fail(f"{count} digests", f"{len(banks)}")
    digests: dict[str, bytes] = {}
    for _ in range(count):
        name, size = cursor.algorithm()
        if name in digests or (extends and name not in banks):
            raise cursor.fail(f"a digest for {name}", "each declared bank once")
        digests[name] = cursor.take(size)
    if extends and len(digests) != len(banks):
        raise cursor.fail(f"{count} digests", f"{len(banks)}, one for each bank")
    return Event(register, kind, MappingProxyType(digests), cursor.take(cursor.uint(4)))


def spec_id_banks(first: Event, cursor: LogCursor) -> dict[str, int] | None:
    """The banks and digest sizes that an agile log's first event declares; None: a legacy log."""
    if first.kind != EV_NO_ACTION or not first.data.startswith(_SPEC_ID_03):
        return None
    spec = LogCursor(first.data, "spec ID event")
    spec.take(len(_SPEC_ID_03) + 4)  # platform class
    minor, major = spec.uint(1), spec.uint(1)
    if (major, minor) != (2, 0):
        raise cursor.fail(f"specification {major}.{minor}", "2.0")
    spec.take(2)  # errata, uintn size
    count = spec.uint(4)
    if not 1 <= count <= BANKS_MAX:
        raise cursor.fail(f"{count} algorithms", f"1 to {BANKS_MAX}")
    banks: dict[str, int] = {}
    for _ in range(count):
        name, size = spec.algorithm()
        if spec.uint(2) != size or name in banks:
            raise cursor.fail(f"another size for {name}, or it twice", f"{size} bytes, once")
        banks[name] = size
    spec.take(spec.uint(1))  # vendor's own
    if spec.at != len(first.data):
        raise cursor.fail("bytes after the spec ID event", "none")
    return banks


def _events(cursor: LogCursor, banks: Mapping[str, int] | None) -> list[Event]:
    events: list[Event] = []
    while not cursor.ended():
        if len(events) == EVENTS_MAX:
            raise cursor.fail(f"more than {EVENTS_MAX} events", "fewer")
        events.append(sha1_event(cursor) if banks is None else agile_event(cursor, banks))
    return events


def _locality(events: list[Event], cursor: LogCursor) -> int:
    """The startup locality, which must be said before register 0 is extended, and once."""
    found: list[int] = []
    started = False
    for event in events:
        if event.extends:
            started = started or event.register == 0
        elif event.data.startswith(_STARTUP_LOCALITY):
            value = event.data[len(_STARTUP_LOCALITY) :]
            if started or found or event.register != 0 or len(value) != 1:
                raise cursor.fail("a startup locality out of place", "one, before register 0")
            if value[0] not in _LOCALITIES:
                raise cursor.fail(f"startup locality {value[0]}", "0, 3 or 4")
            found.append(value[0])
    return found[0] if found else 0
