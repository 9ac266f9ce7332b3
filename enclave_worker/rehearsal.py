"""One whole request answered to ourselves, before the system-call filter closes.

Libraries open files when first used: the crypto library its configuration, Python an encoding,
the tokenizer its thread pool. After the filter such a first use fails in the middle of somebody's
answer; so everything is used once before, with throwaway keys, on the real engine. It is a
self-test as well: a worker that cannot open, answer and sign for itself asks for no evidence.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from attestation.evidence import Evidence
from evidence.entry import Logged
from evidence.events import INFER_RECEIPT, Source, stamp
from evidence.leaf import BLIND_LEN, public_leaf
from evidence.record import parse_record
from wire.envelope import Candidate, SealedRequest, seal_request
from wire.errors import ProtocolFailure, UnavailableError
from wire.header import RequestHeader
from wire.records import HEAD, RECEIPT, Record
from wire.response import ResponseReader

from .bench import Bench
from .engine.config import EngineConfig
from .epochs import Keyring
from .session import Session
from .statement import Notary
from .worker_config import WorkerConfig

RID = bytes(16)
LIFE_S = 60
OUT_CLASS = 64
# The longest of these answers; a model that stops earlier is fine.
TOKENS = 2
# Generous for the slowest machine: two tokens, one signature.
TIMEOUT_S = 120.0


@dataclass(slots=True)
class _Stage:
    """The rehearsal's own gateway: keeps bytes, logs to nowhere durable, refuses nothing."""

    rng: Callable[[int], bytes]
    sent: bytearray
    notices: list[dict[str, Any]]

    async def send_bytes(self, rid: bytes, data: bytes) -> None:
        del rid
        self.sent += data

    async def send_notice(self, rid: bytes, notice: dict[str, Any]) -> None:
        del rid
        self.notices.append(notice)

    async def log(self, rid: bytes, event: dict[str, Any]) -> dict[str, Any]:
        del rid
        source = Source("rehearsal", "rehearsal", self.rng(16))
        raw = stamp(INFER_RECEIPT, event, eid=self.rng(16), ts=0, source=source)
        blind = self.rng(BLIND_LEN)
        return Logged(0, public_leaf(raw, blind), blind, raw, "", ()).to_json()

    async def send_done(self, rid: bytes, done: dict[str, Any]) -> None:
        del rid, done


async def rehearse(bench: Bench, engine: EngineConfig) -> None:
    """Answer one streamed and one plain request, and refuse a replay, with throwaway keys.

    Raises:
        UnavailableError: the worker could not answer itself in time.
        AnchorholdError: what it answered does not read back.
    """
    config = replace(bench.config, image="sha256:" + "0" * 64)
    keyring = Keyring(config, bench.rng)
    now = bench.clock.s()
    epoch = keyring.prepare(now)
    keyring.install(epoch, (Evidence("rehearsal", b""),))
    notary = Notary(config, keyring, engine, bench.rng)
    trial = replace(bench, config=config, keyring=keyring, notary=notary)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            # Vectors are never streamed.
            for stream in (True, False) if bench.engine is not None else (False,):
                await _one(trial, stream, now)
    except TimeoutError:
        raise UnavailableError("rehearsal: the worker did not answer itself in time") from None
    finally:
        keyring.close()


async def _one(bench: Bench, stream: bool, now: int) -> None:
    """Seal, answer, read back; then send the same bytes again."""
    sealed = _seal(bench.config, bench, stream, now)
    stage = _Stage(bench.rng, bytearray(), [])
    await Session(bench, stage, RID).run(sealed.envelope)
    reader = ResponseReader(sealed.th, RID, sealed.keys, sealed.R, sealed.kids)
    records = reader.feed(bytes(stage.sent))
    reader.finish()
    _check(records)
    await Session(bench, stage, RID).run(sealed.envelope)
    if [notice["code"] for notice in stage.notices] != ["replay"]:
        raise ProtocolFailure("rehearsal: expected the second sending to be refused as a replay")


def _seal(config: WorkerConfig, bench: Bench, stream: bool, now: int) -> SealedRequest:
    path, op, body = _asked(bench)
    body |= {"model": config.model_name}
    if op != "embed":
        body |= {"stream": stream, "max_tokens": TOKENS}
    header = RequestHeader(
        rid=RID,
        aud=config.aud,
        op=op,
        model=config.model_name,
        policy=config.policy,
        iat=now,
        exp=now + LIFE_S,
        out=OUT_CLASS,
        stream=stream,
        pad="off",
    )
    (epoch,) = bench.keyring.offered(now)
    kid, key = next(iter(epoch.keys.items()))
    return seal_request(
        header,
        [Candidate(kid, key.suite, key.pk)],
        {"m": "POST", "p": path, "h": {}},
        json.dumps(body).encode(),
        bench.rng,
    )


def _asked(bench: Bench) -> tuple[str, str, dict[str, Any]]:
    """Path, operation and prompt of a request this model can answer."""
    if bench.engine is None:
        return "/v1/embeddings", "embed", {"input": "é"}
    if bench.engine.template is None:
        return "/v1/completions", "completion", {"prompt": "é"}
    return "/v1/chat/completions", "chat", {"messages": [{"role": "user", "content": "é"}]}


def _check(records: list[Record]) -> None:
    head = records[0].json() if records and records[0].type == HEAD else {}
    if head.get("s") != 200 or records[-1].type != RECEIPT:
        raise ProtocolFailure("rehearsal: expected a 200 that ends in a receipt")
    parse_record(records[-1].data)
