"""One accepted request on the engine: tokens into the delivery, then the receipt, then the end.

An answer is complete only with a receipt whose event is durable in the evidence log. Without one a
stream ends in an ERROR record and a plain reply is withheld: evidence comes before effect.
"""

import asyncio
from functools import partial
from typing import Any

from evidence.commit import response_segments
from wire.errors import BusyError
from wire.records import DATA, Record, TokenDelta

from .api.errors import ApiError
from .api.logprobs import Chosen, TokenLogprob
from .api.replies import body, shown
from .api.results import Identity, overall, usage_document
from .api.token_names import token_bytes
from .api.tool_reader import ToolReader
from .bench import Bench, Outlet
from .choice_writer import ChoiceWriter
from .delivery import Delivery, head_record
from .engine.errors import EngineBusy, EngineStopped, RequestInvalid, RequestTooLong
from .engine.events import TokenEvent, Usage
from .engine.models.adapter_folder import FOLDER
from .prompting import Prompted
from .receipts import UNLOGGED, Order, receipt_of
from .statement import parameters

NO_USAGE = Usage(0, 0)
FINISHED = ("stop", "length")


class Answering:
    """Runs one order. Belongs to the event loop's thread."""

    def __init__(
        self, bench: Bench, outlet: Outlet, delivery: Delivery, order: Order, prompted: Prompted
    ) -> None:
        """Prepare; `submit` gives the sequence to the engine."""
        assert bench.engine is not None, "a model without an engine takes no such order"
        self._bench = bench
        self._engine = bench.engine
        self._outlet = outlet
        self._delivery = delivery
        self._order = order
        self._prompted = prompted
        self._last: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._identity = identity = Identity.fresh(
            order.request.kind, order.request.model, bench.clock.s()
        )
        self._entry = None if order.request.sampling.logprobs is None else self._logprob
        self._writers = [
            ChoiceWriter(index, self._reader(), identity.call_id, self._entry)
            for index in range(order.request.n)
        ]
        self._usage = NO_USAGE
        self._early: list[TokenEvent] | None = []  # what came before `run` had begun the answer

    async def submit(self) -> None:
        """Give the sequence to the engine; a grammar is compiled on the way, beside the loop.

        Raises:
            BusyError: the engine's line is full: another candidate may have room.
            ApiError: the engine cannot run it as it is.
        """
        try:
            work, bench = self._prompted.work, self._bench
            on_event = bench.handover.to(self._take)
            if work.params.grammar is None:
                self._engine.submit(work, on_event)
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(bench.executor, self._engine.submit, work, on_event)
        except (EngineBusy, EngineStopped) as error:
            raise BusyError("the engine takes no request now") from error
        except RequestTooLong as error:
            raise ApiError(400, "context_length_exceeded", str(error)) from None
        except RequestInvalid as error:
            raise ApiError(400, "invalid_value", str(error)) from None

    def cancel(self) -> None:
        """Have the engine drop the sequence within a step; its last event still comes."""
        self._engine.cancel(self._prompted.work.id)

    async def run(self) -> tuple[str, Usage]:
        """Deliver while the engine works; returns how it ended and the exact usage.

        Raises:
            ConnectionError: the gateway went away. The engine is left clean in any case.
        """
        self._begin()
        pump = asyncio.create_task(self._delivery.run())
        try:
            ends: set[asyncio.Future[Any]] = {pump, self._last}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not self._last.done():
                # The pump has ended first. After a lost gateway nobody waits (this raises); after
                # a cancel the engine's last event, with the usage, is still on its way.
                pump.result()
            finish = await self._end(await self._last)
            # The delivery was abandoned if the client left before the end.
            return (finish if await pump else "cancelled"), self._usage
        finally:
            self.cancel()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def _begin(self) -> None:
        """Put what is known before the first token."""
        prompt = len(self._prompted.work.prompt_tokens)
        if self._order.request.stream:
            self._delivery.put(head_record(self._identity.head(stream=True, prompt_tokens=prompt)))
        if self._prompted.echo:
            for writer in self._writers:
                self._stream(writer.begin(self._prompted.echo))
        early, self._early = self._early or [], None
        for event in early:
            self._take(event)

    def _reader(self) -> ToolReader | None:
        form = self._prompted.form
        return None if form is None else ToolReader(form)

    def _logprob(self, choice: Chosen) -> TokenLogprob:
        most = self._order.request.sampling.logprobs or 0
        return TokenLogprob.of(choice, most, partial(token_bytes, self._engine.tokenizer))

    def _stream(self, deltas: list[TokenDelta]) -> None:
        if self._order.request.stream:
            for delta in deltas:
                self._delivery.put(delta)

    def _take(self, event: TokenEvent) -> None:
        """Move one engine event into the delivery; the last one of all choices ends the answer."""
        if self._early is not None:
            self._early.append(event)
            return
        if self._last.done():
            return
        if event.usage is not None:
            self._usage = _sum(self._usage, event.usage)
        if event.finish is not None and event.finish not in FINISHED:
            self._last.set_result(event.finish)
            return
        deltas = self._writers[event.index].take(event)
        ended = all(writer.ended for writer in self._writers)
        if ended:
            last = deltas[-1]
            deltas[-1] = TokenDelta(last.text, last.tail | {"u": usage_document(self._usage)})
        self._stream(deltas)
        if ended:
            self._last.set_result("stop")

    async def _end(self, finish: str) -> str:
        """End the delivery as the engine's finish demands; returns the final finish."""
        if finish == "cancelled":
            self._delivery.abandon()
            return finish
        if finish not in FINISHED:
            self._withhold("engine_error", "the engine could not finish this answer", 500)
            return "error"
        request = self._order.request
        results = [writer.result() for writer in self._writers]
        if not request.stream:
            results = shown(request, results)
            head = self._identity.head(stream=False, prompt_tokens=self._usage.prompt_tokens)
            self._delivery.put(head_record(head))
            text = body(self._identity, request, results, self._usage)
            self._delivery.put(Record(DATA, text))
            self._delivery.settle()
        receipt = await receipt_of(
            self._bench,
            self._outlet,
            self._delivery,
            self._order,
            answer=response_segments([result.said() for result in results]),
            finish=overall(results),
            parameters=parameters(request, self._prompted.work.params) | self._adapted(),
            usage=self._usage,
        )
        if receipt is None:
            self._withhold(UNLOGGED, "no durable receipt, so no complete answer", 503)
            return "error"
        self._delivery.close(receipt)
        return overall(results)

    def _adapted(self) -> dict[str, str]:
        """What a receipt says of the adapter; nothing without one."""
        name = self._prompted.work.adapter
        if not name:
            return {}
        digest = self._bench.config.model_digests[f"{FOLDER}/{name}"]
        return {"adapter": name, "adapter_digest": digest}

    def _withhold(self, code: str, message: str, status: int) -> None:
        """End without a receipt: a begun stream gets an ERROR record, a reply is replaced."""
        if self._order.request.stream:
            self._delivery.fail(code, message)
        else:
            self._delivery.restart()
            error = ApiError(status, code, message, kind="server_error")
            decline(self._delivery, error, self._order.path)


def decline(delivery: Delivery, error: ApiError, path: object) -> None:
    """Make an error the whole reply, in the form of the path's API, shaped like any other."""
    delivery.put(head_record({"s": error.status, "h": {"content-type": "application/json"}}))
    delivery.put(Record(DATA, error.body(path)))
    delivery.close(None)


def _sum(one: Usage, other: Usage) -> Usage:
    """Counts of a request whose choices are counted one by one: the prompt is the same."""
    return Usage(
        max(one.prompt_tokens, other.prompt_tokens),
        one.completion_tokens + other.completion_tokens,
        max(one.cached_tokens, other.cached_tokens),
    )
