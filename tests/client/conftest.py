"""Fixtures of the client tests: a deployment on loopback and clients for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulators.service import Service

from client import cli
from client.api import Client
from client.session import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulators.loopback import Loopback


@pytest.fixture
def anyio_backend() -> str:
    """The asyncio client needs asyncio."""
    return "asyncio"


@pytest.fixture
def service() -> Service:
    """An honest deployment of three workers; tests change it before or after it is served."""
    made = Service()
    for _ in range(3):
        made.add()
    return made


@pytest.fixture
def server(service: Service) -> Iterator[Loopback]:
    """The deployment's gateway, listening."""
    with service.serve() as running:
        yield running


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., Options]:
    """Client options with a state folder of the test's own."""

    def make(**changes: Any) -> Options:
        return Options(
            **{"state_dir": tmp_path / "state", "patient": False, "pad": "off"} | changes
        )

    return make


@pytest.fixture
def client(service: Service, server: Loopback, options: Callable[..., Options]) -> Iterator[Client]:
    """A client of the deployment under its own policy."""
    with Client(server.url, service.api_key, policy=service.policy(), options=options()) as made:
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command; returns (exit code, stdout, stderr)."""

    def command(*words: object) -> tuple[int, str, str]:
        try:
            code = cli.execute(cli.build_parser(), [str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return command


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: Service) -> None:
    """What commands find in their environment: this deployment's tenant, with a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANCHORHOLD_API_KEY", service.api_key)
    monkeypatch.delenv("ANCHORHOLD_POLICY", raising=False)
