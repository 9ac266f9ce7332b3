"""Proxies and roots that the environment names are used, or refused in a sentence."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from client.api import Client
from client.async_api import AsyncClient
from client.http import endpoint
from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")
LONG = "a" * 64
UNUSABLE = [
    "socks5://127.0.0.1:1",
    "http://[::1",
    "ftp://127.0.0.1:1",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:0",
    "http://",
    "http://a..b:1",
    f"http://{LONG}:1",
    "http://user:secret@[::1",
    "://",
]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is named but what a test names."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def policy_file(service: Service, tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_bytes(service.policy())
    return path


@pytest.mark.usefixtures("tenant")
@pytest.mark.parametrize("proxy", UNUSABLE)
def test_a_proxy_that_cannot_be_used_is_no_defect_of_ours(
    monkeypatch: pytest.MonkeyPatch, run: Any, policy_file: Path, tmp_path: Path, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    url = "https://gateway.example"
    commands: list[tuple[object, ...]] = [
        ("verify", url, "--policy", policy_file),
        ("chat", "hello", "--url", url, "--model", "m", "--policy", policy_file),
        ("collateral", "fetch", "--key", "intel-pcs:qe/tdx", "--cache-dir", tmp_path / "cache"),
    ]
    for command in commands:
        code, _, err = run(*command)
        assert code == 4, err
        assert "defect" not in err
        assert "expected http://host:port" in " ".join(err.split())
        assert "secret" not in err


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_both_clients_refuse_it_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, service: Service, options: Callable[..., Options], proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="expected http://host:port"):
            kind("https://gateway.example", policy=service.policy(), options=options())


def test_a_proxy_that_is_usable_is_used(
    monkeypatch: pytest.MonkeyPatch, service: Service, options: Callable[..., Options]
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with Client(
            "http://127.0.0.1:1", service.api_key, policy=service.policy(), options=options()
        ) as client:
            assert "502" in str(client.report().error)
    assert proxy.asked[0].startswith("http://127.0.0.1:1/")


class Proxy:
    """Takes what it is asked for, and passes nothing on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(502)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*"])
def test_a_host_that_is_exempt_is_asked_without_it(
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    server: Loopback,
    options: Callable[..., Options],
    exempt: str,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exempt)
    with Client(server.url, service.api_key, policy=service.policy(), options=options()) as client:
        assert client.report().error is None


def test_where_no_proxy_is_used_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, service: Service, options: Callable[..., Options]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://[::1")
    monkeypatch.setenv("NO_PROXY", "*")
    Client("https://gateway.example", policy=service.policy(), options=options()).close()


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_file_of_roots_that_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    options: Callable[..., Options],
    tmp_path: Path,
    content: bytes | None,
) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
            kind("https://gateway.example", policy=service.policy(), options=options())


@pytest.mark.parametrize("host", ["a..b", LONG, f"{LONG}.example", ".example"])
def test_a_name_that_nothing_can_look_up_is_no_host(host: str) -> None:
    with pytest.raises(ConfigError, match="expected a name or an address"):
        endpoint(f"http://{host}", None, 60)


@pytest.mark.parametrize("host", ["gateway.example.", "a" * 63])
def test_a_name_of_any_usual_length_is_one(host: str) -> None:
    assert endpoint(f"http://{host}", None, 60).url


def test_a_proxy_that_is_not_there_is_a_gateway_that_is_not(
    monkeypatch: pytest.MonkeyPatch, service: Service, options: Callable[..., Options]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Client("http://gateway.example", policy=service.policy(), options=options()) as client:
        assert isinstance(client.report().error, UnavailableError)
