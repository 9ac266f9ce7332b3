"""Runs a gateway's HTTP application: bind, serve, stop. For the command line and for embedding."""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError
from wire.excerpt import cut, shown

from .app import create_app
from .config import GatewayConfig
from .descriptors import http_max
from .errors import Refusal
from .line import Line
from .listener import Listener
from .punctual import PunctualProtocol, Terms
from .routes.sealed import SCOPE
from .runtime import Gateway
from .seats import Seat, Seats

#: Longer than clients keep idle connections, so that it is they who close them.
KEEP_ALIVE_S = 75
_BACKLOG = 2048
_DATE_S = 1.0
#: A chain of certificates is a few KiB of PEM.
TLS_FILE_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that serves: its parts and where it is reached."""

    gateway: Gateway
    url: str


class _Server(uvicorn.Server):
    """A server that leaves signals to its owner, says when it listens and stops when it is told.

    It accepts connections itself, which the library would without bound.
    """

    def __init__(self, config: uvicorn.Config, settings: GatewayConfig, gateway: Gateway) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._told = asyncio.Event()
        self._gateway = gateway
        self._terms = Terms(
            settings.header_deadline_s, settings.idle_deadline_s, self._known, Line()
        )
        self._listeners: list[Listener] = []

    def stop(self) -> None:
        """End `serve`, which gives requests their time first."""
        self.should_exit = True
        self._told.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[explicit-override]
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # type: ignore[explicit-override]
        await super().startup([])
        seats, within_s = Seats(http_max()), self._terms.deadline_s
        for sock in sockets or []:
            tls, journal = self.config.ssl, self._gateway.journal
            self._listeners.append(Listener(sock, seats, self._make, journal, tls, within_s))
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # type: ignore[explicit-override]
        for listener in self._listeners:
            await listener.close()
        await super().shutdown(sockets)

    def _make(self, seat: Seat) -> PunctualProtocol:
        state = self.lifespan.state
        return PunctualProtocol(self.config, self.server_state, state, self._terms, seat)

    def _known(self, header: str | None) -> bool:
        """Whether the header is a tenant's. Routes ask too: this decides about its place only."""
        try:
            self._gateway.authenticator.authenticate(header, SCOPE, self._gateway.clock.wall())
        except Refusal:
            return False
        return True

    async def main_loop(self) -> None:  # type: ignore[explicit-override]
        # The library looks ten times a second whether it has been told.
        while not await self.on_tick(0):  # sets the date of answers, which is in seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S):
                    await self._told.wait()


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: with 0, asyncio does not turn Nagle off, and small replies wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except (TypeError, UnicodeError):  # a zero byte, a part of a name that is too long
        sock.close()
        raise ConfigError(
            f"host: found {shown(host)}, expected an address of this machine"
        ) from None
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use by another program",
                hint="set `port` to another number in the configuration, or 0 for any free one",
            ) from error
        raise ConfigError(
            f"cannot listen on host {cut(host)} port {port}: {error.strerror}",
            hint="set `host` to an address of this machine and `port` to one this user may use",
        ) from error
    return sock


@asynccontextmanager
async def running(config: GatewayConfig, gateway: Gateway | None = None) -> AsyncIterator[Running]:
    """Serve until the block is left; then requests get `shutdown_s` to end.

    Args:
        config: the settings.
        gateway: an opened gateway; opened from `config` when not given.

    Raises:
        ConfigError: port or worker socket are taken, or a file is not what it should be.
    """
    await asyncio.to_thread(_check_tls, config)
    sock = bind(config.host, config.port)
    try:
        if gateway is None:
            gateway = await asyncio.to_thread(Gateway.open, config)
    except BaseException:
        sock.close()
        raise
    try:
        await gateway.start()
    except BaseException:
        sock.close()
        await gateway.stop()
        raise
    server = _Server(_options(config, gateway), config, gateway)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[sock]))
    listening = asyncio.get_running_loop().create_task(server.listening.wait())
    try:
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        host, port = sock.getsockname()[:2]
        scheme = "https" if config.tls_cert_file is not None else "http"
        yield Running(gateway, f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    finally:
        server.stop()
        await serving
        await gateway.stop()
        sock.close()


def _check_tls(config: GatewayConfig) -> None:
    """Refuse files that would fail, or wait for ever, where nothing has a sentence for it."""
    certificate, key = config.tls_cert_file, config.tls_key_file
    if certificate is None or key is None:
        return
    for name, path in (("tls_cert_file", certificate), ("tls_key_file", key)):
        try:
            read_whole(path, TLS_FILE_MAX)
        except OSError as error:
            raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from error
    try:
        # A password is nowhere to be had: an encrypted key must not make somebody be asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=b"")
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls_cert_file {certificate}, tls_key_file {key}: found no certificate chain in PEM "
            "with its unencrypted private key, expected both"
        ) from error


def _options(config: GatewayConfig, gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(config, gateway),
        lifespan="off",  # started and stopped here, where a failure has a sentence
        http="h11",
        ws="none",
        log_config=None,
        log_level=logging.ERROR,  # it warns of each bad request, and anybody can send any number
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a forwarded address is a claim, and nothing here uses addresses
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=config.shutdown_s,
        ssl_certfile=config.tls_cert_file,
        ssl_keyfile=config.tls_key_file,
    )
