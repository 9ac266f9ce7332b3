"""A scripted worker on the real link: real keys, real software evidence, real sealed answers.

It does what a test tells it to, and nothing by itself except heartbeats and the proof that it holds
its keys (`honest` off: a test answers PROVE, or lets it wait):

    worker = WorkerPeer(SoftwareTee("a", now=…), socket_path)
    await worker.admitted()
    await worker.pull(1)
    job = await worker.job()
    await worker.answer(job, "Hello")

Any fact can be changed before it is sent: `tee.facts`, `hello(**changes)`, `pull(seq=…)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.hashes import SHA256
from simulators.claims import honest_claims, receipt_event
from simulators.tpm import TpmTee

from attestation.binding import parse_beacon, parse_binding
from evidence.commit import Role, commit_segments, response_segments
from evidence.entry import Logged
from evidence.receipt import Side, sign_statement
from evidence.record import ReceiptRecord
from wire.canonical import encode as encode_json
from wire.envelope import Candidate, OpenedRequest, open_envelope, parse_envelope
from wire.errors import OpenError
from wire.ids import b64u, bh_of, unb64u
from wire.link import (
    ACTIVATED,
    BYTES,
    CHALLENGE_ANSWER,
    DONE,
    GOODBYE,
    HEARTBEAT,
    HELLO,
    KEYS,
    NOTICE,
    PROVED,
    PULL,
    RECEIPT,
    Decoder,
    Message,
    MessageType,
    done_bytes,
    encode,
    hello_bytes,
    json_message,
    pull_bytes,
    raw_message,
)
from wire.notice import sign_notice
from wire.possession import prove_possession
from wire.records import HEAD, Record, TokenDelta, json_record
from wire.records import RECEIPT as RECEIPT_RECORD
from wire.response import ResponseWriter
from wire.suites import HYBRID, SUITES

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from simulators.tee import Tee

    from attestation.binding import Beacon

WAIT_S = 10.0


@dataclass(frozen=True)
class Job:
    """One released request as the worker got it."""

    rid: bytes
    envelope: bytes

    @property
    def kids(self) -> tuple[bytes, ...]:
        return parse_envelope(self.envelope).kids


def tpm_secret(tee: TpmTee, credential: dict[str, str]) -> bytes:
    """TPM2_ActivateCredential: what the TPM that holds both keys of `tee` finds inside."""
    label = padding.OAEP(padding.MGF1(SHA256()), SHA256(), b"IDENTITY\0")
    seed = tee.ek_key.decrypt(unb64u(credential["secret"]), label)
    blob, name = unb64u(credential["blob"]), unb64u(credential["ak"])
    identity = blob[2 + int.from_bytes(blob[:2], "big") :]
    key = hmac.digest(seed, (1).to_bytes(4, "big") + b"STORAGE\0" + name + b"\0\0\0\x80", "sha256")
    opener = Cipher(AES(key[:16]), CFB(bytes(16))).decryptor()
    return (opener.update(identity) + opener.finalize())[2:]


class WorkerPeer:
    """One worker process as the gateway sees it.

    Attributes:
        tee: its keys, facts and evidence.
        nonce: the connection's challenge.
        beacon: the log prefix the gateway named last.
        honest: whether PROVE is answered as it comes, with the keys this worker has.
    """

    def __init__(
        self, tee: Tee, path: Path, *, beat_s: float | None = 0.2, dated: bool = True
    ) -> None:
        self.tee = tee
        self.dated = dated
        self.honest = True
        self.path = path
        self.nonce = b""
        self.beacon: Beacon | None = None
        self.binding = tee.binding()
        self._beat_s = beat_s
        self._seq = 0
        self._wseq = 0
        self._inbox: dict[int, asyncio.Queue[Message]] = defaultdict(asyncio.Queue)
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    # ------------------------------------------------------------ identity

    @property
    def wid(self) -> str:
        return str(self.tee.facts["wid"])

    @property
    def bh(self) -> bytes:
        return bh_of(self.binding)

    def candidate(self, suite: str = HYBRID) -> Candidate:
        kem = next(k for k in parse_binding(self.binding).kems if k.suite == suite)
        return Candidate(kem.kid, suite, kem.pk)

    @property
    def kid(self) -> bytes:
        return self.candidate().kid

    # ------------------------------------------------------------ link

    async def connect(self) -> None:
        """Connect and read the CHALLENGE."""
        reader, self._writer = await asyncio.open_unix_connection(str(self.path))
        self._tasks.append(asyncio.create_task(self._read(reader)))
        challenge = (await self.receive(MessageType.CHALLENGE)).json()
        self.nonce = unb64u(challenge["nonce"], 32)
        self.beacon = parse_beacon(challenge["beacon"], "challenge")
        if self.dated and "beacon" not in self.tee.facts:
            self.tee.facts["beacon"] = self.beacon
            self.binding = self.tee.binding()

    def introduction(self, **changes: Any) -> dict[str, Any]:
        """The members of HELLO or KEYS for the present binding."""
        honest = {
            "wid": self.wid,
            "binding": b64u(self.binding),
            "evidence": [item.to_json() for item in self.tee.presented(self.binding)],
            "posture": b64u(self.tee.posture()),
            "sig": b64u(self.tee.sig.sign(hello_bytes(self.nonce, self.bh))),
            "activation": None,
        }
        return {**honest, **changes}

    async def hello(self, **changes: Any) -> None:
        self.send(json_message(HELLO, self.introduction(**changes)))

    async def admitted(self) -> dict[str, Any]:
        """Connect, introduce, and expect ADMITTED; heartbeats begin."""
        await self.connect()
        await self.hello()
        found = (await self.receive(MessageType.ADMITTED)).json()
        if self._beat_s is not None:
            self._tasks.append(asyncio.create_task(self._beat(self._beat_s)))
        return found

    async def refused(self, **changes: Any) -> list[str]:
        """Connect, introduce, and expect REFUSED; returns the reasons."""
        await self.connect()
        await self.hello(**changes)
        reasons: list[str] = (await self.receive(MessageType.REFUSED)).json()["reasons"]
        return reasons

    async def activate(self, answer: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer a credential challenge as this worker's TPM would, unless told another answer."""
        question = (await self.receive(MessageType.ACTIVATE)).json()
        if answer is None:
            assert isinstance(self.tee, TpmTee)
            answer = {"secret": b64u(tpm_secret(self.tee, question["credential"]))}
        self.send(json_message(ACTIVATED, {"id": question["id"], "answer": answer}))
        return question

    def prove(self, question: dict[str, Any], nonce: bytes | None = None) -> str | None:
        """The answer to PROVE with the keys of `tee`; None where they do not open it."""
        kems = parse_binding(self.binding).kems
        keys = [(kem.kid, self.tee.keys[kem.suite]) for kem in kems]
        sealed = [unb64u(one) for one in question["sealed"]]
        try:
            return b64u(prove_possession(keys, sealed, nonce or self.nonce, self.bh))
        except OpenError:
            return None

    def proved(self, question: dict[str, Any], answer: object) -> None:
        """Send an answer to PROVE."""
        self.send(json_message(PROVED, {"id": question["id"], "answer": answer}))

    async def new_keys(self, **facts: Any) -> None:
        """Announce another binding of the same process."""
        self.tee.facts.update(facts)
        self.binding = self.tee.binding()
        self.send(json_message(KEYS, self.introduction()))

    async def pull(
        self, n: int = 1, *, seq: int | None = None, key: Ed25519PrivateKey | None = None
    ) -> None:
        self._seq = self._seq + 1 if seq is None else seq
        sig = (key or self.tee.sig).sign(pull_bytes(self.nonce, self._seq, n))
        self.send(json_message(PULL, {"n": n, "seq": self._seq, "sig": b64u(sig)}))

    def send(self, message: Message) -> None:
        assert self._writer is not None
        self._writer.write(encode(message))

    def send_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def receive(self, kind: MessageType, within_s: float = WAIT_S) -> Message:
        """The next message of a kind."""
        async with asyncio.timeout(within_s):
            return await self._inbox[int(kind)].get()

    def got(self, kind: MessageType) -> int:
        """How many messages of a kind wait unread."""
        return self._inbox[int(kind)].qsize()

    async def closed(self, within_s: float = WAIT_S) -> None:
        """Wait until the gateway has closed the connection."""
        async with asyncio.timeout(within_s):
            await self._closed.wait()

    def goodbye(self) -> None:
        self.send(json_message(GOODBYE, {}))

    async def drop(self) -> None:
        """Die: the connection closes without a word."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None

    # ------------------------------------------------------------ requests

    async def job(self, within_s: float = WAIT_S) -> Job:
        message = await self.receive(MessageType.JOB, within_s)
        return Job(message.rid, message.data)

    def open(self, job: Job) -> OpenedRequest:
        """Unseal with this worker's key."""
        envelope = parse_envelope(job.envelope)
        return open_envelope(envelope, self.kid, self.tee.keys[HYBRID], SUITES[HYBRID])

    def notice(self, job: Job, code: str, **changes: Any) -> None:
        """Refuse with a signed notice."""
        envelope = parse_envelope(job.envelope)
        document = sign_notice(self.tee.sig, job.rid, envelope.th, self.kid, code, self.tee.now)
        self.send(json_message(NOTICE, {**document, **changes}, rid=job.rid))

    def begin(self, job: Job) -> ResponseWriter:
        """Send the first response bytes."""
        opened = self.open(job)
        writer = ResponseWriter(
            opened.th, opened.kid, job.rid, opened.keys.rs, opened.r_kid, os.urandom
        )
        head = json_record(HEAD, {"s": 200, "h": {}})
        self.bytes(job, writer.prelude() + writer.frame([head], 256))
        return writer

    def bytes(self, job: Job, data: bytes) -> None:
        self.send(raw_message(BYTES, job.rid, data))

    async def answer(self, job: Job, text: str = "Hello.") -> dict[str, Any]:
        """A whole streamed answer with its logged receipt; returns what LOGGED said."""
        writer = self.begin(job)
        self.bytes(job, writer.frame([TokenDelta(text, {"f": "stop"}).record()], 256))
        return await self.finish(job, writer, text)

    async def finish(self, job: Job, writer: ResponseWriter, text: str) -> dict[str, Any]:
        """Receipt, final frame and DONE."""
        statement, blind, event = self.receipt(job, writer, text)
        logged = await self.log(job, event)
        record = ReceiptRecord(statement, blind, Logged.from_json(logged)).encode()
        self.bytes(job, writer.frame([Record(RECEIPT_RECORD, record)], 8192, final=True))
        self.done(job)
        return logged

    async def log(self, job: Job, event: dict[str, Any]) -> dict[str, Any]:
        self.send(json_message(RECEIPT, {"event": b64u(encode_json(event))}, rid=job.rid))
        return (await self.receive(MessageType.LOGGED)).json()

    def done(self, job: Job, finish: str = "stop", key: Ed25519PrivateKey | None = None) -> None:
        usage = {"in": 64, "out": 64}
        sig = b64u((key or self.tee.sig).sign(done_bytes(job.rid, usage, finish)))
        said = {"usage": usage, "finish": finish, "sig": sig}
        self.send(json_message(DONE, said, rid=job.rid))

    def receipt(
        self, job: Job, writer: ResponseWriter, text: str
    ) -> tuple[bytes, bytes, dict[str, Any]]:
        """A signed statement about an answer, its blind, and the public event."""
        opened = self.open(job)
        self._wseq += 1
        prompt = [(Role.USER, opened.body)]
        claims = honest_claims(
            self.binding,
            self.tee.evidence(self.binding),
            rid=job.rid,
            th=opened.th,
            kid=self.kid,
            wseq=self._wseq,
            op=opened.header.op,
            t0=self.tee.now * 1000,
            t1=self.tee.now * 1000 + 5,
            req=Side(commit_segments(opened.keys.salt_q, prompt), 1, 64, opened.ct_hash),
            resp=Side(
                commit_segments(writer.salt_r, response_segments([text])), 1, 64, writer.ct_hash
            ),
        )
        sig_pk = self.tee.sig.public_key().public_bytes_raw()
        statement = sign_statement(claims, self.tee.sig, self.bh, job.rid, sig_pk)
        blind = sha256(b"blind" + job.rid).digest()
        return statement, blind, receipt_event(claims, statement, blind)

    async def answer_challenge(self) -> dict[str, Any]:
        """Answer one relayed live challenge; returns the question."""
        question = (await self.receive(MessageType.CHALLENGE_JOB)).json()
        live = self.tee.facts | {"nonce": unb64u(question["nonce"], 32)}
        honest, self.tee.facts = self.tee.facts, live
        binding = self.tee.binding()
        self.tee.facts = honest
        answer = {
            "id": question["id"],
            "binding": b64u(binding),
            "evidence": [item.to_json() for item in self.tee.presented(binding)],
            "posture": b64u(self.tee.posture()),
        }
        self.send(json_message(CHALLENGE_ANSWER, answer))
        return question

    # ------------------------------------------------------------ inside

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        with contextlib.suppress(OSError):
            while chunk := await reader.read(262_144):
                for message in decoder.feed(chunk):
                    if self.honest and message.type == MessageType.PROVE:
                        question = message.json()
                        self.proved(question, self.prove(question))
                        continue
                    self._inbox[int(message.type)].put_nowait(message)
        self._closed.set()

    async def _beat(self, every_s: float) -> None:
        while not self._closed.is_set():
            await asyncio.sleep(every_s)
            self.send(json_message(HEARTBEAT, {}))
