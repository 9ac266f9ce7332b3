"""One request, from envelope to FINAL.

Order: open → replay set → header checks → parse → tokenise → engine → shaped sealed frames →
statement → log → RECEIPT and FINAL → signed DONE to the gateway. A refusal before anything was sent
is a signed notice (the gateway may try another candidate); after the request is open it is sealed.
Without a durable log entry an answer has no complete end: evidence comes before effect.
"""

import asyncio
import enum
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from evidence.events import round_usage
from wire.canonical import encode
from wire.errors import AnchorholdError, BusyError, MalformedError, ReceiptError
from wire.ids import b64u
from wire.notice import CODES, sign_notice
from wire.records import DATA, Record, TokenDelta

from .clock import Clock
from .delivery import Delivery, head_record
from .engine.engine import Engine
from .engine.errors import EngineBusy, EngineStopped, RequestInvalid, RequestTooLong
from .engine.events import TokenEvent, Usage
from .engine.sequence import GenerationRequest
from .epochs import Keyring
from .intake import Accepted, accept, addressee, cache_salt, check_agreement, check_header
from .journal import Event, emit
from .openai_api import ApiRequest, parse_request
from .openai_errors import ApiError
from .openai_reply import Identity, body, usage_document
from .prompting import generation_request
from .statement import Answered, Notary, receipt_record
from .worker_config import WorkerConfig

# The log answers in milliseconds; a client must not wait longer for an end that will not come.
LOG_TIMEOUT_S = 10.0
# Bodies above this are parsed and tokenised beside the loop, so that one long prompt does not delay
# the frames of everybody else; below it the detour would cost more than it saves.
INLINE_MAX = 4096
DONE_LABEL = b"anchorhold/1 done\0"
NO_USAGE = Usage(0, 0)
# The journal takes names known beforehand, not strings.
NoticeCode = enum.Enum("NoticeCode", {code.upper(): code for code in sorted(CODES)})  # type: ignore[misc]  # members come from wire


class Outlet(Protocol):
    """The session's way to the gateway."""

    async def send_bytes(self, rid: bytes, data: bytes) -> None:
        """Send response bytes; waits while the gateway is slow."""

    async def send_notice(self, rid: bytes, notice: dict[str, Any]) -> None:
        """Send a signed refusal, before any byte."""

    async def log(self, rid: bytes, event: dict[str, Any]) -> dict[str, Any]:
        """Have an event made durable and return the log's answer."""

    async def send_done(self, rid: bytes, done: dict[str, Any]) -> None:
        """Report the end, with rounded usage."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every session of one worker shares."""

    config: WorkerConfig
    keyring: Keyring
    engine: Engine
    notary: Notary
    clock: Clock
    rng: Callable[[int], bytes]
    executor: Executor


