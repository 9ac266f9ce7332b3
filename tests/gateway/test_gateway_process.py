"""The process and its command line: start, stop, taken ports, keys."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.deployment import Deployment
from simulators.loopback_certificate import certificate

from client import cli
from gateway.server import bind, running
from ops.cli import build_parser
from tenancy.key_table import load_table
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment()
    yield found
    found.remove()


def command(*args: str) -> Any:
    return cli.execute(build_parser(args[0]), args)


def write_config(deployment: Deployment, **changes: Any) -> Path:
    members = {"aud": deployment.config.aud, "state_dir": "state", **changes}
    members.setdefault("admission_policy_file", "admission.json")
    path = deployment.folder / "gateway.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items()))
    return path


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use") as refused:
            bind("127.0.0.1", port)
    assert "set `port`" in refused.value.hint


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        bind("192.0.2.1", 0)


def test_a_taken_port_ends_the_command_with_a_sentence(deployment: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = write_config(deployment, port=taken.getsockname()[1])
        assert serve_in_child(path) == (4, True)


def serve_in_child(path: Path) -> tuple[int, bool]:
    """Exit code of the command in its own process, and whether stderr is one clean sentence."""
    found = subprocess.run(gateway_argv(path), capture_output=True, text=True, cwd=ROOT, timeout=30)
    clean = found.stderr.startswith("anchorhold: ") and "\nhint: " in found.stderr
    return found.returncode, clean


def gateway_argv(path: Path) -> list[str]:
    code = "from ops.cli import main; main()"
    return [sys.executable, "-c", code, "gateway", "--config", str(path)]


def test_a_wrong_configuration_ends_the_command_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("prot = 1\n")
    assert command("gateway", "--config", str(path)) == 4
    error = capsys.readouterr().err
    assert error.startswith("anchorhold: configuration: found unknown key prot\n")
    assert "hint: expected some of" in error
    assert command("gateway", "--config", str(tmp_path / "none.toml")) == 4


def test_init_prints_what_policies_must_pin(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(deployment)
    assert command("gateway", "--config", str(path), "--init") == 0
    assert json.loads(capsys.readouterr().out) == deployment.anchors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(deployment: Deployment, number: int) -> None:
    path = write_config(deployment, port=0)
    with subprocess.Popen(
        gateway_argv(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline()
        assert line.startswith("gateway for gateway.test listens on http://127.0.0.1:")
        url = line.split()[-1]
        assert httpx2.get(f"{url}/healthz").status_code == 200
        os.kill(child.pid, number)
        errors = child.stderr.read()
        assert child.wait(timeout=20) == 0
    assert "Traceback" not in errors
    lines = [json.loads(text) for text in errors.splitlines()]
    events = [line["event"] for line in lines]
    assert events[:2] == ["directory.published", "gateway.started"]
    assert events[-1] == "gateway.stopped"
    assert not deployment.socket.exists()


async def test_a_second_gateway_on_the_same_files_is_refused(deployment: Deployment) -> None:
    async with deployment.up():
        with pytest.raises(ConfigError):
            async with running(deployment.config):
                raise AssertionError("two gateways wrote one log")


async def test_tls_is_served_when_configured(deployment: Deployment, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    config = dataclasses.replace(deployment.config, tls_cert_file=cert_file, tls_key_file=key_file)
    context = ssl.create_default_context(cafile=str(cert_file))
    async with running(config) as served:
        url = served.url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        async with httpx2.AsyncClient(verify=context) as http:
            assert (await http.get(f"{url}/healthz")).status_code == 200


# ------------------------------------------------------------------ keys


def test_a_created_key_is_shown_once_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t" / "keys.json"
    assert command("key", "create", "--table", str(table), "--tenant", "acme") == 0
    shown = capsys.readouterr()
    text = shown.out.strip()
    assert "cannot be shown again" in shown.err
    principal = load_table(table).authenticate(text, int(datetime.now(UTC).timestamp()))
    assert principal is not None
    assert principal.tenant == "acme"
    assert text.split("_", 3)[3][:20] not in table.read_text()


def test_keys_can_be_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "keys.json"
    create = ("key", "create", "--table", str(table), "--tenant", "acme", "--json")
    assert command(*create, "--days", "2", "--env", "dev") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"].startswith("anchorhold_dev_")
    assert command("key", "list", "--table", str(table)) == 0
    listing = capsys.readouterr().out
    assert made["kid"] in listing
    assert "live" in listing
    assert made["key"] not in listing
    assert command("key", "revoke", "--table", str(table), made["kid"]) == 0
    assert command("key", "list", "--table", str(table), "--json") == 0
    (record,) = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert record["revoked"] is True
    assert record["live"] is False
    assert "digest" not in record


@pytest.mark.parametrize(
    "args",
    [
        ("create", "--tenant", "Not A Name"),
        ("create", "--tenant", "acme", "--days", "0"),
        ("create", "--tenant", "acme", "--days", "9999"),
        ("create", "--tenant", "acme", "--env", "Bad-Env"),
        ("revoke", "nosuchid"),
    ],
    ids=" ".join,
)
def test_wrong_key_commands_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...]
) -> None:
    table = tmp_path / "keys.json"
    command("key", "create", "--table", str(table), "--tenant", "acme")
    capsys.readouterr()
    assert command("key", args[0], "--table", str(table), *args[1:]) == 4
    assert capsys.readouterr().err.startswith("anchorhold: ")


@pytest.mark.parametrize(
    "refused",
    [["--tenant", "No Name"], ["--tenant", "acme", "--days", "0"],
     ["--tenant", "acme", "--days", "401"], ["--tenant", "acme", "--env", "No"]],
    ids=["tenant", "no-life", "long-life", "env"],
)  # fmt: skip
def test_a_key_that_is_refused_leaves_no_table_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: list[str]
) -> None:
    table = tmp_path / "made" / "keys.json"
    assert command("key", "create", "--table", str(table), *refused) == 4
    assert "found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_listing_a_table_that_does_not_exist_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("key", "list", "--table", str(tmp_path / "none.json")) == 4
    assert "anchorhold key create" in capsys.readouterr().err


async def test_a_taken_worker_socket_is_named_and_everything_is_released(
    deployment: Deployment,
) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(deployment.socket))
    sock.listen()
    with pytest.raises(ConfigError, match="worker_socket: another process listens"):
        async with running(deployment.config):
            raise AssertionError("two gateways listened on one socket")
    assert deployment.socket.exists()
    sock.close()
    async with deployment.up() as up:
        assert (await up.http.get("/healthz")).status_code == 200
