"""The gateway's end of one worker connection: `wire.link` from CHALLENGE to the end.

Nothing is given to a peer before it is admitted: until then only HELLO and answers are accepted.
Any malformed, unexpected or badly signed message ends the connection, and the requests on it move
on to other workers.
"""

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attestation.binding import NONCE_LEN
from evidence.events import INFER_RECEIPT, WORKER_SESSION, worker_session_event
from wire.canonical import parse_evj1
from wire.errors import AnchorholdError, MalformedError, ReceiptError, UnavailableError
from wire.ids import b64u, unb64u
from wire.link import (
    ADMITTED,
    BYTES,
    CHALLENGE,
    CHALLENGE_JOB,
    DONE,
    LEASE,
    LOGGED,
    NOTICE,
    REFUSED,
    Decoder,
    Message,
    MessageType,
    json_message,
)

from .admission import NotAdmitted
from .asker import Asker
from .attributes import Attr
from .exchange import Exchange
from .outbound import Outbound
from .roster import Roster
from .session import Epoch, Session
from .tasks import Tasks

#: Messages from a worker are responses in pieces and evidence; jobs, the large ones, go out only.
INBOUND_MAX = 16 * 1024 * 1024
READ_SIZE = 262_144
#: New key sets announced before the first one is judged.
KEYS_WAITING_MAX = 8
#: Live challenges relayed to one worker at once: each costs it an attestation.
CHALLENGES_MAX = 4
CHALLENGE_TIMEOUT_S = 30.0
#: Bytes of a receipt event; larger ones do not fit a log entry.
EVENT_MAX = 16_384
#: What answers a question of ours.
_ANSWERS = (MessageType.ACTIVATED, MessageType.CHALLENGE_ANSWER, MessageType.PROVED)


