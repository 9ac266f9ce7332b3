"""One request, from envelope to FINAL.

Order: open → replay set → header checks → parse → tokenise → engine → shaped sealed frames →
statement → log → RECEIPT and FINAL → signed DONE to the gateway. A refusal before anything was sent
is a signed notice (the gateway may try another candidate); after the request is open it is sealed.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Any

from evidence.events import round_usage
from wire.errors import AnchorholdError, BusyError
from wire.ids import b64u
from wire.link import done_bytes
from wire.notice import CODES, sign_notice

from .answering import NO_USAGE, Answering, decline
from .api.endpoints import parse_request
from .api.errors import ApiError
from .bench import Bench, Outlet
from .delivery import Delivery, head_record
from .embedding import Embedding, input_tokens
from .engine.events import Usage
from .intake import Accepted, accept, addressee, cache_salt, check_agreement, check_header
from .journal import Event, emit
from .prompting import prompted
from .receipts import Order

# Bodies above this are parsed and tokenised beside the loop, so that one long prompt does not delay
# the frames of everybody else; below it the detour would cost more than it saves.
INLINE_MAX = 4096
# The journal takes names known beforehand, not strings.
NoticeCode = enum.Enum("NoticeCode", {code.upper(): code for code in sorted(CODES)})  # type: ignore[misc]  # members come from wire


class Session:
    """One request in this worker."""

    def __init__(self, bench: Bench, outlet: Outlet, rid: bytes) -> None:
        """Prepare for the request the gateway labelled `rid`."""
        self._bench = bench
        self._outlet = outlet
        self._rid = rid
        self._delivery: Delivery | None = None
        self._answering: Answering | Embedding | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Stop: the client is gone. The engine drops the sequence within a step."""
        self._cancelled = True
        if self._answering is not None:
            self._answering.cancel()
        if self._delivery is not None:
            self._delivery.abandon()

    async def turn_away(self, envelope: bytes) -> None:
        """Refuse an envelope that came beyond the credits given."""
        await self._refuse(envelope, BusyError("no slot is free"))

    async def run(self, envelope: bytes) -> None:
        """Answer one envelope. Every outcome but a lost gateway is reported to the gateway."""
        bench = self._bench
        started_ms = bench.clock.ms()
        try:
            accepted = accept(envelope, self._rid, bench.keyring, bench.clock.s())
        except AnchorholdError as error:
            await self._refuse(envelope, error)
            return
        delivery = Delivery(accepted.opened, bench.rng, bench.clock.monotonic, self._send)
        self._delivery = delivery
        try:
            check_header(accepted.opened, bench.config)
            if accepted.opened.header.op == "ping":
                await self._pong(delivery)
                return
            answering = (await self._prepare(accepted, started_ms))(delivery)
            await answering.submit()
        except ApiError as error:
            decline(delivery, error, accepted.opened.head.get("p"))
            await delivery.run()
            await self._done("refused", NO_USAGE)
            return
        except AnchorholdError as error:
            await self._refuse(envelope, error)
            return
        self._answering = answering
        if self._cancelled:
            answering.cancel()
        finish, usage = await answering.run()
        await self._done(finish, usage)

    def done(self, finish: str, usage: Usage) -> dict[str, Any]:
        """Return the signed end report, with usage rounded up to 64 tokens."""
        rounded = {
            "in": round_usage(usage.prompt_tokens),
            "out": round_usage(usage.completion_tokens),
        }
        sig = self._bench.keyring.sig.sign(done_bytes(self._rid, rounded, finish))
        return {"usage": rounded, "finish": finish, "sig": b64u(sig)}

    async def _done(self, finish: str, usage: Usage) -> None:
        await self._outlet.send_done(self._rid, self.done(finish, usage))

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

    async def _prepare(
        self, accepted: Accepted, started_ms: int
    ) -> Callable[[Delivery], Answering | Embedding]:
        """Parse, check and tokenise, beside the loop when the body is long."""
        opened, bench = accepted.opened, self._bench
        salt = cache_salt(opened.head)

        def prepare() -> Callable[[Delivery], Answering | Embedding]:
            method, path = opened.head.get("m"), opened.head.get("p")
            request = parse_request(str(method), str(path), opened.body)
            adapter = check_agreement(opened, request)
            order = Order(accepted, request, salt is not None, started_ms)
            if request.kind == "embeddings":
                tokens = input_tokens(request, bench.embedder)
                return lambda delivery: Embedding(bench, self._outlet, delivery, order, tokens)
            if bench.engine is None:
                message = "model: this one makes only embeddings"
                raise ApiError(404, "unsupported_operation", message, param="model")
            # Without a salt nothing is shared with other requests, and nothing is kept for them.
            own = b"" if salt is None else salt
            work = prompted(request, bench.engine, opened.header.out, self._rid, own, adapter)
            return lambda delivery: Answering(bench, self._outlet, delivery, order, work)

        if len(opened.body) <= INLINE_MAX:
            return prepare()
        return await asyncio.get_running_loop().run_in_executor(bench.executor, prepare)
