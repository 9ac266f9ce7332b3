"""A gateway that drips keeps every read in time; the whole has its own end."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.sealed_exchange import SealedExchange
from simulators.vendor_services import Answer, Fault, ServerTls, VendorServices

from client.async_driver import AsyncDriver
from client.commands import FETCH_S, Close, Fetch, Opened, Read, Send, Shorten, Steps, fetch
from client.driver import Driver
from client.http import endpoint, time_left
from client.posting import begins_within, post, read_refusal
from client.state import TrustState
from wire.errors import GatewayError, StreamTruncated, UnavailableError
from wire.limits import CLOCK_SKEW_S, LIFE_MAX_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.vendor_services import Kind

    from client.http import Endpoint

pytestmark = pytest.mark.anyio

WHOLE_S = 1.0  # in which a busy machine sends the head of a reply
SHORT_S = 0.25  # for a reply that never comes
KINDS = ["slow", "drip", "headers"]
SLOW = Fetch("GET", "/slow", 1 << 20, whole_s=SHORT_S)
HONEST = Fetch("GET", "/honest", 1 << 20)


@dataclass(frozen=True)
class Served:
    """A server that answers /honest, and who vouches for it."""

    vendor: VendorServices
    trust: ssl.SSLContext
    where: Endpoint
    state: TrustState

    def spoil(self, kind: Kind) -> None:
        self.vendor.faults["/slow"] = Fault(kind)

    def driver(self) -> Driver:
        return Driver(self.where, self.state, httpx2.HTTPTransport(verify=self.trust))

    def async_driver(self) -> AsyncDriver:
        return AsyncDriver(self.where, self.state, httpx2.AsyncHTTPTransport(verify=self.trust))


@pytest.fixture(params=["http", "https"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    tls = ServerTls(tmp_path) if request.param == "https" else None
    trust = ssl.create_default_context(cafile=None if tls is None else str(tls.ca_file))
    with VendorServices(tls) as running:
        running.answers["/honest"] = Answer(b"{}")
        yield Served(running, trust, endpoint(running.url, None, 60), TrustState(tmp_path))


def send(
    whole_s: float | None, shorten_s: float | None = None, begins_s: float = FETCH_S
) -> Steps[bytes]:
    """A sealed request's way, reply and all."""
    opened: Any = yield Send(
        "/slow", b"sealed", "application/octet-stream", "rid", begins_s, whole_s
    )
    assert isinstance(opened, Opened)
    if shorten_s is not None:
        yield Shorten(shorten_s)
    whole = b""
    while chunk := (yield Read()):
        whole += chunk
    yield Close()
    return whole


def outlasting(begins_s: float) -> Steps[None]:
    """Read of an answer for longer than it had to begin."""
    opened = yield from post(
        "/slow", b"sealed", "application/octet-stream", "rid", begins_s=begins_s
    )
    assert opened.status == 200
    until = time.monotonic() + begins_s + 0.5
    while time.monotonic() < until:
        assert (yield Read())
    yield Close()


def refused(whole_s: float) -> Steps[GatewayError]:
    """A prompt's way, whose answer may run without end, to a refusal."""
    opened = yield from post(
        "/slow", b"sealed", "application/octet-stream", "rid", begins_s=FETCH_S
    )
    return (yield from read_refusal(opened, SealedExchange().request, (), whole_s))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_drips_ends_the_wait(served: Served, kind: Kind) -> None:
    served.spoil(kind)
    found = served.driver()
    with pytest.raises(UnavailableError, match="no reply in time"):
        found.call(fetch(SLOW))
    assert found.call(fetch(HONEST)).body == b"{}"
    found.close()


@pytest.mark.parametrize("kind", KINDS)
def test_so_does_one_on_a_connection_that_was_kept(served: Served, kind: Kind) -> None:
    served.spoil(kind)
    found = served.driver()
    assert found.call(fetch(HONEST)).body == b"{}"
    with pytest.raises(UnavailableError, match="no reply in time"):
        found.call(fetch(SLOW))
    found.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reply_that_drips_ends_the_wait_of_the_asyncio_client(
    served: Served, kind: Kind
) -> None:
    served.spoil(kind)
    found = served.async_driver()
    with pytest.raises(UnavailableError, match="no reply in time"):
        await found.call(fetch(SLOW))
    assert (await found.call(fetch(HONEST))).body == b"{}"
    await found.close()


