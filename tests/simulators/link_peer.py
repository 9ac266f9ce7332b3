"""A small gateway end for worker tests: the real link protocol, a real log, no HTTP, no queue.

It admits no worker that does not prove its keys. Honest unless told otherwise: `refuse_with`
refuses admission, `mute_log` never answers RECEIPT, `silent` answers nothing at all. `publish`
moves the beacon of later messages on.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attestation.binding import Beacon, Binding, parse_binding
from attestation.evidence import Evidence, evidence_list
from attestation.verify.credential import Activation, Challenge, challenge_for
from evidence.beacon import prove_beacon, verify_beacon
from evidence.directory import build_snapshot, snapshot_event
from evidence.events import DIRECTORY_SNAPSHOT, INFER_RECEIPT
from evidence.sequencer import Log
from wire.canonical import encode as encode_json
from wire.canonical import parse_evj1
from wire.ids import b64u, unb64u
from wire.link import (
    ACTIVATE,
    ADMITTED,
    CANCEL,
    CHALLENGE,
    CHALLENGE_JOB,
    JOB,
    LEASE,
    LOGGED,
    PROVE,
    REFUSED,
    Decoder,
    Message,
    MessageType,
    encode,
    hello_bytes,
    json_message,
    pull_bytes,
    raw_message,
)
from wire.possession import Possession, ask_possession
from wire.wraps import Candidate


@dataclass
class Introduced:
    """One HELLO or KEYS whose signature held."""

    binding: Binding
    evidence: tuple[Evidence, ...]
    posture: bytes


@dataclass
class Answer:
    """What came back for one request."""

    data: bytearray = field(default_factory=bytearray)
    chunks: int = 0
    notice: dict[str, Any] | None = None
    done: dict[str, Any] | None = None
    receipts: int = 0
    first: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LinkPeer:
    """Accepts one worker after another on `path`; the last one connected is `connection`."""

    def __init__(self, path: Path, log_file: Path, *, lease_s: int = 10) -> None:
        self.path = path
        self.log_key = Ed25519PrivateKey.generate()
        self.log = Log.open(log_file, "log.test/evl/1", self.log_key)
        self.lease_s = lease_s
        self.refuse_with: list[str] | None = None
        self.mute_log = False
        self.silent = False
        self.beacon: Beacon | None = None
        self.activate = False
        self.activation: Activation | None = None
        self.introduced: list[Introduced] = []
        self.credits = 0
        self.heartbeats = 0
        self.connections = 0
        self.goodbyes = 0
        self.proofs = 0
        self.answers: dict[bytes, Answer] = {}
        self.challenges: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.changed = asyncio.Condition()
        self.failures: list[BaseException] = []
        self._challenge: Challenge | None = None
        self._asked: dict[int, tuple[Introduced, Possession]] = {}
        self._probes: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._nonce = b""
        self._seq = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        if self.beacon is None:
            await self.publish()
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def publish(self) -> Beacon:
        """Log a directory snapshot; new bindings are to name it."""
        now = time.time_ns() // 1_000_000_000
        snapshot = build_snapshot(aud="tests", seq=1, issued=now, expires=now + 600, workers=[])
        logged = await self.log.append(DIRECTORY_SNAPSHOT, snapshot_event(snapshot))
        size = logged.index + 1
        self.beacon = Beacon(self.log.origin, size, self.log.root(size))
        return self.beacon

    async def dated(self, binding: Binding) -> int:
        """When the beacon of a binding was published, by our log: what `appraise` is to be told."""
        assert binding.beacon is not None
        entry = await self.log.entry(binding.beacon.size - 1)
        proof = prove_beacon(binding.beacon, entry, self.log.consistency)
        return verify_beacon(binding.beacon, proof, self.log.origin, [self.log.vkey]).time

    def beacon_json(self) -> dict[str, Any] | None:
        return None if self.beacon is None else self.beacon.to_json()

    async def stop(self) -> None:
        """Close the listening socket and the connection, as a restarting gateway does."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
        await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def close(self) -> None:
        await self.stop()
        self.log.close()

    @property
    def newest(self) -> Introduced:
        return self.introduced[-1]

    async def until(self, condition: Any, timeout: float = 30.0) -> None:
        """Wait until `condition()` holds; it is looked at whenever a message came in."""
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(condition)

    async def admitted(self, epochs: int = 1) -> Introduced:
        await self.until(lambda: len(self.introduced) >= epochs and self.credits > 0)
        return self.newest

    async def send_job(self, rid: bytes, envelope: bytes) -> Answer:
        answer = self.answers[rid] = Answer()
        self.credits -= 1
        await self._send(raw_message(JOB, rid, envelope))
        return answer

    async def exchange(self, rid: bytes, envelope: bytes, timeout: float = 45.0) -> Answer:
        """Send one envelope and wait for its end: DONE or a notice."""
        answer = await self.send_job(rid, envelope)
        async with asyncio.timeout(timeout):
            await answer.ended.wait()
        return answer

    async def cancel(self, rid: bytes) -> None:
        await self._send(raw_message(CANCEL, rid))

    async def challenge(
        self,
        nonce: bytes,
        credential: dict[str, Any] | None = None,
        about: Binding | None = None,
    ) -> dict[str, Any]:
        """Ask for live evidence, about the newest binding unless told another."""
        number = len(self.challenges) + 1
        future = self.challenges[number] = asyncio.get_running_loop().create_future()
        listed = self.newest.binding if about is None else about
        question = {
            "id": number,
            "wid": listed.wid,
            "nonce": b64u(nonce),
            "bh": b64u(listed.bh),
            "credential": credential,
        }
        await self._send(json_message(CHALLENGE_JOB, question))
        async with asyncio.timeout(30):
            return await future

    def possession(self, about: Binding, nonce: bytes | None = None) -> Possession:
        """A question to the holder of a binding's keys, for this link unless told another."""
        keys = [Candidate(kem.kid, kem.suite, kem.pk) for kem in about.kems]
        return ask_possession(keys, nonce or self._nonce, about.bh, os.urandom)

    async def prove(self, bh: bytes, sealed: Sequence[bytes]) -> Any:
        """Send PROVE; the answer as it came."""
        number = -1 - len(self._probes)
        future = self._probes[number] = asyncio.get_running_loop().create_future()
        texts = [b64u(one) for one in sealed]
        await self._send(json_message(PROVE, {"id": number, "bh": b64u(bh), "sealed": texts}))
        async with asyncio.timeout(30):
            return await future

    async def send_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)
        await self._writer.drain()

    async def _send(self, message: Message) -> None:
        await self.send_raw(encode(message))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writer, self._nonce, self._seq, self.credits = writer, os.urandom(32), 0, 0
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        decoder = Decoder()
        try:
            greeting = {"nonce": b64u(self._nonce), "gw": "peer", "beacon": self.beacon_json()}
            await self._send(json_message(CHALLENGE, greeting))
            while chunk := await reader.read(65536):
                for message in decoder.feed(chunk):
                    await self._handle(message)
                    async with self.changed:
                        self.changed.notify_all()
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.failures.append(error)
            raise
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _handle(self, message: Message) -> None:
        kind = MessageType(message.type)
        if kind in (MessageType.HELLO, MessageType.KEYS):
            await self._introduce(message.json())
        elif kind == MessageType.PROVED:
            await self._proved(message.json())
        elif kind == MessageType.ACTIVATED:
            assert self._challenge is not None
            self.activation = self._challenge.activation(message.json()["answer"])
            await self._admit(self.newest)
        elif kind == MessageType.PULL:
            self._pull(message.json())
        elif kind == MessageType.HEARTBEAT:
            self.heartbeats += 1
            if not self.silent:
                lease = {"lease_s": self.lease_s, "beacon": self.beacon_json()}
                await self._send(json_message(LEASE, lease))
        elif kind == MessageType.GOODBYE:
            self.goodbyes += 1
        elif kind == MessageType.CHALLENGE_ANSWER:
            document = message.json()
            self.challenges[document["id"]].set_result(document)
        else:
            await self._about_request(kind, message)

    async def _introduce(self, document: dict[str, Any]) -> None:
        assert set(document) == {"wid", "binding", "evidence", "posture", "sig", "activation"}
        if self.refuse_with is not None:
            await self._send(json_message(REFUSED, {"reasons": self.refuse_with}))
            return
        binding = parse_binding(unb64u(document["binding"]))
        self._verify(binding, document["sig"], hello_bytes(self._nonce, binding.bh))
        evidence = evidence_list(document["evidence"])
        new = Introduced(binding, evidence, unb64u(document["posture"]))
        self.introduced.append(new)
        possession = self.possession(binding)
        self._asked[len(self.introduced)] = (new, possession)
        sealed = [b64u(one) for one in possession.sealed]
        question = {"id": len(self.introduced), "bh": b64u(binding.bh), "sealed": sealed}
        await self._send(json_message(PROVE, question))

    async def _proved(self, document: dict[str, Any]) -> None:
        if document["id"] in self._probes:
            self._probes[document["id"]].set_result(document["answer"])
            return
        new, possession = self._asked.pop(document["id"])
        assert possession.proves(unb64u(document["answer"]))
        self.proofs += 1
        evidence = new.evidence
        self._challenge = challenge_for(evidence[0], os.urandom) if self.activate else None
        if self._challenge is not None:
            question = {"id": 1, "credential": self._challenge.credential.to_json()}
            await self._send(json_message(ACTIVATE, question))
        else:
            await self._admit(new)

    async def _admit(self, new: Introduced) -> None:
        admitted = {"lease_s": self.lease_s, "bh": b64u(new.binding.bh), "leaf": 0}
        await self._send(json_message(ADMITTED, admitted))

    def _pull(self, document: dict[str, Any]) -> None:
        seq, count = document["seq"], document["n"]
        assert seq > self._seq
        self._verify(self.newest.binding, document["sig"], pull_bytes(self._nonce, seq, count))
        self._seq = seq
        self.credits += count

    async def _about_request(self, kind: MessageType, message: Message) -> None:
        answer = self.answers[message.rid]
        if kind == MessageType.BYTES:
            answer.data += message.data
            answer.chunks += 1
            answer.first.set()
        elif kind == MessageType.NOTICE:
            answer.notice = message.json()
            answer.ended.set()
        elif kind == MessageType.DONE:
            answer.done = message.json()
            answer.ended.set()
        elif kind == MessageType.RECEIPT:
            answer.receipts += 1
            await self._receipt(message)
        else:
            raise AssertionError(f"a worker must not send {kind.name}")

    async def _receipt(self, message: Message) -> None:
        if self.mute_log:
            await self._send(json_message(LOGGED, {"error": "log_unavailable"}, rid=message.rid))
            return
        event = parse_evj1(unb64u(message.json()["event"]))
        logged = await self.log.append(INFER_RECEIPT, event)
        await self._send(json_message(LOGGED, logged.to_json(), rid=message.rid))

    def _verify(self, binding: Binding, sig: str, message: bytes) -> None:
        Ed25519PublicKey.from_public_bytes(binding.sig_pk).verify(unb64u(sig, 64), message)


def verify_done(done: dict[str, Any], rid: bytes, sig_pk: bytes) -> None:
    """Check the signature of an end report."""
    said = {key: value for key, value in done.items() if key != "sig"}
    message = b"anchorhold/1 done\0" + rid + encode_json(said)
    Ed25519PublicKey.from_public_bytes(sig_pk).verify(unb64u(done["sig"], 64), message)
