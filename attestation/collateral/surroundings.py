"""What an HTTP client takes from its surroundings: proxies and roots, from environment variables.

Every client that connects to an address of an operator's or a tenant's honours them, as other
programs do, and is made inside `surroundings()`: what cannot be used is a refusal that says so. A
proxy's address may hold a password, so it is never repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies

import httpx2

from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL_MAX: Final = 63  # RFC 1035: a longer one cannot be looked up
PORT_END: Final = 65_536
_SCHEMES: Final = frozenset({"http", "https"})
_SOCKS: Final = frozenset({"socks5", "socks5h"})
_HINT: Final = (
    "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name a proxy as http://host:port, NO_PROXY lists hosts "
    "without one"
)


@contextmanager
def surroundings() -> Iterator[None]:
    """Make a client in here.

    Raises:
        ConfigError: a proxy or a file of roots that the environment names cannot be used.
    """
    _check_proxies()
    try:
        yield
    except OSError as error:  # as ssl's errors are; their words are about the file
        reason = error.strerror or "no certificates in PEM"
        raise ConfigError(
            f"SSL_CERT_FILE: {reason}", hint="name a PEM file of CA certificates, or none"
        ) from error
    except (httpx2.InvalidURL, ValueError):  # of a kind not foreseen below
        raise ConfigError(
            "proxy variables: found one that cannot be used, expected http://host:port", hint=_HINT
        ) from None
    except ImportError:
        raise ConfigError(
            "proxy variables: found a SOCKS proxy, for which nothing is installed, "
            "expected http://host:port",
            hint=_HINT,
        ) from None


def named(host: str) -> bool:
    """Whether a host can be looked up: no part of its name is empty or too long."""
    return all(0 < len(label) <= LABEL_MAX for label in host.removesuffix(".").split("."))


def _check_proxies() -> None:
    found = getproxies()
    if "*" in (host.strip() for host in found.get("no", "").split(",")):
        return  # none is used
    for scheme in ("http", "https", "all"):
        address = found.get(scheme)
        if address and not _usable(address):
            raise ConfigError(
                f"{scheme.upper()}_PROXY: found an address that cannot be used, "
                "expected http://host:port",
                hint=_HINT,
            )


def _usable(address: str) -> bool:
    try:
        url = httpx2.URL(address if "://" in address else f"http://{address}")
    except httpx2.InvalidURL:
        return False
    host = url.raw_host.decode("ascii", "replace")
    in_range = url.port is None or 0 < url.port < PORT_END
    return url.scheme in _SCHEMES | _SOCKS and named(host) and in_range
