"""What both drivers agree on: fixed headers, limits, and what a broken connection means.

Nothing that could tell one user from another leaves in a header: one User-Agent, no cookies kept,
no compression (it would mix secrets with sizes).
"""

from __future__ import annotations

import math
import re
import ssl
import time
from contextlib import nullcontext
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2

from attestation.collateral.surroundings import PORT_END, named, surroundings
from wire.errors import AnchorholdError, ConfigError, ProtocolFailure, UnavailableError
from wire.excerpt import shown
from wire.response import CONTENT_TYPE as RESPONSE_TYPE

from .commands import MARGIN_S, Fetch, Send

if TYPE_CHECKING:
    from collections.abc import Callable

USER_AGENT: Final = "anchorhold/1"
CONNECT_S: Final = 10.0
# A gateway that restarts is back within seconds. Only connections that never opened are retried
# here: nothing was sent on them.
CONNECT_PAUSES: Final = (0.2, 0.5, 1.0, 1.5)
API_KEY_MAX: Final = 512
_NOT_IN_URLS: Final = frozenset(' "<>\\^`{|}')
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%(25)?[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom.

    Attributes:
        url: the gateway's base URL, without a trailing slash and without `/v1`.
        api_key: tenant credential for the gateway, or None; never sent to a worker.
        life_s: seconds a request may wait and run.
        patient: whether to wait for a gateway that is restarting.
    """

    url: str
    api_key: str | None
    life_s: int
    patient: bool = True

    @property
    def pauses(self) -> tuple[float, ...]:
        """Seconds to wait between attempts to connect."""
        return CONNECT_PAUSES if self.patient else ()


def endpoint(url: str, api_key: str | None, life_s: int, *, patient: bool = True) -> Endpoint:
    """Check and normalise a gateway URL; a trailing `/v1` is allowed, since OpenAI's has one.

    Raises:
        ConfigError: not an http(s) URL, or a key that cannot be a header.
    """
    # The parser would escape them, and what is asked must be what was named.
    odd = next((c for c in str(url) if c in _NOT_IN_URLS or not c.isprintable()), None)
    if odd is not None:
        raise ConfigError(
            f"gateway URL: found {odd!a} in it, expected only characters that a URL has",
            hint=_URL_HINT,
        )
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"gateway URL: {error}", hint=_URL_HINT) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise ConfigError(
            f"gateway URL: found {_url_parts(parsed)}, "
            "expected http:// or https://, a host, and no user name",
            hint=_URL_HINT,
        )
    host = parsed.raw_host.decode("ascii", "replace")
    if _HOST.fullmatch(host) is None or not named(host):
        raise ConfigError(
            f"gateway URL: found host {shown(parsed.host)}, expected a name or an address",
            hint=_URL_HINT,
        )
    if parsed.port is not None and not 0 < parsed.port < PORT_END:
        raise ConfigError(
            f"gateway URL: found port {parsed.port}, expected 1 to {PORT_END - 1}", hint=_URL_HINT
        )
    if parsed.query or parsed.fragment:
        found = " and ".join(
            part for part, value in (("a query", parsed.query), ("a fragment", parsed.fragment))
            if value
        )  # fmt: skip
        raise ConfigError(f"gateway URL: found {found}, expected neither", hint=_URL_HINT)
    path = parsed.path.rstrip("/").removesuffix("/v1")
    if api_key is not None and not (
        0 < len(api_key) <= API_KEY_MAX and api_key.isascii() and api_key.isprintable()
    ):
        plain = "" if api_key.isascii() and api_key.isprintable() else ", some not printable ASCII"
        raise ConfigError(
            f"API key: found {len(api_key)} characters{plain}, "
            f"expected 1 to {API_KEY_MAX} printable ASCII ones",
            hint="give it by --key-file or the environment variable ANCHORHOLD_API_KEY",
        )
    return Endpoint(str(parsed.copy_with(path=path or "/")).rstrip("/"), api_key, life_s, patient)


def _url_parts(parsed: httpx2.URL) -> str:
    """What a URL is made of, without what may be secret in it: user name, path, query."""
    scheme = f"scheme {shown(parsed.scheme)}" if parsed.scheme else "no scheme"
    host = f"host {shown(parsed.host)}" if parsed.host else "no host"
    return f"{scheme}, {host}" + (" and a user name" if parsed.userinfo else "")


_URL_HINT = "for example https://gateway.example or http://127.0.0.1:8010"


_Http = TypeVar("_Http", httpx2.Client, httpx2.AsyncClient)


def http_client(make: Callable[..., _Http], where: Endpoint, transport: object) -> _Http:
    """The httpx2 client of either driver.

    Raises:
        ConfigError: what the environment names, a proxy or a file of roots, cannot be used. A
            transport that is given comes with its own.
    """
    with surroundings() if transport is None else nullcontext():
        return make(transport=transport, **_options(where))


def _options(where: Endpoint) -> dict[str, Any]:
    headers = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
    if where.api_key is not None:
        headers["authorization"] = f"Bearer {where.api_key}"
    options: dict[str, Any] = {}
    if where.url.startswith("http://"):
        # No TLS, so no roots to load (that takes a tenth of a second); a context without any would
        # refuse every certificate, should something try to use it after all.
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return options | {
        "base_url": where.url,
        "headers": headers,
        "timeout": _timeout(where),
        "follow_redirects": False,
        # Many streams at once is the point; the pool must not be the queue.
        "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=32),
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    }


def _timeout(where: Endpoint) -> httpx2.Timeout:
    return httpx2.Timeout(where.life_s + MARGIN_S, connect=CONNECT_S)


class TimeLeft:
    """The rest of a whole, as a timeout of a socket.

    A limit for each read is none for the whole: a gateway that sends a byte now and then keeps
    each in time, those of headers too. A socket takes whatever has `__index__` for whole seconds,
    and asks it before each read and write.

    Args:
        each_s: for one read or write, while the whole has no end.
        whole_s: seconds from now to the end of the whole; None for no end.
        begins_s: seconds until it has `begun`.
    """

    __slots__ = ("_begins", "_each_s", "_ends")

    def __init__(self, each_s: float, whole_s: float | None, begins_s: float | None = None) -> None:
        self._each_s = each_s
        self._ends = math.inf if whole_s is None else time.monotonic() + whole_s
        self._begins = math.inf if begins_s is None else time.monotonic() + begins_s

    def begun(self) -> None:
        """Its header is here: from now on only the whole has an end."""
        self._begins = math.inf

    def shorten(self, whole_s: float) -> None:
        """End so many seconds from now, unless it ends sooner."""
        self._ends = min(self._ends, time.monotonic() + whole_s)

    def __index__(self) -> int:
        left = min(self._ends, self._begins) - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole took too long")
        return math.ceil(left if self._ends < math.inf else min(left, self._each_s))


def time_left(where: Endpoint, command: Fetch | Send) -> TimeLeft:
    """How long one request over sockets that block may take."""
    begins_s = command.begins_s if isinstance(command, Send) else None
    return TimeLeft(where.life_s + MARGIN_S, command.whole_s, begins_s)


def request_extensions(where: Endpoint, left: TimeLeft) -> dict[str, Any]:
    """Extensions of one request over sockets that block: its end."""
    return {"timeout": _timeout(where).as_dict() | {"read": left, "write": left}}


def request_headers(command: Fetch | Send) -> dict[str, str]:
    """Headers of one request, without the credential."""
    if isinstance(command, Fetch):
        headers = {"accept": "application/json"}
        return headers | ({"content-type": command.content_type} if command.content_type else {})
    return {
        "accept": RESPONSE_TYPE,
        "content-type": command.content_type,
        "idempotency-key": command.rid,
        "incremental": "?1",
    }


def content_type(response: httpx2.Response) -> str:
    """The reply's type.

    Raises:
        ProtocolFailure: the reply is compressed, which nothing here ever asks for.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ProtocolFailure(
            f"gateway reply: no content encoding expected, found {encoding[:32]!r}"
        )
    found: str = response.headers.get("content-type", "")
    return found


def too_long(limit: int) -> AnchorholdError:
    """A reply larger than its limit."""
    return ProtocolFailure(f"gateway reply: at most {limit} bytes expected, found more")


def unreachable(where: Endpoint, error: httpx2.TransportError | TimeoutError) -> UnavailableError:
    """No reply: the gateway is not there, or went away before its first byte."""
    what = "cannot connect" if isinstance(error, httpx2.ConnectError) else "no reply"
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        what = "no reply in time"
    return UnavailableError(
        f"gateway {where.url}: {what} ({type(error).__name__})",
        hint="check the URL and that the gateway is running",
    )
