"""From a finished answer to the payload of its RECEIPT record, durably logged on the way."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire.errors import MalformedError, ReceiptError

from .api.request import ApiRequest
from .bench import Bench, Outlet
from .delivery import Delivery
from .engine.events import Usage
from .intake import Accepted
from .statement import Answered, receipt_record

# The log answers in milliseconds; a client must not wait longer for an end that will not come.
LOG_TIMEOUT_S = 10.0
UNLOGGED = "evidence_unavailable"


@dataclass(frozen=True, slots=True)
class Order:
    """What to answer.

    Attributes:
        accepted: the opened request.
        request: its parsed body.
        salted: whether the caller gave the prefix-cache salt.
        started_ms: when the request arrived, worker clock.
    """

    accepted: Accepted
    request: ApiRequest
    salted: bool
    started_ms: int

    @property
    def path(self) -> object:
        """The endpoint as the sealed HEAD names it."""
        return self.accepted.opened.head.get("p")


async def receipt_of(
    bench: Bench,
    outlet: Outlet,
    delivery: Delivery,
    order: Order,
    *,
    answer: Sequence[tuple[int, bytes]],
    finish: str,
    parameters: Mapping[str, str | int | bool | None],
    usage: Usage,
) -> bytes | None:
    """Sign a statement, have the gateway log its event, and return the record's payload.

    None where no durable receipt came in time: then there is no complete answer either.
    """
    opened, writer = order.accepted.opened, delivery.writer
    signed = bench.notary.sign(
        Answered(
            rid=opened.header.rid,
            th=opened.th,
            kid=opened.kid,
            op=opened.header.op,
            started_ms=order.started_ms,
            ended_ms=bench.clock.ms(),
            salt_q=opened.keys.salt_q,
            salt_r=writer.salt_r,
            prompt=order.request.segments,
            answer=answer,
            request_ct=opened.ct_hash,
            response_ct=writer.ct_hash,
            finish=finish,
            parameters=parameters,
            usage=usage,
            salt_scope="caller" if order.salted else "request",
        ),
        order.accepted.epoch,
    )
    try:
        async with asyncio.timeout(LOG_TIMEOUT_S):
            logged = await outlet.log(opened.header.rid, signed.event)
        return receipt_record(signed, logged)
    except (ReceiptError, MalformedError, TimeoutError):
        return None
