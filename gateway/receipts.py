"""What a receipt must say before it is made durable: that it is about exactly this answer."""

from typing import Any

from wire.canonical import parse_evj1
from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u, unb64u

from .exchange import Exchange
from .session import Session

#: Bytes of a receipt event; larger ones do not fit a log entry.
EVENT_MAX = 16_384
#: Its items: it has eleven, and its texts, a model's name of 256 characters among them, may be all
#: commas. It is parsed in the event loop, where sixteen KiB of small items took four milliseconds;
#: so bounded, a whole RECEIPT takes half of one.
ITEMS_MAX = 512


def receipt_event(
    exchange: Exchange, session: Session, document: dict[str, Any], now: int
) -> dict[str, Any]:
    """The body of the event that a receipt names, checked.

    A request may be wrapped to two keys of one worker, and it opens it with either: with the newer
    one where it has wiped the other since. The key it names is the exchange's from then on.

    Raises:
        MalformedError: it is no event, or the second one.
        ReceiptError: it is about something else.
    """
    text = document.get("event")
    if not isinstance(text, str) or exchange.receipt_seen:
        raise MalformedError("receipt: one event for one request expected")
    exchange.receipt_seen = True
    event = parse_evj1(unb64u(text), EVENT_MAX, max_items=ITEMS_MAX)
    expected = {
        "rid": b64u(exchange.rid),
        "th": b64u(exchange.th),
        "wid": session.wid,
    }
    for name, value in expected.items():
        if event.get(name) != value:
            raise ReceiptError(f"receipt: {name} is not that of the request this worker has")
    # The first is what it was released for: that key may have ended while the answer was made.
    for kid in (exchange.kid, *(exchange.kids & session.kids(now))):
        if kid and event.get("kid") == b64u(kid):
            exchange.kid = kid
            return event
    raise ReceiptError("receipt: kid is none of the request that this worker has")
