"""A local proxy: any program of OpenAI's or Anthropic's API on this machine, sealed beyond it.

It listens on loopback or a Unix socket only, answers only requests whose `Host` names it (a web
page that rebinds a name to 127.0.0.1 sends another), and only with its own random key: other users
of the machine are not the tenant. What has no sealed form is refused; nothing is passed through.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from wire.errors import ConfigError, MalformedError
from wire.excerpt import shown
from wire.ids import b64u
from wire.limits import BODY_MAX

from .openai_shape import error_response, unknown_endpoint
from .transport import bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from starlette.requests import Request

    from .async_transport import AsyncSealedTransport

KEY_BYTES: Final = 32
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
BACKLOG: Final = 128
SHUTDOWN_S: Final = 2
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Nothing else of an answer is meant for the program behind the proxy.
FORWARDED: Final = (
    "content-type",
    "cache-control",
    "x-request-id",
    "x-should-retry",
    "retry-after",
)
OWN_PREFIX: Final = "x-anchorhold-"
# httpx2 wants an absolute URL; this one is never resolved, the transport knows its own gateway.
_INSIDE: Final = "http://sealed.invalid"
# sun_path of a Unix socket address, less its terminating zero.
SOCKET_PATH_MAX: Final = 107
_SOCKET_HINTS: Final = {
    errno.EADDRINUSE: "remove a left-over socket file, or choose another path with --socket",
    errno.ENOENT: "make the folder first, or choose another path with --socket",
    errno.ENOTDIR: "what should be a folder is a file: choose another path with --socket",
    errno.EACCES: "choose a path in a folder you may write to with --socket",
    errno.EPERM: "choose a path in a folder you may write to with --socket",
    errno.EROFS: "choose a path in a folder you may write to with --socket",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket.

    Attributes:
        sock: listening socket, given to the server.
        url: base URL for OpenAI programs; for a Unix socket, with a host name that only fills Host.
        hosts: values of `Host` that are this proxy.
        path: the Unix socket's path, removed at the end; None for TCP.
    """

    sock: socket.socket
    url: str
    hosts: frozenset[str]
    path: Path | None = None

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def new_key(rng: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh bearer key of the proxy; lives as long as the process."""
    return "ahp_" + b64u(rng(KEY_BYTES))


def listen_tcp(host: str, port: int) -> Listener:
    """Bind a loopback port; 0 takes a free one.

    Raises:
        ConfigError: not a loopback address, or the port cannot be bound.
    """
    if host not in LOOPBACK:
        raise ConfigError(
            f"proxy address: found {host!r}, expected one of {', '.join(LOOPBACK)}",
            hint="the proxy holds plaintext: it never listens on a network",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle's delay off only on sockets that say they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as cause:
        sock.close()
        reason = getattr(cause, "strerror", None) or "not a port number"
        in_use = getattr(cause, "errno", None) == errno.EADDRINUSE
        hint = "stop what listens there, or choose another port with --port; 0 takes a free one"
        raise ConfigError(
            f"proxy address {host}:{port}: {reason}",
            hint=hint if in_use else "choose another port with --port; 0 takes a free one",
        ) from cause
    found = sock.getsockname()[1]
    names = ("127.0.0.1", "localhost", "[::1]")
    shown = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
    return Listener(sock, f"http://{shown}:{found}/v1", frozenset(f"{n}:{found}" for n in names))


def listen_unix(path: Path) -> Listener:
    """Bind a Unix socket that only its owner can open (mode 0600).

    Raises:
        ConfigError: the path exists or cannot be bound.
    """
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        raise ConfigError(
            f"proxy socket: found a path of {length} bytes, expected at most {SOCKET_PATH_MAX}",
            hint="choose a shorter path with --socket; the system allows no longer ones",
        )
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as cause:
        sock.close()
        raise ConfigError(
            f"proxy socket {path}: {cause.strerror or cause}",
            hint=_SOCKET_HINTS.get(cause.errno or 0, "choose another path with --socket"),
        ) from cause
    finally:
        os.umask(before)
    return Listener(sock, "http://localhost/v1", frozenset({"localhost"}), path)


def create_app(transport: AsyncSealedTransport, key: str, hosts: Iterable[str]) -> Starlette:
    """The proxy application.

    Args:
        transport: seals and sends; it knows the gateway and its credential.
        key: bearer key callers must show.
        hosts: accepted values of `Host`.
    """
    accepted = frozenset(hosts)

    async def answer(request: Request) -> Response:
        # 1: is it meant for us? A rebound name, or a page's own, is not.
        host = request.headers.get("host")
        if (host or "").lower() not in accepted:
            names = " or ".join(sorted(accepted))
            message = f"Host: found {shown(host)}, expected {names}"
            return _refused(MalformedError(message, code="wrong_host"), 421, request)
        # 2: is it allowed? Compared in constant time.
        shown_key = bearer(request.headers)
        if not hmac.compare_digest(shown_key.encode(), key.encode()):
            found = f"one of {len(shown_key)} characters" if shown_key else "none"
            error = MalformedError(
                f"Authorization: found {found}, expected Bearer and the key this proxy printed",
                code="wrong_key",
            )
            return _refused(error, 401, request)
        # 3: only paths under /v1 have a sealed form; the transport refuses the rest by name
        if not request.url.path.startswith("/v1/"):
            return _refused(unknown_endpoint(request.method, request.url.path), 404, request)
        body = await _body(request)
        if body is None:
            declared = request.headers.get("content-length", "")
            found = declared if declared.isdecimal() else f"more than {BODY_MAX}"
            message = f"body: found {found} bytes, expected at most {BODY_MAX}"
            return _refused(MalformedError(message, code="body_too_large"), 413, request)
        inside = httpx2.Request(request.method, _INSIDE + request.url.path, content=body)
        return _forward(await transport.handle_async_request(inside))

    return Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])


class ProxyServer:
    """The proxy on its socket.

    Args:
        transport: seals and sends; closed when the server ends.
        listener: closed when the server ends.
        key: bearer key callers must show.
    """

    def __init__(self, transport: AsyncSealedTransport, listener: Listener, key: str) -> None:
        self._transport, self._listener = transport, listener
        config = uvicorn.Config(
            create_app(transport, key, listener.hosts),
            log_level="critical",  # an access log would be a list of the tenant's requests
            access_log=False,
            ws="none",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        self._server = uvicorn.Server(config)

    async def serve(self) -> None:
        """Serve until interrupted, or until `stop`."""
        try:
            await self._server.serve(sockets=[self._listener.sock])
        finally:
            self._listener.close()
            await self._transport.aclose()

    def stop(self) -> None:
        """Ask the server to end; any thread may."""
        self._server.should_exit = True


async def _body(request: Request) -> bytes | None:
    """The whole body, or None if it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            return None
    return bytes(body)


def _forward(response: httpx2.Response) -> Response:
    headers = {
        name: value
        for name, value in response.headers.items()
        if name in FORWARDED or name.startswith(OWN_PREFIX)
    }
    if response.is_stream_consumed or response.is_closed:
        return Response(response.content, response.status_code, headers)
    return StreamingResponse(_chunks(response), response.status_code, headers)


async def _chunks(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Pass on as it comes; when the program hangs up, so do we, and the worker stops."""
    async with contextlib.aclosing(response):
        async for chunk in response.aiter_raw():
            yield chunk


def _refused(error: MalformedError, status: int, request: Request) -> Response:
    _, headers, body = error_response(error, request.url.path)
    return Response(body, status, headers)
