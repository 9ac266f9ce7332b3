"""A log entry with its proof, as the log hands it out and as a reader takes it in.

    {"index","leaf","blind","event","checkpoint","proof"}        bytes in base64url

`Logged` is a claim; `verify_logged` turns it into a `VerifiedEntry`. Checkpoint and proof of one
`Logged` belong together: the proof leads from this leaf to the root of that checkpoint.
Refusals are `ReceiptError` (code `log_proof_invalid`, or the leaf's own).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u, unb64u

from . import shape
from .checkpoint import open_checkpoint
from .events import parse_event
from .leaf import BLIND_LEN, open_leaf
from .merkle import HASH_LEN, PROOF_MAX, SIZE_MAX, leaf_hash, verify_inclusion
from .note import NOTE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .checkpoint import SignedCheckpoint
    from .events import Event

_VERIFIER: Final = object()  # held by `verify_logged` alone
_LEAF_TEXT_MAX = 32 * 1024  # 20 KiB of leaf in base64
_SHAPE = shape.shaped(
    {
        "index": shape.whole(),
        "leaf": shape.text(_LEAF_TEXT_MAX),
        "blind": shape.raw(BLIND_LEN),
        "event": shape.text(_LEAF_TEXT_MAX),
        "checkpoint": shape.text(NOTE_MAX),
        "proof": shape.listed(shape.raw(HASH_LEN), PROOF_MAX),
    }
)


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry, unverified: leaf bytes, the event and blind they open to, checkpoint and path."""

    index: int
    leaf: bytes
    blind: bytes
    event: bytes
    checkpoint: str
    proof: tuple[bytes, ...]

    def to_json(self) -> dict[str, Any]:
        """The JSON object of routes, link messages and receipts."""
        return {
            "index": self.index,
            "leaf": b64u(self.leaf),
            "blind": b64u(self.blind),
            "event": b64u(self.event),
            "checkpoint": self.checkpoint,
            "proof": [b64u(item) for item in self.proof],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Logged:
        """Parse the JSON object; checks form only."""
        try:
            _SHAPE(document, "log")
            return cls(
                document["index"],
                unb64u(document["leaf"]),
                unb64u(document["blind"]),
                unb64u(document["event"]),
                document["checkpoint"],
                tuple(unb64u(item) for item in document["proof"]),
            )
        except MalformedError as error:
            raise _invalid(error.message) from error


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An event that stands at `index` under a head a pinned log key signed."""

    index: int
    event: Event
    event_bytes: bytes
    checkpoint: SignedCheckpoint
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIER:
            msg = "VerifiedEntry is made by verify_logged only"
            raise TypeError(msg)


def verify_logged(entry: Logged, origin: str, vkeys: Sequence[str]) -> VerifiedEntry:
    """Verify one entry against the pinned log.

    Steps: 1 the leaf opens to this event and blind. 2 the event is well formed. 3 the checkpoint is
    signed by a pinned key of this log. 4 the path leads from the leaf to that checkpoint's root.
    """
    # 1
    open_leaf(entry.leaf, entry.event, entry.blind)
    try:
        # 2
        event = parse_event(entry.event)
        # 3
        head = open_checkpoint(entry.checkpoint, origin, vkeys)
        # 4
        if not 0 <= entry.index < SIZE_MAX:
            raise _invalid("index below 2^63 expected")
        verify_inclusion(leaf_hash(entry.leaf), entry.index, head.size, entry.proof, head.root)
    except MalformedError as error:
        raise _invalid(error.message) from error
    return VerifiedEntry(entry.index, event, entry.event, head, _VERIFIER)


def _invalid(message: str) -> ReceiptError:
    return ReceiptError(message, code="log_proof_invalid")
