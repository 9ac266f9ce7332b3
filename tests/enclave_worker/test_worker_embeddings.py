"""Embeddings by real sandboxed workers, with receipts that open."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import ask, caller
from simulators.encoders import add_pooling, random_bert
from simulators.link_peer import verify_done
from simulators.models import tiny_llama

from client.told import whole
from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.embedder import Embedder

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.xdist_group("worker")]

TEXTS = ["a sealed text", "another", "numbers 1 2 3"]


async def test_sealed_embeddings_are_the_model_s_and_committed_to(
    make_bed: Any, tmp_path: Any
) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    random_bert(folder)
    add_pooling(folder)
    model = Embedder(folder, EngineConfig(dtype="float32"))
    model.start()
    expected = model.embed([model.encode(text) for text in TEXTS]).tolist()
    async with make_bed(model_dir=folder, engine={"threads": 1}) as worker:
        body = {"model": caller(worker).model, "input": TEXTS}
        who, sealed, answer = await ask(worker, body, path="/v1/embeddings", op="embed")
        reply = who.read(sealed, bytes(answer.data))
        assert reply.status == 200, reply.body
        segments, _ = whole("embeddings", reply.body, 2**20)
        verified = who.verify(sealed, body, reply, segments, worker.peer.log)
        found = [struct.unpack(f"<{len(data) // 4}f", data) for _, data in segments]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
        assert verified.claims["op"] == "embed"
        assert verified.claims["model"]["dtype"] == "float32"
        assert verified.claims["eng"]["version"].endswith("+reference")
        assert verified.claims["par"] == {"inputs": 3, "shape": "embeddings"}
        assert reply.json["usage"]["prompt_tokens"] == verified.claims["use"]["in"]
        # A text of unknown tokens, and a request for text, are the caller's errors.
        wrong = {"model": caller(worker).model, "input": [10**6]}
        who, sealed, answer = await ask(worker, wrong, path="/v1/embeddings", op="embed")
        assert who.read(sealed, bytes(answer.data)).status == 400
        who, sealed, answer = await ask(worker, caller(worker).chat("hello"))
        assert who.read(sealed, bytes(answer.data)).status == 404
        who, sealed, answer = await ask(worker, body, path="/v1/embeddings", op="embed")
        assert who.read(sealed, bytes(answer.data)).status == 200


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_callers_at_once_get_their_own_vectors_from_threads_made_behind_the_filter(
    kind: str, make_bed: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    if kind == "encoder":
        folder.mkdir()
        random_bert(folder)
    else:
        tiny_llama(folder)
    add_pooling(folder, word_embedding_dimension=48 if kind == "encoder" else 32)
    settings = {"threads": 2, "kv_pages": 64, "step_budget": 32}
    async with make_bed(model_dir=folder, engine=settings) as worker:
        model = caller(worker).model
        bodies = [{"model": model, "input": [f"number {n}", *TEXTS]} for n in range(4)]
        found = await asyncio.gather(
            *(ask(worker, body, path="/v1/embeddings", op="embed") for body in bodies)
        )
        vectors = []
        for body, (who, sealed, answer) in zip(bodies, found, strict=True):
            reply = who.read(sealed, bytes(answer.data))
            assert reply.status == 200, reply.body
            segments, _ = whole("embeddings", reply.body, 2**20)
            claims = who.verify(sealed, body, reply, segments, worker.peer.log).claims
            assert claims["model"]["dtype"] == ("float32" if kind == "encoder" else "bfloat16")
            vectors.append([row["embedding"] for row in reply.json["data"]])
    for mine in vectors:
        for text in range(1, len(TEXTS) + 1):
            assert mine[text] == pytest.approx(vectors[0][text], abs=1e-5)
    assert len({tuple(mine[0]) for mine in vectors}) == len(bodies)


async def test_long_requests_let_others_by_and_stop_when_they_are_cancelled(
    make_bed: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    random_bert(folder)
    settings = {"threads": 1, "step_budget": 64}
    async with make_bed(model_dir=folder, engine=settings) as worker:
        who = caller(worker)
        body = {"model": who.model, "input": [[1 + n % 90] * 60 for n in range(2048)]}
        first, second = (who.seal(body, path="/v1/embeddings", op="embed") for _ in range(2))
        ahead = await worker.peer.send_job(first.header.rid, first.envelope)
        behind = await worker.peer.send_job(second.header.rid, second.envelope)
        short = {"model": who.model, "input": TEXTS}
        for _ in range(2):  # the second surely begins after the long ones
            who, sealed, answer = await ask(worker, short, path="/v1/embeddings", op="embed")
            assert who.read(sealed, bytes(answer.data)).status == 200
        # They take turns, so the one behind can only end first because it ends early.
        await worker.peer.cancel(second.header.rid)
        await asyncio.wait_for(behind.ended.wait(), 60)
        assert not ahead.ended.is_set()
        assert behind.done["finish"] == "cancelled"
        assert behind.done["usage"] == {"in": 0, "out": 0}
        assert behind.receipts == 0
        verify_done(behind.done, second.header.rid, worker.peer.newest.binding.sig_pk)
        await worker.peer.cancel(first.header.rid)
        await asyncio.wait_for(ahead.ended.wait(), 60)
