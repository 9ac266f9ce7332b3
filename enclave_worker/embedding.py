"""One accepted request for embeddings: all vectors, then the receipt, then the end."""

import asyncio

from evidence.commit import Role
from wire.records import DATA, Record

from .answering import NO_USAGE, decline
from .api.embeddings import Embedder
from .api.embeddings_reply import embeddings_reply, vector_bytes
from .api.errors import ApiError
from .api.replies import dumped
from .api.request import ApiRequest
from .api.results import Identity
from .bench import Bench, Outlet
from .delivery import Delivery, head_record
from .engine.errors import RequestInvalid
from .engine.events import Usage
from .receipts import UNLOGGED, Order, receipt_of


def input_tokens(request: ApiRequest, embedder: Embedder | None) -> list[list[int]]:
    """Token ids of every input.

    Raises:
        ApiError: this worker's model makes no embeddings, or an input is too long for it.
    """
    if embedder is None:
        message = "model: this one makes no embeddings"
        raise ApiError(404, "unsupported_operation", message, param="model")
    found = [embedder.encode(i) if isinstance(i, str) else list(i) for i in request.inputs]
    for index, tokens in enumerate(found):
        if not 1 <= len(tokens) <= embedder.max_len:
            raise ApiError(
                400,
                "context_length_exceeded",
                f"input[{index}]: found {len(tokens)} tokens, expected 1 to {embedder.max_len}",
                param="input",
            )
    return found


class Embedding:
    """Runs one order. Belongs to the event loop's thread."""

    def __init__(
        self,
        bench: Bench,
        outlet: Outlet,
        delivery: Delivery,
        order: Order,
        tokens: list[list[int]],
    ) -> None:
        """Prepare; the model runs in `run`, beside the loop."""
        self._bench = bench
        self._outlet = outlet
        self._delivery = delivery
        self._order = order
        self._tokens = tokens
        self._cancelled = False

    async def submit(self) -> None:
        """Nothing to queue: who embeds takes turns, batch by batch."""

    def cancel(self) -> None:
        """Send and compute no more; a batch under way ends by itself."""
        self._cancelled = True
        self._delivery.abandon()

    async def run(self) -> tuple[str, Usage]:
        """Compute and deliver; returns how it ended and the exact usage."""
        pump = asyncio.create_task(self._delivery.run())
        try:
            finish = await self._answer()
            usage = self._usage if finish == "stop" else NO_USAGE
            return (finish if await pump else "cancelled"), usage
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    @property
    def _usage(self) -> Usage:
        return Usage(sum(map(len, self._tokens)), 0)

    async def _answer(self) -> str:
        bench, request = self._bench, self._order.request
        assert bench.embedder is not None, "checked by input_tokens"
        try:
            vectors = await self._vectors(bench.embedder)
        except RequestInvalid as error:
            decline(
                self._delivery,
                ApiError(400, "invalid_value", f"input: {error}", param="input"),
                self._order.path,
            )
            return "refused"
        except Exception:  # whatever the model raises is one and the same to the caller
            return self._refuse("engine_error", "the model could not embed this", 500)
        if self._cancelled:
            return "cancelled"
        identity = Identity.fresh("embeddings", bench.config.model_name, bench.clock.s())
        document = embeddings_reply(identity, request, vectors, self._usage.prompt_tokens)
        head = identity.head(stream=False, prompt_tokens=self._usage.prompt_tokens)
        self._delivery.put(head_record(head))
        self._delivery.put(Record(DATA, dumped(document)))
        self._delivery.settle()
        receipt = await receipt_of(
            bench,
            self._outlet,
            self._delivery,
            self._order,
            answer=[(Role.OUTPUT, vector) for vector in vectors],
            finish="stop",
            parameters={"shape": request.kind, "inputs": len(vectors)},
            usage=self._usage,
        )
        if receipt is None:
            self._delivery.restart()
            return self._refuse(UNLOGGED, "no durable receipt, so no complete answer", 503)
        self._delivery.close(receipt)
        return "stop"

    async def _vectors(self, embedder: Embedder) -> list[bytes]:
        """One vector for each input, so far as nobody cancels.

        A batch at a time: whoever else waits for the model is not behind all of a long request.
        """
        tokens, vectors = self._tokens, [b""] * len(self._tokens)
        loop, threads = asyncio.get_running_loop(), self._bench.executor
        for batch in await loop.run_in_executor(threads, embedder.batches, tokens):
            if self._cancelled:
                break
            texts = [tokens[index] for index in batch]
            found = await loop.run_in_executor(threads, embedder.embed, texts)
            for index, row in zip(batch, found.tolist(), strict=True):
                vectors[index] = vector_bytes(row)
        return vectors

    def _refuse(self, code: str, message: str, status: int) -> str:
        error = ApiError(status, code, message, kind="server_error")
        decline(self._delivery, error, self._order.path)
        return "error"
