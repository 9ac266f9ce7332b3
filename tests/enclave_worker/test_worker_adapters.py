"""Adapters through a whole sandboxed worker: named in the sealed body, stated in the receipt."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import ask, caller
from simulators.lora import write_adapter
from transformers import AutoModelForCausalLM

from attestation.measurement import tree_digest
from enclave_worker.model_folder import model_digests
from wire.ids import sha256_tag

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.xdist_group("worker")]

PRODUCTS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
NO_TREE = sha256_tag(b"")


@pytest.fixture
def adapted(model_dir: Path, tmp_path: Path) -> Path:
    """The model with an adapter for everybody and one for a tenant that never asks."""
    folder = tmp_path / "adapted"
    shutil.copytree(model_dir, folder)
    base = AutoModelForCausalLM.from_pretrained(folder)
    for seed, name in enumerate(("legal-v2", "private"), 1):
        write_adapter(folder / "adapters" / name, base, PRODUCTS, seed, lora_alpha=32)
    allowed = json.dumps({"tenants": ["somebody"]})
    (folder / "adapters" / "private" / "tenants.json").write_text(allowed)
    return folder


async def test_an_adapter_answers_and_its_receipt_names_it(make_bed: Any, adapted: Path) -> None:
    digest = model_digests(adapted, NO_TREE)["adapters/legal-v2"]
    async with make_bed(model_dir=adapted) as worker:
        texts, stated = [], []
        for model in ("tiny", "tiny:legal-v2", "tiny"):
            body = caller(worker).chat("a sealed prompt", stream=True, temperature=0, model=model)
            who, sealed, answer = await ask(worker, body)
            assert sealed.header.model == "tiny"  # what the gateway sees
            reply = who.read(sealed, bytes(answer.data))
            assert reply.status == 200
            assert reply.head["model"] == model
            claims = who.verify(sealed, body, reply, reply.text, worker.peer.log).claims
            texts.append(reply.text)
            par = claims["par"]
            stated.append((claims["model"]["name"], par.get("adapter"), par.get("adapter_digest")))
        assert texts[0] == texts[2] != texts[1]
        assert stated == [("tiny", None, None), ("tiny", "legal-v2", digest), ("tiny", None, None)]
        for model, code, words in (
            ("tiny:private", "invalid_value", "does not have for this tenant"),
            ("tiny:nothing", "invalid_value", "does not have for this tenant"),
            ("tiny:", "header_mismatch", "found 'tiny:', the header says 'tiny'"),
            ("tinier", "header_mismatch", "found 'tinier', the header says 'tiny'"),
        ):
            who, sealed, answer = await ask(worker, caller(worker).chat("hello", model=model))
            error = who.read(sealed, bytes(answer.data)).json["error"]
            assert error["code"] == code
            assert words in error["message"]


def test_adapters_have_digests_of_their_own_and_leave_the_weights_as_they_were(
    model_dir: Path, adapted: Path
) -> None:
    plain, found = model_digests(model_dir, NO_TREE), model_digests(adapted, NO_TREE)
    folder = adapted / "adapters" / "legal-v2"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    entries = [(name, bytes.fromhex(sha256_tag(data)[7:])) for name, data in files.items()]
    assert found.pop("adapters/legal-v2") == tree_digest(entries)
    before = found.pop("adapters/private")
    assert found == plain
    (adapted / "adapters" / "private" / "tenants.json").unlink()
    assert model_digests(adapted, NO_TREE)["adapters/private"] == before