@dataclass(slots=True, eq=False)
class Link:
    """One connection."""

    roster: Roster
    out: Outbound
    nonce: bytes
    asker: Asker
    session: Session | None = None
    ended: str | None = None
    _admissions: "deque[dict[str, Any]]" = field(default_factory=deque)
    _judging: bool = False
    _answers: "dict[int, asyncio.Future[dict[str, Any]]]" = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _challenges: int = 0
    _tasks: Tasks = field(default_factory=Tasks)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve until the connection ends, then undo everything it stood for."""
        assert len(self.nonce) == NONCE_LEN
        greeting = {"nonce": b64u(self.nonce), "gw": self.roster.name}
        self.out.send(json_message(CHALLENGE, {**greeting, "beacon": self.roster.beacon_json()}))
        deadline = asyncio.get_running_loop().call_later(
            self.roster.hello_deadline_s, self._check_admitted
        )
        decoder = Decoder(INBOUND_MAX)
        cause = "closed"
        try:
            while self.ended is None:
                chunk = await reader.read(READ_SIZE)
                if not chunk:
                    cause = "lost"
                    break
                for message in decoder.feed(chunk):
                    self._handle(message)
        except MalformedError as error:
            cause = "protocol"
            self.roster.broken(error)
        except OSError:
            cause = "lost"
        finally:
            deadline.cancel()
            await self._close(self.ended or cause)

    def end(self, cause: str) -> None:
        """End the connection from outside: lease expired, denied, replaced, stopped."""
        if self.ended is None:
            self.ended = cause
            self.out.close(cause)

    async def challenge(self, question: dict[str, Any]) -> dict[str, Any]:
        """Relay a client's live challenge.

        Raises:
            UnavailableError: too many at once, no answer in time, or the worker is gone.
        """
        if self._challenges >= CHALLENGES_MAX or self.ended is not None:
            raise UnavailableError("the worker answers other challenges")
        self._challenges += 1
        try:
            return await self._ask(CHALLENGE_JOB, question, CHALLENGE_TIMEOUT_S)
        finally:
            self._challenges -= 1

    # ------------------------------------------------------------------ messages in

    def _handle(self, message: Message) -> None:
        kind = message.type
        if kind in (MessageType.HELLO, MessageType.KEYS):
            self._introduced(kind == MessageType.HELLO, message.json())
        elif kind in _ANSWERS:
            self._answered(message.json())
        elif self.session is None:
            raise MalformedError(f"link: message type {int(kind)} before admission")
        else:
            self._work(self.session, message)

    def _work(self, session: Session, message: Message) -> None:
        """Messages of an admitted worker."""
        kind = message.type
        if kind in (BYTES, NOTICE, DONE):
            self.roster.dispatcher.receive(session, message)
        elif kind == MessageType.HEARTBEAT:
            self.roster.renew(session)
            lease = {"lease_s": self.roster.lease_s, "beacon": self.roster.beacon_json()}
            self._reply(json_message(LEASE, lease))
        elif kind == MessageType.PULL:
            session.pull(message.json())
            self.roster.renew(session)
            self.roster.dispatcher.pump(session)
        elif kind == MessageType.RECEIPT:
            self._tasks.start(
                self._log_receipt(session, message.rid, message.json()),
                partial(self._receipt_failed, session, message.rid),
            )
        elif kind == MessageType.GOODBYE:
            session.draining = True
            self.roster.left(session)
        else:
            raise MalformedError(f"link: message type {int(kind)} is not for a gateway")

    def _introduced(self, first: bool, document: dict[str, Any]) -> None:
        started = self.session is not None or self._judging or bool(self._admissions)
        if first == started or len(self._admissions) >= KEYS_WAITING_MAX:
            raise MalformedError("link: HELLO comes once, KEYS after it")
        self._admissions.append(document)
        if not self._judging:
            self._judging = True
            self._tasks.start(self._judge(), self._judge_failed)

    def _answered(self, document: dict[str, Any]) -> None:
        number = document.get("id")
        future = self._answers.get(number) if type(number) is int else None
        if future is not None and not future.done():
            future.set_result(document)

    # ------------------------------------------------------------------ admission

    async def _judge(self) -> None:
        """Judge what was introduced, in order."""
        try:
            while self._admissions:
                await self._admit(self._admissions.popleft())
        except UnavailableError:
            self.end("stopped")
        except MalformedError as error:
            self.roster.broken(error)
            self.end("protocol")
        except OSError:
            self.end("lost")
        finally:
            self._judging = False

    def _judge_failed(self, error: BaseException) -> None:
        """Our own mistake: the worker hears of it at once, and may come back."""
        self.roster.failed(error)
        self.end("internal")

    async def _admit(self, document: dict[str, Any]) -> None:
        """One judgement, from the message to the answer.

        Steps: 1 `Admission` accepts it. 2 no other process has the name or a key of it. 3 the
        session is in the log. 4 still none has: another may have come while that was written.
        5 the policy is still the one it was judged under.
        """
        roster = self.roster
        # 1
        verdict = await roster.admission.admit(
            document, self.nonce, self._answer, self.session, self.asker
        )
        if self.ended is not None:
            return  # fenced or lost meanwhile: keys taken now would lead to nobody
        # 2
        if isinstance(verdict, Epoch) and (word := roster.clash(verdict, self.session)):
            verdict = NotAdmitted((word,), verdict.bh)
        if isinstance(verdict, NotAdmitted):
            await self._refuse(verdict)
            return
        if self.session is None:
            session = Session(self.nonce, self.out.send, [verdict], roster.lease_end())
            # 3
            await self._record(session, "open")
            if self.ended is not None:
                return
            # 4, 5
            stands = roster.admission.stands(verdict)
            clash = roster.clash(verdict, None) or (None if stands else "policy_changed")
            if clash is not None:
                await self._record(session, "close", clash)
                await self._refuse(NotAdmitted((clash,), verdict.bh))
                return
            self.session = session
            roster.joined(session, self.end)
        elif roster.admission.stands(verdict):  # 5
            roster.new_keys(self.session, verdict)
        else:
            await self._refuse(NotAdmitted(("policy_changed",), verdict.bh))
            return
        self.out.send(
            json_message(
                ADMITTED,
                {
                    "lease_s": roster.lease_s,
                    "bh": b64u(verdict.bh),
                    "leaf": verdict.verdict.index,
                },
            )
        )

    async def _refuse(self, verdict: NotAdmitted) -> None:
        self.roster.refused(verdict)
        document = {"reasons": list(verdict.reasons), "bh": b64u(verdict.bh)}
        self.out.send(json_message(REFUSED, document))
        if self.session is None:
            await self.out.writer.drain()
            self.end("closed")

    async def _answer(self, kind: MessageType, question: dict[str, Any]) -> object:
        """The worker's answer to a question about itself; none in time is a wrong answer."""
        try:
            return (await self._ask(kind, question, self.roster.hello_deadline_s)).get("answer")
        except UnavailableError:
            return None

    async def _record(self, session: Session, phase: str, reason: str = "") -> None:
        binding = session.newest.appraised.binding
        event = worker_session_event(
            phase=phase,
            wid=binding.wid,
            bh=session.newest.bh,
            sig_pk=binding.sig_pk,
            models=[model.name for model in binding.models],
            lease_s=self.roster.lease_s,
            reason=reason,
        )
        await self.roster.ledger.append(WORKER_SESSION, event)

    # ------------------------------------------------------------------ receipts

    async def _log_receipt(self, session: Session, rid: bytes, document: dict[str, Any]) -> None:
        """Make a receipt durable and answer with its proof.

        Steps: 1 this worker holds the request and has not sent a receipt for it. 2 the event speaks
        of this request, a key of it that this worker has, and this worker; where it does not, this
        one answer is cut. 3 it is durable in the log. 4 LOGGED.
        """
        exchange = self.roster.dispatcher.held(session, rid)
        if exchange is None:
            self._reply(json_message(LOGGED, {"error": "unknown_request"}, rid=rid))
            return
        span = exchange.trace.receipt()
        try:
            # 1, 2
            event = _receipt_event(exchange, session, document, self.roster.clock.wall())
            # 3
            logged = await self.roster.ledger.append(INFER_RECEIPT, event)
            span.set(Attr.LOG_INDEX, logged.index)
            # 4
            self.out.send(json_message(LOGGED, logged.to_json(), rid=rid))
        except MalformedError as error:
            self.roster.broken(error)
            self.end("protocol")
        except ReceiptError as error:
            self.roster.broken(error)
            self._not_logged(session, rid, "receipt_mismatch")
        except UnavailableError:
            self._not_logged(session, rid, "log_unavailable")
        finally:
            span.end()

    def _not_logged(self, session: Session, rid: bytes, word: str) -> None:
        """Nothing is durable about this answer: it does not reach its end."""
        self.out.send(json_message(LOGGED, {"error": word}, rid=rid))
        exchange = self.roster.dispatcher.held(session, rid)
        if exchange is not None:
            self.roster.dispatcher.cut(exchange)

    def _receipt_failed(self, session: Session, rid: bytes, error: BaseException) -> None:
        self.roster.failed(error)
        self._not_logged(session, rid, "internal")

    # ------------------------------------------------------------------ inside

    def _reply(self, message: Message) -> None:
        if not self.out.reply(message):
            self.end("overflow")

    async def _ask(
        self, kind: MessageType, question: dict[str, Any], within_s: float
    ) -> dict[str, Any]:
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            self.out.send(json_message(kind, {**question, "id": number}))
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError as error:
            raise UnavailableError("the worker did not answer in time") from error
        finally:
            del self._answers[number]

    def _check_admitted(self) -> None:
        if self.session is None:
            self.end("expired")

    async def _close(self, cause: str) -> None:
        self.ended = cause
        self.out.close(cause)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(UnavailableError("the worker is gone"))
        session = self.session
        if session is not None:
            self.roster.lost(session, cause)
        await self._tasks.cancel()
        if session is not None:
            try:
                await self._record(session, "close", cause)
            except AnchorholdError:
                return  # the log has stopped; the journal said so


def _receipt_event(
    exchange: Exchange, session: Session, document: dict[str, Any], now: int
) -> dict[str, Any]:
    """Steps 1 and 2 of logging a receipt: the event's body, about exactly this answer.

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
    event = parse_evj1(unb64u(text), EVENT_MAX)
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