class Session:
    """One request in this worker."""

    def __init__(self, bench: Bench, outlet: Outlet, rid: bytes) -> None:
        """Prepare for the request the gateway labelled `rid`."""
        self._bench = bench
        self._outlet = outlet
        self._rid = rid
        self._delivery: Delivery | None = None
        self._events: asyncio.Queue[TokenEvent | None] = asyncio.Queue()
        self._cancelled = False
        self._submitted = False

    def cancel(self) -> None:
        """Stop: the client is gone. The engine drops the sequence within a step."""
        self._cancelled = True
        if self._submitted:
            self._bench.engine.cancel(self._rid.hex())
        if self._delivery is not None:
            self._delivery.abandon()

    async def turn_away(self, envelope: bytes) -> None:
        """Refuse an envelope that came beyond the credits given."""
        await self._refuse(envelope, BusyError("no slot is free"))

    def done(self, finish: str, usage: Usage) -> dict[str, Any]:
        """Return the signed end report, with usage rounded up to 64 tokens."""
        said = {
            "usage": {
                "in": round_usage(usage.prompt_tokens),
                "out": round_usage(usage.completion_tokens),
            },
            "finish": finish,
        }
        sig = self._bench.keyring.sig.sign(DONE_LABEL + self._rid + encode(said))
        return {**said, "sig": b64u(sig)}

    async def run(self, envelope: bytes) -> None:
        """Answer one envelope. Every outcome but a lost gateway is reported to the gateway."""
        bench = self._bench
        started_ms = bench.clock.ms()
        try:
            accepted = accept(envelope, self._rid, bench.keyring, bench.clock.s())
        except AnchorholdError as error:
            await self._refuse(envelope, error)
            return
        header = accepted.opened.header
        self._delivery = Delivery(accepted.opened, bench.rng, bench.clock.monotonic, self._send)
        try:
            check_header(accepted.opened, bench.config)
            if header.op == "ping":
                await self._pong(self._delivery)
                return
            request, work, salted = await self._prepare(accepted)
            self._submit(work)
        except ApiError as error:
            await self._decline(self._delivery, error)
            return
        except AnchorholdError as error:
            await self._refuse(envelope, error)
            return
        answer = _Answer(accepted, request, work, salted, started_ms)
        await self._answer(self._delivery, answer)

    async def _send(self, data: bytes) -> None:
        await self._outlet.send_bytes(self._rid, data)

    async def _refuse(self, envelope: bytes, error: AnchorholdError) -> None:
        """Send the one notice for an error before the first byte."""
        bench = self._bench
        code = error.code if error.code in CODES else "open_failed"
        now = bench.clock.s()
        to = addressee(envelope, bench.keyring, now)
        notice = sign_notice(bench.keyring.sig, self._rid, to.th, to.kid, code, now)
        emit(Event.NOTICE, code=NoticeCode(code))
        await self._outlet.send_notice(self._rid, notice)

    async def _pong(self, delivery: Delivery) -> None:
        """Answer a ping: an empty 200 proves that this worker holds the key."""
        delivery.put(head_record({"s": 200, "h": {}}))
        delivery.close(None)
        await delivery.run()
        await self._done("stop", NO_USAGE)

    async def _decline(self, delivery: Delivery, error: ApiError) -> None:
        """Seal an OpenAI error to the caller, shaped like any other reply."""
        delivery.put(head_record({"s": error.status, "h": {"content-type": "application/json"}}))
        delivery.put(Record(DATA, error.body()))
        delivery.close(None)
        await delivery.run()
        await self._done("refused", NO_USAGE)

    async def _prepare(self, accepted: Accepted) -> tuple[ApiRequest, GenerationRequest, bool]:
        """Parse, check and tokenise, beside the loop when the body is long."""
        opened, bench = accepted.opened, self._bench
        salt = cache_salt(opened.head)

        def prepare() -> tuple[ApiRequest, GenerationRequest, bool]:
            method, path = opened.head.get("m"), opened.head.get("p")
            request = parse_request(str(method), str(path), opened.body)
            check_agreement(opened, request)
            # Absent salt: a random one, so that nothing is shared between requests.
            own = bench.rng(32) if salt is None else salt
            work = generation_request(request, bench.engine, opened.header.out, self._rid, own)
            return request, work, salt is not None

        if len(opened.body) <= INLINE_MAX:
            return prepare()
        return await asyncio.get_running_loop().run_in_executor(bench.executor, prepare)

    def _submit(self, work: GenerationRequest) -> None:
        """Give the sequence to the engine.

        Raises:
            BusyError: the engine's line is full: another candidate may have room.
            ApiError: the engine cannot run it as it is.
        """
        loop = asyncio.get_running_loop()

        def on_event(event: TokenEvent) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        try:
            self._bench.engine.submit(work, on_event)
        except (EngineBusy, EngineStopped) as error:
            raise BusyError("the engine takes no request now") from error
        except RequestTooLong as error:
            raise ApiError(400, "context_length_exceeded", str(error)) from None
        except RequestInvalid as error:
            raise ApiError(400, "invalid_value", str(error)) from None
        self._submitted = True
        if self._cancelled:
            self._bench.engine.cancel(work.id)

    async def _answer(self, delivery: Delivery, answer: "_Answer") -> None:
        """Deliver while the engine works; whatever happens, the engine is left clean."""
        pump = asyncio.create_task(delivery.run())
        pump.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            last = await self._relay(delivery, answer, pump)
            finish: str = last.finish or "error"
            if finish in ("stop", "length") and not self._cancelled:
                finish = await self._conclude(delivery, answer, finish, last.usage or NO_USAGE)
            elif finish == "error":
                delivery.fail("engine_error", "the engine could not finish this answer")
            else:
                finish = "cancelled"
                delivery.abandon()
            if not await pump:
                finish = "cancelled"
            await self._done(finish, last.usage or NO_USAGE)
        finally:
            self._bench.engine.cancel(self._rid.hex())
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _relay(
        self, delivery: Delivery, answer: "_Answer", pump: "asyncio.Task[bool]"
    ) -> TokenEvent:
        """Move engine events into the delivery; returns the last one.

        Raises:
            ConnectionError: the gateway went away meanwhile.
        """
        stream = answer.request.stream
        if stream:
            delivery.put(head_record(self._identify(answer).head(stream=True)))
        while True:
            event = await self._next_event(pump)
            answer.text.append(event.text)
            if stream and event.finish is None:
                delivery.put(TokenDelta(event.text))
            elif stream and event.finish in ("stop", "length"):
                usage = usage_document(event.usage or NO_USAGE)
                delivery.put(TokenDelta(event.text, {"f": event.finish, "u": usage}))
            if event.finish is not None:
                return event

    async def _next_event(self, pump: "asyncio.Task[bool]") -> TokenEvent:
        """Wait for the engine; raises what ended the pump if that comes first."""
        while (event := await self._events.get()) is None:
            # The pump has ended before the engine. After a cancel the engine's last event, with
            # the usage, is still on its way; after a lost gateway nobody waits for it.
            pump.result()
        return event

    def _identify(self, answer: "_Answer") -> Identity:
        """Return the response's identity, drawn once."""
        if answer.identity is None:
            answer.identity = Identity.fresh(
                answer.request.kind, self._bench.config.model_name, self._bench.clock.s()
            )
        return answer.identity

    async def _conclude(
        self, delivery: Delivery, answer: "_Answer", finish: str, usage: Usage
    ) -> str:
        """Sign, have it logged, and end the response with its receipt; returns the final finish."""
        text = "".join(answer.text)
        try:
            receipt = await self._receipt(delivery, answer, text, finish, usage)
        except (ReceiptError, MalformedError, TimeoutError):
            if answer.request.stream:
                delivery.fail("evidence_unavailable", "no durable receipt: answer incomplete")
            else:
                error = ApiError(
                    503,
                    "evidence_unavailable",
                    "the evidence log could not be reached: no answer without a receipt",
                    kind="server_error",
                )
                delivery.put(head_record({"s": 503, "h": {"content-type": "application/json"}}))
                delivery.put(Record(DATA, error.body()))
                delivery.close(None)
            return "error"
        if not answer.request.stream:
            identity = self._identify(answer)
            delivery.put(head_record(identity.head(stream=False)))
            delivery.put(Record(DATA, body(identity, text, finish, usage)))
        delivery.close(receipt)
        return finish

    async def _receipt(
        self, delivery: Delivery, answer: "_Answer", text: str, finish: str, usage: Usage
    ) -> bytes:
        """Return the RECEIPT record's payload; the gateway has logged its event durably."""
        bench, opened = self._bench, answer.accepted.opened
        signed = bench.notary.sign(
            Answered(
                rid=self._rid,
                th=opened.th,
                kid=opened.kid,
                op=opened.header.op,
                started_ms=answer.started_ms,
                ended_ms=bench.clock.ms(),
                salt_q=opened.keys.salt_q,
                salt_r=delivery.writer.salt_r,
                prompt=answer.request.segments,
                text=text,
                request_ct=opened.ct_hash,
                response_ct=delivery.writer.ct_hash,
                finish=finish,
                sampling=answer.work.params,
                usage=usage,
                salt_scope="caller" if answer.salted else "request",
            ),
            answer.accepted.epoch,
        )
        async with asyncio.timeout(LOG_TIMEOUT_S):
            logged = await self._outlet.log(self._rid, signed.event)
        return receipt_record(signed, logged)

    async def _done(self, finish: str, usage: Usage) -> None:
        await self._outlet.send_done(self._rid, self.done(finish, usage))


class _Answer:
    """An answer in the making."""

    __slots__ = ("accepted", "identity", "request", "salted", "started_ms", "text", "work")

    def __init__(
        self,
        accepted: Accepted,
        request: ApiRequest,
        work: GenerationRequest,
        salted: bool,
        started_ms: int,
    ) -> None:
        self.accepted = accepted
        self.request = request
        self.work = work
        self.salted = salted
        self.started_ms = started_ms
        self.text: list[str] = []
        self.identity: Identity | None = None
