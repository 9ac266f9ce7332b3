"""Embeddings by a real sandboxed worker of an encoder, with a receipt that opens."""

import struct
from typing import Any

import pytest
from simulators.caller import ask, caller
from simulators.encoders import add_pooling, random_bert

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
