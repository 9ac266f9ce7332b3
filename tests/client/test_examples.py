"""The examples run as they stand, against a deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.api import Client

ROOT = Path(__file__).resolve().parents[2]


def run(service: Service, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "ANCHORHOLD_API_KEY": service.api_key,
        "XDG_STATE_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)


def test_openai_client(service: Service, server: Loopback, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_bytes(service.policy())
    example = str(ROOT / "examples" / "openai_client.py")
    done = run(service, tmp_path, example, server.url, str(policy), "m", "hello there")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "You said: hello there\n"
    assert "trust=software" in done.stderr


def test_verify_offline(service: Service, client: Client, tmp_path: Path) -> None:
    policy, receipt = tmp_path / "policy.json", tmp_path / "receipt.json"
    policy.write_bytes(service.policy())
    client.chat([{"role": "user", "content": "hi"}], "m").receipt.save(receipt)
    example = str(ROOT / "examples" / "verify_offline.py")
    done = run(service, tmp_path, example, str(receipt), str(policy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SOFTWARE TRUST" in done.stdout
