"""The proof of a beacon: a binding was made after a certain entry of the log was.

    {"entry": ENTRY, "consistency": [b64]}

A binding names a prefix of the log, (origin, size, root), whose root nobody could know before the
last entry of that prefix existed. The proof shows that entry, a published directory snapshot, and
that the prefix belongs to the history a pinned key signed; the entry's time then bounds the age of
the binding from above. `BeaconProof` is a claim; `verify_beacon` turns it into a `VerifiedBeacon`.

Spec: docs/spec/evidence.md §6.2.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u, unb64u

from . import shape
from .checkpoint import peek_checkpoint
from .entry import Logged, verify_logged
from .events import DIRECTORY_SNAPSHOT
from .merkle import HASH_LEN, PROOF_MAX, verify_consistency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from attestation.binding import Beacon

    from .checkpoint import SignedCheckpoint
    from .events import Event

_VERIFIER: Final = object()  # held by `verify_beacon` alone
_MS: Final = 1000
_SHAPE = shape.shaped(
    {
        "entry": shape.shaped({}, closed=False),
        "consistency": shape.listed(shape.raw(HASH_LEN), PROOF_MAX),
    }
)


@dataclass(frozen=True, slots=True)
class BeaconProof:
    """What is said to date a beacon; nothing verified.

    Attributes:
        entry: the last entry of the beacon's prefix, with its own checkpoint and inclusion path.
        consistency: hashes from the beacon's (size, root) to that checkpoint.
    """

    entry: Logged
    consistency: tuple[bytes, ...]

    def to_json(self) -> dict[str, Any]:
        """The JSON object of worker documents and bundles."""
        return {
            "entry": self.entry.to_json(),
            "consistency": [b64u(item) for item in self.consistency],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BeaconProof:
        """Parse the JSON object; checks form only.

        Raises:
            ReceiptError: not of this form.
        """
        try:
            _SHAPE(document, "beacon")
            entry = Logged.from_json(document["entry"])
            return cls(entry, tuple(unb64u(item) for item in document["consistency"]))
        except MalformedError as error:
            raise ReceiptError(error.message, code="log_proof_invalid") from error


@dataclass(frozen=True, slots=True)
class VerifiedBeacon:
    """A beacon that a signed head of the pinned log vouches for.

    Attributes:
        time: Unix seconds at which, by the log's clock, the prefix was complete.
        checkpoint: the head it was proved under.
    """

    time: int
    checkpoint: SignedCheckpoint
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIER:
            msg = "VerifiedBeacon is made by verify_beacon only"
            raise TypeError(msg)


def prove_beacon(
    beacon: Beacon, entry: Logged, consistency: Callable[[int, int], tuple[bytes, ...]]
) -> BeaconProof:
    """Put a proof together; the side that holds the log does.

    Args:
        beacon: a prefix of that log.
        entry: the log's entry at `beacon.size - 1`.
        consistency: the log's proof from one of its sizes to a larger one.
    """
    return BeaconProof(entry, consistency(beacon.size, peek_checkpoint(entry.checkpoint).size))


def snapshot_time(event: Event) -> int:
    """Unix seconds of an entry that may end a beacon's prefix.

    Only directory snapshots may: they are published, so that everybody can see which moments a
    binding can point to. A log's operator could otherwise write an entry for one worker alone.

    Raises:
        ReceiptError: an entry of another type.
    """
    if event.type != DIRECTORY_SNAPSHOT:
        raise _invalid(f"entry of type {DIRECTORY_SNAPSHOT} expected, found {event.type}")
    return event.ts // _MS


def verify_beacon(
    beacon: Beacon, proof: BeaconProof, origin: str, vkeys: Sequence[str]
) -> VerifiedBeacon:
    """Verify when a beacon was made against the pinned log.

    Steps: 1 the beacon names this log. 2 the entry shown is the last one of its prefix. 3 the entry
    stands under a head that a pinned key signed (`verify_logged`). 4 it is a directory snapshot.
    5 the prefix, with the root the beacon names, is one of that head.

    Raises:
        ReceiptError: any step.
    """
    # 1
    if beacon.log != origin:
        raise _invalid(f"log {origin!r} expected, found {beacon.log[:80]!r}")
    # 2
    if proof.entry.index != beacon.size - 1:
        raise _invalid(f"entry {beacon.size - 1} expected, found {proof.entry.index}")
    # 3
    entry = verify_logged(proof.entry, origin, vkeys)
    # 4
    time = snapshot_time(entry.event)
    # 5
    head = entry.checkpoint
    try:
        verify_consistency(beacon.size, head.size, beacon.root, head.root, proof.consistency)
    except MalformedError as error:
        raise _invalid(error.message) from error
    return VerifiedBeacon(time, head, _VERIFIER)


def _invalid(message: str) -> ReceiptError:
    return ReceiptError(f"beacon: {message}", code="beacon_invalid")
