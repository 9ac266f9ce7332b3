"""What `collateral fetch` is given: evidence as people have it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.hardware_workers import KINDS

from client.collateral_inputs import needed_keys
from wire.errors import ConfigError
from wire.ids import b64u

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.answers import Listed
    from simulators.service import Service

pytestmark = pytest.mark.usefixtures("tenant")
every_kind = pytest.mark.parametrize("make", KINDS)


@pytest.fixture
def served(service: Service, listed: Listed, tmp_path: Path) -> Path:
    path = tmp_path / "worker-1.json"
    with service.serve() as server:
        path.write_bytes(httpx2.get(f"{server.url}/v1/keys/{b64u(listed.bh)}").content)
    return path


@every_kind
def test_a_served_document_names_the_keys_that_its_evidence_does(served: Path) -> None:
    items = served.with_name("evidence.json")
    items.write_text(json.dumps(json.loads(served.read_bytes())["evidence"]))
    assert needed_keys(served) == needed_keys(items)
    kinds = {item["kind"] for item in json.loads(items.read_bytes())}
    assert bool(needed_keys(served)) is (kinds != {"aws-nitro-document"})  # it brings all along


@every_kind
def test_so_does_a_receipt_bundle(
    run: Any, service: Service, listed: Listed, tmp_path: Path
) -> None:
    policy, receipt = tmp_path / "policy.json", tmp_path / "receipt.json"
    policy.write_bytes(service.policy())
    with service.serve() as server:
        words = ("--url", server.url, "--policy", policy, "--model", "m", "--receipt", receipt)
        assert run("chat", *words, "hello")[0] == 0
        answer = httpx2.get(f"{server.url}/v1/keys/{b64u(listed.bh)}")
    (tmp_path / "worker-1.json").write_bytes(answer.content)
    assert needed_keys(receipt) == needed_keys(tmp_path / "worker-1.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"binding":7}', "binding: found a number, expected base64url"),
        (b'{"format":"other"}', "found unknown key|expected"),
        (b'{"other":7}', 'found unknown key "other", expected only kind, body'),
    ],
)
def test_what_is_no_form_of_evidence_is_refused_with_all_forms_named(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"evidence file .*({said})") as refused:
        needed_keys(tmp_path / "x")
    for form in ("GET /v1/keys/BH", "receipt bundle", '{"kind": ..., "body": ...}'):
        assert form in refused.value.hint
