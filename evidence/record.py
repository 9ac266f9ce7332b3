"""The RECEIPT record: what a client takes out of the sealed stream and can check at once.

    {"statement":b64 COSE,"blind":b64 32,"log":{index, leaf, blind, event, checkpoint, proof}}

The statement binds the worker; `blind` opens the public event's `sc` to it; the log part proves
that the event is in the tree. Together: the worker said it, the deployment cannot unsay it.
"""

from __future__ import annotations

import hmac
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import encode, parse_evj1
from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u, unb64u

from . import shape
from .entry import Logged, VerifiedEntry, verify_logged
from .events import INFER_RECEIPT, round_usage
from .receipt import BLIND_LEN, STATEMENT_MAX, statement_commitment, verify_statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .events import Event

_VERIFIER: Final = object()  # held by `verify_record` alone
RECORD_MAX = 128 * 1024  # statement, leaf and event in base64, and one note
_SHAPE = shape.shaped(
    {
        "statement": shape.text(2 * STATEMENT_MAX),
        "blind": shape.raw(BLIND_LEN),
        "log": shape.shaped({}, closed=False),
    }
)
_SAME = ("rid", "th", "kid", "wid", "wseq")  # members the statement and its event both carry


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A receipt as received: nothing verified."""

    statement: bytes
    blind: bytes
    logged: Logged

    def encode(self) -> bytes:
        """The record's `evj1` bytes."""
        return encode(
            {
                "statement": b64u(self.statement),
                "blind": b64u(self.blind),
                "log": self.logged.to_json(),
            }
        )


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """Claims the worker key signed, and the log entry that commits to them."""

    claims: Mapping[str, Any]
    entry: VerifiedEntry
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIER:
            msg = "VerifiedReceipt is made by verify_record only"
            raise TypeError(msg)


def parse_record(data: bytes) -> ReceiptRecord:
    """Parse the RECEIPT record's payload; checks form only."""
    try:
        found = parse_evj1(data, RECORD_MAX)
        _SHAPE(found, "receipt")
        statement, blind = unb64u(found["statement"]), unb64u(found["blind"])
    except MalformedError as error:
        raise ReceiptError(error.message) from error
    return ReceiptRecord(statement, blind, Logged.from_json(found["log"]))


def verify_record(
    record: ReceiptRecord, sig_pk: bytes, origin: str, vkeys: Sequence[str]
) -> VerifiedReceipt:
    """Verify a receipt under the worker key of an appraised binding and the pinned log.

    Steps: 1 statement signature and form. 2 leaf, inclusion and checkpoint. 3 the event commits to
    this statement and repeats its identity. The caller then compares the claims with its own
    exchange (`rid`, `th`, `kid`, `ct`, commitments): only it knows them.
    """
    # 1
    claims = verify_statement(record.statement, sig_pk)
    # 2
    entry = verify_logged(record.logged, origin, vkeys)
    # 3
    verify_event_opens(entry.event, claims, record.statement, record.blind)
    return VerifiedReceipt(claims, entry, _VERIFIER)


def verify_event_opens(
    event: Event, claims: Mapping[str, Any], statement: bytes, blind: bytes
) -> None:
    """Check that a public `infer.receipt` event is the event of this statement.

    Steps: 1 type. 2 `sc` opens to the statement. 3 identity members equal. 4 the public usage is
    the rounding of the signed one: billing cannot say something else than the receipt.
    """
    body = event.body
    # 1
    if event.type != INFER_RECEIPT:
        raise ReceiptError(f"event of type {INFER_RECEIPT} expected, found {event.type}")
    # 2
    sc = statement_commitment(statement, blind)
    if not hmac.compare_digest(sc, unb64u(body["sc"])):
        raise ReceiptError("log event does not commit to this statement")
    # 3
    for name in _SAME:
        if body[name] != claims[name]:
            raise ReceiptError(f"same {name} in log event and statement expected")
    if body["model"] != claims["model"]["name"]:
        raise ReceiptError("same model in log event and statement expected")
    # 4
    rounded = {side: round_usage(claims["use"][side]) for side in ("in", "out")}
    if body["use"] != rounded:
        raise ReceiptError("usage in the log event that rounds the signed usage expected")
