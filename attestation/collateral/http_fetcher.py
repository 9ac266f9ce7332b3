"""Fetching over HTTPS. Verification of TLS is always on; there is no switch that turns it off.

What bounds an answer: the origins that the operator configured, the size (while it is read), the
time of each step and of the whole, the number of attempts, and the redirects, which may lead to
another path of the same origin and nowhere else. Refusals name the host, never content.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urljoin

import httpx2

from wire.errors import ConfigError, UnavailableError

from .fetcher import DeclinedError, Response
from .services import origin
from .surroundings import surroundings
from .whole_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fetcher import Request
    from .services import Services

CONNECT_S: Final = 10.0
READ_S: Final = 20.0
WHOLE_S: Final = 60.0  # a slow drip keeps every read in time, so the whole has its own end
PAUSES: Final = (0.5, 2.0)  # seconds before the second and the third attempt
RETRY_AFTER_MAX_S: Final = 10.0  # a service may ask for longer; then this attempt has failed
REDIRECTS_MAX: Final = 2
CA_MAX: Final = 1024 * 1024  # a whole system's bundle of roots is a quarter of it
USER_AGENT: Final = "anchorhold/1"
_OK: Final = 200
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_HINT: Final = "check the network and the services file, or import a bundle"


class HttpFetcher:
    """A `Fetcher`; use as a context manager.

    Args:
        services: the only origins this will connect to.
        pause: waits between attempts.
        whole_s: seconds one attempt may take in all.

    Raises:
        ConfigError: the CA file cannot be read, or the environment's proxies cannot be used.
    """

    def __init__(
        self,
        services: Services,
        *,
        pause: Callable[[float], None] = time.sleep,
        whole_s: float = WHOLE_S,
    ) -> None:
        self._origins = services.origins()
        self._private = origin(services.intel_pcs)
        self._pause = pause
        self._whole_s = whole_s
        self._client = _client(_context(None), whole_s)
        self._private_client = self._client
        if services.ca_file is not None:
            self._private_client = _client(_context(services.ca_file), whole_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._private_client.close()

    def fetch(self, request: Request) -> Response:
        """Perform one request.

        Raises:
            DeclinedError: an answer that is none.
            UnavailableError: no answer within the limits.
        """
        for pause in PAUSES:
            found = self._attempt(request)
            if isinstance(found, Response):
                return found
            self._pause(min(max(pause, found[1]), RETRY_AFTER_MAX_S))
        found = self._attempt(request)
        if isinstance(found, Response):
            return found
        raise _unavailable(request, f"{found[0]}, {len(PAUSES) + 1} times")

    def _attempt(self, request: Request) -> Response | tuple[str, float]:
        """The answer, or why another attempt may help and how long to wait before it."""
        deadline = time.monotonic() + self._whole_s
        url = request.url
        line = _Line()
        # Each read is in time where bytes drip, also those of headers: the whole has its own end.
        watch = threading.Timer(self._whole_s, line.cut)
        watch.daemon = True
        watch.start()
        try:
            for _ in range(REDIRECTS_MAX + 1):
                found = self._once(request, url, line)
                if not isinstance(found, str):
                    return found
                target = _joined(url, found) if request.method == "GET" else None
                if target is None:
                    raise _declined(request, "it redirects elsewhere, which is never followed")
                url = target
        except httpx2.TimeoutException as error:
            return f"no answer in time ({type(error).__name__})", 0.0
        except httpx2.ConnectError as error:
            if isinstance(_root(error), ssl.SSLError):
                # No second attempt, and none without verification: this is what an attack looks
                # like.
                raise _unavailable(request, "its TLS certificate is not trusted") from None
            return "cannot connect", 0.0
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.InvalidURL) as error:
            if time.monotonic() >= deadline:
                return "no whole answer in time", 0.0
            return f"the answer broke off ({type(error).__name__})", 0.0
        finally:
            watch.cancel()
            line.close()
        raise _declined(request, f"more than {REDIRECTS_MAX} redirects")

    def _once(self, request: Request, url: str, line: _Line) -> Response | tuple[str, float] | str:
        where = origin(url)
        if where not in self._origins:
            raise ConfigError(
                f"collateral {request.what}: its address is not one that is configured"
            )
        client = self._private_client if where == self._private else self._client
        if client.is_closed:  # by whoever ends the process meanwhile
            raise _unavailable(request, "this ends")
        headers = {"content-type": request.content_type} if request.content_type else {}
        with client.stream(
            request.method,
            url,
            content=request.body or None,
            headers=headers,
            extensions={"trace": line.trace},
        ) as answer:
            status = answer.status_code
            if status in _MOVED:
                return str(answer.headers.get("location", ""))
            if status in _BUSY:
                return f"status {status}", _seconds(answer.headers.get("retry-after", ""))
            if status != _OK:
                raise _declined(request, f"status {status}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _declined(request, "a compressed answer, which was not asked for")
            if not {"content-length", "transfer-encoding"} & set(answer.headers):
                # Its end would be that of the connection, which anyone on the way can bring about.
                raise _declined(request, "an answer that does not mark its end")
            body = bytearray()
            for piece in answer.iter_raw():
                body += piece
                if len(body) > request.limit:
                    raise _declined(request, f"an answer of more than {request.limit} bytes")
            return Response(bytes(body), {k.lower(): v for k, v in answer.headers.items()})


class _Line:
    """The connection of one attempt, which can be cut from beside it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Note the connection when it is made; connections are not kept, so each is."""
        if event == "connection.connect_tcp.complete":
            self.close()
            with self._lock:
                # A second handle to it: TLS takes the first one over, from the handshake on.
                self._socket = info["return_value"].get_extra_info("socket").dup()
            if self._is_cut:
                self.cut()

    def cut(self) -> None:
        """Wake whatever reads from it, with an end."""
        self._is_cut = True
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the handle back."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None


def _client(context: ssl.SSLContext, whole_s: float) -> httpx2.Client:
    with surroundings():
        return httpx2.Client(
            verify=context,
            timeout=httpx2.Timeout(min(READ_S, whole_s), connect=min(CONNECT_S, whole_s)),
            follow_redirects=False,
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx2.Limits(max_keepalive_connections=0),
        )


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        if ca_file is None:
            return ssl.create_default_context()
        pem = read_whole(Path(ca_file), CA_MAX).decode("ascii", "ignore")
        if not pem:
            raise ValueError  # no data would mean the system's roots
        return ssl.create_default_context(cadata=pem)
    except (OSError, ValueError) as cause:  # nothing in it
        reason = getattr(cause, "strerror", None) or "no certificates in PEM"
        raise ConfigError(
            f"services.ca_file {ca_file}: {reason}", hint="name a PEM file of CA certificates"
        ) from cause


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return error


def _joined(url: str, location: str) -> str | None:
    """Where a redirect leads, if that is the same origin."""
    try:
        target = urljoin(url, location)
        return target if origin(target) == origin(url) else None
    except (ConfigError, ValueError):
        return None


def _seconds(text: str) -> float:
    # Not `isdigit`: that takes a superscript two for a digit, and `float` does not.
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0.0


def _unavailable(request: Request, found: str) -> UnavailableError:
    return UnavailableError(_sentence(request, found), hint=_HINT)


def _declined(request: Request, found: str) -> DeclinedError:
    return DeclinedError(_sentence(request, found), hint=_HINT)


def _sentence(request: Request, found: str) -> str:
    return f"collateral {request.what} from {origin(request.url)[1]}: {found}"
