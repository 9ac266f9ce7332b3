"""The local proxy: who may talk to it, what it answers, and what it never passes on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import openai
import pytest
from simulators.answers import Answer

from client.async_transport import AsyncSealedTransport
from client.proxy import Listener, ProxyServer, listen_tcp, listen_unix, new_key
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "hello there"}]
KEY = "ahp_test"


@dataclass
class Running:
    """A proxy on a loopback port."""

    url: str
    port: int


@pytest.fixture
def proxy(service: Service, server: Loopback, options: Callable[..., Options]) -> Iterator[Running]:
    transport = AsyncSealedTransport(
        service.policy(), base_url=server.url, api_key=service.api_key, options=options()
    )
    listener = listen_tcp("127.0.0.1", 0)
    running = ProxyServer(transport, listener, KEY)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()))
    thread.start()
    url = httpx2.URL(listener.url)
    yield Running(f"http://127.0.0.1:{url.port}", url.port or 0)
    running.stop()
    thread.join(10)


@pytest.fixture
def program(proxy: Running) -> Iterator[openai.OpenAI]:
    """Any OpenAI program that was given the proxy's address and key."""
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def test_a_plain_openai_program_works(program: openai.OpenAI) -> None:
    client = program
    reply = client.chat.completions.create(model="m", messages=MESSAGES)
    assert reply.choices[0].message.content == "You said: hello there"
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "You said: hello there"
    assert [model.id for model in client.models.list()] == ["m"]


def test_streams_pass_through_as_they_come(proxy: Running, service: Service) -> None:
    service.pause_s = 0.05
    service.answer = lambda body: Answer("one two three four five six")
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    url = f"{proxy.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body, headers=headers) as reply:
        pieces = [piece for piece in reply.iter_raw() if piece]
    assert len(pieces) > 3
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


def test_a_broken_stream_ends_in_an_error_event(program: openai.OpenAI, service: Service) -> None:
    service.lies.add("truncated")
    with pytest.raises(openai.APIError) as caught:
        list(program.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert caught.value.code == "stream_truncated"


@pytest.mark.parametrize("key", ["wrong", "ahp_tes", "", "anchorhold_test_key"])
def test_only_the_printed_key_opens_it(proxy: Running, service: Service, key: str) -> None:
    reply = httpx2.get(f"{proxy.url}/v1/models", headers={"authorization": f"Bearer {key}x"})
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "wrong_key"
    assert service.seen == []


def test_a_program_of_anthropic_s_api_works(proxy: Running, service: Service) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    url = f"{proxy.url}/v1/messages"
    reply = httpx2.post(url, json=body, headers=headers).json()
    assert reply["content"] == [{"type": "text", "text": "You said: hello there"}]
    stream = httpx2.post(url, json=body | {"stream": True}, headers=headers).text
    assert stream.startswith("event: message_start\n")
    assert stream.rstrip().endswith('data: {"type": "message_stop"}')
    service.seen.clear()
    wrong = httpx2.post(url, json=body, headers={"x-api-key": "other"})
    assert (wrong.status_code, wrong.json()["type"]) == (401, "error")
    assert service.seen == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost:80"])
def test_another_host_name_is_refused(proxy: Running, service: Service, host: str) -> None:
    headers = {"authorization": f"Bearer {KEY}", "host": host}
    reply = httpx2.get(f"{proxy.url}/v1/models", headers=headers)
    assert reply.status_code == 421
    message = reply.json()["error"]["message"]
    assert f"Host: found '{host}', expected 127.0.0.1:" in message
    assert service.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/images"),
        ("GET", "/"),
        ("GET", "/metrics"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/sealed"),
        ("GET", "/v1/keys"),
        ("OPTIONS", "/v1/models"),
        ("POST", "//evil.example/v1/chat/completions"),
    ],
)
def test_unknown_paths_are_refused_and_never_sent(
    proxy: Running, service: Service, method: str, path: str
) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client() as http:
        url = httpx2.URL(scheme="http", host="127.0.0.1", port=proxy.port, raw_path=path.encode())
        reply = http.request(method, url, headers=headers, content=b"secret")
    assert reply.status_code in (400, 404)
    assert all(b"secret" not in seen.body for seen in service.seen)
    assert all(seen.path.startswith(("/v1/keys", "/v1/log")) for seen in service.seen)


def test_the_tenants_credential_is_the_proxys_alone(
    program: openai.OpenAI, service: Service
) -> None:
    program.chat.completions.create(model="m", messages=MESSAGES)
    sealed = [seen for seen in service.seen if seen.path == "/v1/sealed"]
    assert sealed[0].headers["authorization"] == f"Bearer {service.api_key}"
    assert all(KEY not in repr(seen.headers) for seen in service.seen)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", ""])
def test_it_never_listens_on_a_network(host: str) -> None:
    with pytest.raises(ConfigError, match="proxy address"):
        listen_tcp(host, 0)


def test_a_port_in_use_is_named() -> None:
    first = listen_tcp("127.0.0.1", 0)
    port = int(first.url.split(":")[2].split("/")[0])
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
        listen_tcp("127.0.0.1", port)
    first.close()


def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    listener: Listener = listen_unix(tmp_path / "proxy.sock")
    assert (tmp_path / "proxy.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match=r"proxy\.sock"):
        listen_unix(tmp_path / "proxy.sock")
    listener.close()
    assert not (tmp_path / "proxy.sock").exists()


def test_keys_are_random_and_long() -> None:
    assert new_key() != new_key()
    assert len(new_key()) > 40
