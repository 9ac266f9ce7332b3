"""The gateway's end of one worker connection: `wire.link` from CHALLENGE to the end.

Nothing is given to a peer before it is admitted: until then only HELLO and answers are accepted.
Any malformed, unexpected or badly signed message ends the connection, and the requests on it move
on to other workers.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attestation.binding import NONCE_LEN
from evidence.events import INFER_RECEIPT, WORKER_SESSION, worker_session_event
from wire.errors import AnchorholdError, MalformedError, ReceiptError, UnavailableError
from wire.ids import b64u
from wire.link import (
    ADMITTED,
    BYTES,
    CHALLENGE,
    CHALLENGE_ANSWER,
    CHALLENGE_JOB,
    DONE,
    LEASE,
    LOGGED,
    NOTICE,
    REFUSED,
    Message,
    MessageType,
    json_message,
)

from .admission import Hello, NotAdmitted, parse_hello
from .answers import Answers
from .asker import Asker
from .attributes import Attr
from .inbound import Inbound
from .live_answer import LiveAnswer, parse_live_answer
from .outbound import Outbound
from .receipts import receipt_event
from .roster import Roster
from .session import Epoch, Session
from .strangers import Stranger, Strangers
from .tasks import Tasks
from .turns import Turns

READ_SIZE = 262_144
#: New key sets announced before the first one is judged.
KEYS_WAITING_MAX = 8
#: Live challenges relayed to one worker at once: each costs it an attestation.
CHALLENGES_MAX = 4
#: What answers a question of ours in a few words.
_ANSWERS = (MessageType.ACTIVATED, MessageType.PROVED)


@dataclass(slots=True, eq=False)
class Link:
    """One connection.

    Args:
        strangers: all links that are not admitted, this one among them.
        own: places in which what admitted workers send is parsed.
    """

    roster: Roster
    out: Outbound
    nonce: bytes
    asker: Asker
    strangers: Strangers
    own: Turns
    inbound: Inbound = field(init=False)
    session: Session | None = None
    ended: str | None = None
    _opened: Session | None = None  # its beginning went to the log, and its end did not yet
    _admissions: "deque[Message]" = field(default_factory=deque)
    _judging: bool = False
    _answers: Answers = field(init=False)
    _reading: int = 0
    _challenges: int = 0
    _tasks: Tasks = field(default_factory=Tasks)

    def __post_init__(self) -> None:
        """Count it among the strangers; `run` ends that."""
        self._answers = Answers(self.out.send)
        self.inbound = Inbound(Stranger(self.asker, self.end), self.strangers, self.own)
        self.strangers.enter(self.inbound.stranger)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve until the connection ends, then undo everything it stood for."""
        assert len(self.nonce) == NONCE_LEN
        greeting = {"nonce": b64u(self.nonce), "gw": self.roster.name}
        self.out.send(json_message(CHALLENGE, {**greeting, "beacon": self.roster.beacon_json()}))
        deadline = asyncio.get_running_loop().call_later(
            self.roster.hello_deadline_s, self._check_admitted
        )
        cause = "closed"
        try:
            while self.ended is None:
                if not await self._receive(reader):
                    cause = "lost"
                    break
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
            self.inbound.close()
            self.out.close(jobs=self.session is not None)

    async def challenge(self, question: dict[str, Any], within_s: float) -> LiveAnswer:
        """Relay a client's live challenge.

        Raises:
            UnavailableError: too many at once, no answer in time, or the worker is gone.
            MalformedError: the answer is not of its form.
        """
        if self._challenges >= CHALLENGES_MAX or self.ended is not None:
            raise UnavailableError("the worker answers other challenges")
        self._challenges += 1
        try:
            answer = await self._answers.ask(CHALLENGE_JOB, question, within_s)
            return await self.inbound.read(lambda: parse_live_answer(answer))
        finally:
            self._challenges -= 1

    # ------------------------------------------------------------------ messages in

    async def _receive(self, reader: asyncio.StreamReader) -> bool:
        """Read once; False at the end. What was read is let go before the next wait."""
        chunk = await reader.read(READ_SIZE)
        for message in self.inbound.feed(chunk) if chunk else ():
            if self.ended is None:
                self._handle(message)
        return bool(chunk)

    def _handle(self, message: Message) -> None:
        kind = message.type
        if kind in (MessageType.HELLO, MessageType.KEYS):
            self._introduced(kind == MessageType.HELLO, message)
        elif kind in _ANSWERS:
            self._answers.take()
            self._answers.give(message.json())
        elif kind == CHALLENGE_ANSWER:
            self._answers.take()
            if self._reading < CHALLENGES_MAX:  # else there are some that nobody waits for
                self._reading += 1
                self._tasks.start(self._read_answer(message), self._broke)
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

    def _introduced(self, first: bool, message: Message) -> None:
        started = self.session is not None or self._judging or bool(self._admissions)
        if first == started or len(self._admissions) >= KEYS_WAITING_MAX:
            raise MalformedError("link: HELLO comes once, KEYS after it")
        self._admissions.append(message)
        if not self._judging:
            self._judging = True
            self._tasks.start(self._judge(), self._broke)

    async def _read_answer(self, message: Message) -> None:
        try:
            self._answers.give(await self.inbound.read(message.json))
        except MalformedError as error:
            self.roster.broken(error)
            self.end("protocol")
        finally:
            self._reading -= 1

    # ------------------------------------------------------------------ admission

    async def _judge(self) -> None:
        """Judge what was introduced, in order."""
        try:
            while self._admissions:
                await self._admit(await self._introduction())
        except UnavailableError:
            self.end("stopped")
        except MalformedError as error:
            self.roster.broken(error)
            self.end("protocol")
        except OSError:
            self.end("lost")
        finally:
            self._judging = False

    async def _introduction(self) -> Hello:
        """The next HELLO or KEYS, parsed; its bytes are let go."""
        message = self._admissions.popleft()
        return await self.inbound.read(lambda: parse_hello(message.json()))

    def _broke(self, error: BaseException) -> None:
        """Our own mistake: the worker hears of it at once, and may come back."""
        self.roster.failed(error)
        self.end("internal")

    async def _admit(self, hello: Hello) -> None:
        """One judgement, from what was introduced to the answer.

        Steps: 1 `Admission` accepts it. 2 no other process has the name or a key of it. 3 the
        session is in the log. 4 still none has: another may have come while that was written.
        5 the policy is still the one it was judged under.
        """
        roster = self.roster
        # 1
        verdict = await roster.admission.admit(
            hello, self.nonce, self._answer, self.session, self.asker
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
            # 3; what a worker that leaves meanwhile has begun is in the log all the same
            self._opened = session
            await self._record(session, "open")
            if self.ended is not None:
                return
            # 4, 5
            stands = roster.admission.stands(verdict)
            clash = roster.clash(verdict, None) or (None if stands else "policy_changed")
            if clash is not None:
                self._opened = None
                await self._record(session, "close", clash)
                await self._refuse(NotAdmitted((clash,), verdict.bh))
                return
            self.session = session
            self.inbound.admitted()
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
            found = await self._answers.ask(kind, question, self.roster.hello_deadline_s)
        except UnavailableError:
            return None
        return found.get("answer")

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
            event = receipt_event(exchange, session, document, self.roster.clock.wall())
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

    def _check_admitted(self) -> None:
        if self.session is None:
            self.end("expired")

    async def _close(self, cause: str) -> None:
        self.ended = cause
        self.inbound.close()
        self._admissions.clear()
        self.out.close(jobs=self.session is not None)
        self._answers.end()
        session = self.session
        if session is not None:
            self.roster.lost(session, cause)
        await self._tasks.cancel()
        if self._opened is not None:
            try:
                await self._record(self._opened, "close", cause)
            except AnchorholdError:
                return  # the log has stopped; the journal said so
