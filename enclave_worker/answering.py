"""One accepted request on the engine: tokens into the delivery, then the receipt, then the end.

An answer is complete only with a receipt whose event is durable in the evidence log. Without one a
stream ends in an ERROR record and a plain reply is withheld: evidence comes before effect.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from wire.errors import BusyError, MalformedError, ReceiptError
from wire.records import DATA, Record, TokenDelta

from .bench import Bench, Outlet
from .delivery import Delivery, head_record
from .engine.errors import EngineBusy, EngineStopped, RequestInvalid, RequestTooLong
from .engine.events import TokenEvent, Usage
from .engine.sequence import GenerationRequest
from .intake import Accepted
from .openai_api import ApiRequest
from .openai_errors import ApiError
from .openai_reply import Identity, body, usage_document
from .statement import Answered, receipt_record

# The log answers in milliseconds; a client must not wait longer for an end that will not come.
LOG_TIMEOUT_S = 10.0
NO_USAGE = Usage(0, 0)
UNLOGGED = "evidence_unavailable"


@dataclass(frozen=True, slots=True)
class Order:
    """What to answer.

    Attributes:
        accepted: the opened request.
        request: its parsed body.
        work: the sequence for the engine.
        salted: whether the caller gave the prefix-cache salt.
        started_ms: when the request arrived, worker clock.
    """

    accepted: Accepted
    request: ApiRequest
    work: GenerationRequest
    salted: bool
    started_ms: int


class Answering:
    """Runs one order. Belongs to the event loop's thread."""

    def __init__(self, bench: Bench, outlet: Outlet, delivery: Delivery, order: Order) -> None:
        """Prepare; `submit` gives the sequence to the engine."""
        self._bench = bench
        self._outlet = outlet
        self._delivery = delivery
        self._order = order
        self._last: asyncio.Future[TokenEvent] = asyncio.get_running_loop().create_future()
        self._text: list[str] = []
        self._identity = Identity.fresh(
            order.request.kind, bench.config.model_name, bench.clock.s()
        )

    def submit(self) -> None:
        """Give the sequence to the engine.

        Raises:
            BusyError: the engine's line is full: another candidate may have room.
            ApiError: the engine cannot run it as it is.
        """
        try:
            self._bench.engine.submit(self._order.work, self._bench.handover.to(self._take))
        except (EngineBusy, EngineStopped) as error:
            raise BusyError("the engine takes no request now") from error
        except RequestTooLong as error:
            raise ApiError(400, "context_length_exceeded", str(error)) from None
        except RequestInvalid as error:
            raise ApiError(400, "invalid_value", str(error)) from None

    def cancel(self) -> None:
        """Have the engine drop the sequence within a step; its last event still comes."""
        self._bench.engine.cancel(self._order.work.id)

    async def run(self) -> tuple[str, Usage]:
        """Deliver while the engine works; returns how it ended and the exact usage.

        Raises:
            ConnectionError: the gateway went away. The engine is left clean in any case.
        """
        if self._order.request.stream:
            self._delivery.put(head_record(self._identity.head(stream=True)))
        pump = asyncio.create_task(self._delivery.run())
        try:
            ends: set[asyncio.Future[Any]] = {pump, self._last}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._last.done():
                # The pump has ended first. After a lost gateway nobody waits (this raises); after
                # a cancel the engine's last event, with the usage, is still on its way.
                pump.result()
            last = await self._last
            usage = last.usage or NO_USAGE
            finish = await self._end(last.finish or "error", usage)
            # The delivery was abandoned if the client left before the end.
            return (finish if await pump else "cancelled"), usage
        finally:
            self.cancel()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def _take(self, event: TokenEvent) -> None:
        """Move one engine event into the delivery."""
        self._text.append(event.text)
        if self._order.request.stream:
            if event.finish is None:
                self._delivery.put(TokenDelta(event.text))
            elif event.finish in ("stop", "length"):
                tail = {"f": event.finish, "u": usage_document(event.usage or NO_USAGE)}
                self._delivery.put(TokenDelta(event.text, tail))
        if event.finish is not None and not self._last.done():
            self._last.set_result(event)

    async def _end(self, finish: str, usage: Usage) -> str:
        """End the delivery as the engine's finish demands; returns the final finish."""
        if finish == "cancelled":
            self._delivery.abandon()
            return finish
        if finish not in ("stop", "length"):
            self._withhold("engine_error", "the engine could not finish this answer", 500)
            return "error"
        if not self._order.request.stream:
            text = "".join(self._text)
            self._delivery.put(head_record(self._identity.head(stream=False)))
            self._delivery.put(Record(DATA, body(self._identity, text, finish, usage)))
            self._delivery.settle()
        try:
            receipt = await self._receipt(finish, usage)
        except (ReceiptError, MalformedError, TimeoutError):
            self._withhold(UNLOGGED, "no durable receipt, so no complete answer", 503)
            return "error"
        self._delivery.close(receipt)
        return finish

    def _withhold(self, code: str, message: str, status: int) -> None:
        """End without a receipt: a begun stream gets an ERROR record, a reply is replaced."""
        if self._order.request.stream:
            self._delivery.fail(code, message)
        else:
            self._delivery.restart()
            decline(self._delivery, ApiError(status, code, message, kind="server_error"))

    async def _receipt(self, finish: str, usage: Usage) -> bytes:
        """Return the RECEIPT record's payload; the gateway has logged its event durably."""
        bench, order, writer = self._bench, self._order, self._delivery.writer
        opened = order.accepted.opened
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
                text="".join(self._text),
                request_ct=opened.ct_hash,
                response_ct=writer.ct_hash,
                finish=finish,
                sampling=order.work.params,
                usage=usage,
                salt_scope="caller" if order.salted else "request",
            ),
            order.accepted.epoch,
        )
        async with asyncio.timeout(LOG_TIMEOUT_S):
            logged = await self._outlet.log(opened.header.rid, signed.event)
        return receipt_record(signed, logged)


def decline(delivery: Delivery, error: ApiError) -> None:
    """Make an OpenAI error the whole reply, shaped like any other."""
    delivery.put(head_record({"s": error.status, "h": {"content-type": "application/json"}}))
    delivery.put(Record(DATA, error.body()))
    delivery.close(None)