def test_a_sealed_request_with_an_end_of_its_own_ends_there(served: Served) -> None:
    found = served.driver()
    served.spoil("headers")
    with pytest.raises(UnavailableError, match="no reply in time"):
        found.call(send(SHORT_S))
    served.spoil("drip")
    with pytest.raises(StreamTruncated):
        found.call(send(WHOLE_S))
    found.close()


async def test_a_sealed_request_of_the_asyncio_client_ends_there_too(served: Served) -> None:
    found = served.async_driver()
    served.spoil("headers")
    with pytest.raises(UnavailableError, match="no reply in time"):
        await found.call(send(SHORT_S))
    served.spoil("drip")
    with pytest.raises(StreamTruncated):
        await found.call(send(WHOLE_S))
    await found.close()


def test_a_reply_to_a_prompt_whose_header_drips_ends_the_wait(served: Served) -> None:
    served.spoil("headers")
    found = served.driver()
    with pytest.raises(UnavailableError, match="no reply in time"):
        found.call(send(None, begins_s=SHORT_S))
    found.close()


async def test_a_reply_to_a_prompt_whose_header_drips_ends_the_wait_of_the_asyncio_client(
    served: Served,
) -> None:
    served.spoil("headers")
    found = served.async_driver()
    with pytest.raises(UnavailableError, match="no reply in time"):
        await found.call(send(None, begins_s=SHORT_S))
    await found.close()


def test_an_answer_that_has_begun_runs_on_past_the_time_for_its_header(served: Served) -> None:
    served.spoil("drip")
    found = served.driver()
    found.call(outlasting(WHOLE_S))
    found.close()


async def test_so_does_one_to_the_asyncio_client(served: Served) -> None:
    served.spoil("drip")
    found = served.async_driver()
    await found.call(outlasting(WHOLE_S))
    await found.close()


def test_no_honest_gateway_is_given_less_time_to_begin_than_before_the_limit() -> None:
    """It takes a prompt that comes as slowly as it may, and is then silent as long as it may be."""
    for life_s in (1, 300, LIFE_MAX_S):
        within_s = begins_within(life_s)
        command = Send("/slow", b"sealed", "application/octet-stream", "rid", within_s)
        read_s = index(time_left(endpoint("http://127.0.0.1", None, life_s), command))
        assert read_s >= life_s
        assert within_s >= life_s + 2 * CLOCK_SKEW_S + read_s


def test_a_refusal_of_a_prompt_that_drips_ends_the_wait(served: Served) -> None:
    """Only an answer runs as long as it runs."""
    served.spoil("refusal")
    found = served.driver()
    error = found.call(refused(WHOLE_S))
    assert (error.status, error.notice) == (500, None)
    found.close()


async def test_a_refusal_that_drips_ends_the_wait_of_the_asyncio_client(served: Served) -> None:
    served.spoil("refusal")
    found = served.async_driver()
    error = await found.call(refused(WHOLE_S))
    assert (error.status, error.notice) == (500, None)
    await found.close()


def test_a_refusal_has_as_long_as_any_small_reply() -> None:
    steps = read_refusal(Opened(503, ""), SealedExchange().request, ())
    assert next(steps) == Shorten(FETCH_S)


def test_an_earlier_end_stays(served: Served) -> None:
    served.spoil("drip")
    found = served.driver()
    with pytest.raises(StreamTruncated):
        found.call(send(WHOLE_S, FETCH_S))
    found.close()


async def test_an_earlier_end_stays_for_the_asyncio_client(served: Served) -> None:
    served.spoil("drip")
    found = served.async_driver()
    with pytest.raises(StreamTruncated):
        await found.call(send(WHOLE_S, FETCH_S))
    await found.close()
