"""Strict mode against real workers: live evidence and a sealed ping before the first prompt."""

import json
from pathlib import Path

import pytest

from anchorhold import Client, Options
from client import cli
from ops.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]
QUESTION = [{"role": "user", "content": "the quick brown fox"}]


def test_real_workers_prove_their_keys_before_the_first_prompt(
    stack: Stack, tmp_path: Path
) -> None:
    deployment = stack.config.deployment
    options = Options(state_dir=tmp_path / "state", strict=True)
    with Client(
        stack.url, deployment.api_key, policy=deployment.tenant_policy, options=options
    ) as client:
        report = client.verify("tiny")
        proofs = [c for c in report.checks if c.step.endswith(" 12 key answers a ping")]
        live = [c for c in report.checks if c.step.endswith(" 8 live evidence")]
        assert len(report.workers) == len(proofs) == len(live) == 2
        assert {check.detail for check in live} == {"answers our nonce"}
        result = client.chat(QUESTION, "tiny", max_tokens=8)
        assert result.text is not None
        assert result.receipt.trust == "software"


def test_the_command_line_shows_the_proofs_of_real_workers(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = stack.config.deployment
    key = tmp_path / "key"
    key.write_text(deployment.api_key)
    words = ["verify", stack.url, "--policy", deployment.tenant_policy, "--key-file", key]
    words += ["--state-dir", tmp_path / "state", "--model", "tiny", "--strict", "--json"]
    code = cli.execute(cli.build_parser(), [str(word) for word in words])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["ok"]) == (0, True)
    steps = [check["step"].partition(" ")[2] for check in document["checks"]]
    assert steps.count("12 key answers a ping") == 2
