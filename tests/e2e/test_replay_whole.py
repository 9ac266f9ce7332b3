"""A sampled answer of a real service, saved by the command, run again by the command."""

import json
from pathlib import Path

import pytest
from simulators.whole_service import running

from client.cli import execute
from enclave_worker.engine.ops.library import supported
from ops.cli import build_parser
from wire.ids import b64u, unb64u

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(not supported(), reason="no compiled kernels, so no determinism"),
]


def test_what_chat_saved_runs_again_and_a_changed_word_does_not(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt, opening = tmp_path / "receipt.json", tmp_path / "opening.json"
    with running(tmp_path / "s", tiny_model, engine={"dtype": "bfloat16"}) as stack:
        deployment = stack.config.deployment
        policy = str(deployment.tenant_policy)
        key = tmp_path / "key"
        key.write_text(deployment.api_key)
        words = [
            "chat", "--url", stack.url, "--policy", policy, "--key-file", str(key),
            "--state-dir", str(tmp_path / "state"), "--model", "tiny", "--temperature", "1",
            "--max-tokens", "24", "--receipt", str(receipt), "--opening", str(opening),
        ]  # fmt: skip
        assert execute(build_parser("chat"), [*words, "the quick brown fox"]) == 0
        said = capsys.readouterr()
        assert "opening saved (it is content)" in said.err
    replay = [
        "receipt", "replay", str(receipt), "--model", str(tiny_model), "--policy", policy,
        "--json", "--open",
    ]  # fmt: skip
    assert execute(build_parser("receipt"), [*replay, str(opening)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert [check["ok"] for check in document["checks"]] == [True] * 6
    assert document["trust"] == "software"

    changed = json.loads(opening.read_bytes())
    role, answer = changed["answer"][0]
    changed["answer"][0] = [role, b64u(unb64u(answer) + b"x")]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(changed))
    assert execute(build_parser("receipt"), [*replay, str(other)]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "opening_invalid"
