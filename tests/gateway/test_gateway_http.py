"""The HTTP edge: forms, limits, deadlines; every refusal a problem document."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.deployment import Deployment, problem, seal

from wire.envelope import parse_envelope
from wire.ids import b64u
from wire.link import MessageType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from simulators.deployment import Fleet, Observed, Up


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_type": "application/json"}, (415, "bad_envelope")),
        ({"content_encoding": "gzip"}, (415, "bad_envelope")),
        ({"content_encoding": "identity"}, (415, "bad_envelope")),
        ({"idempotency_key": b64u(bytes(16))}, (400, "bad_envelope")),
        ({"idempotency_key": ""}, (400, "bad_envelope")),
    ],
    ids=str,
)
async def test_http_headers_that_do_not_fit_are_refused(
    up: Up, fleet: Fleet, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    assert problem(await up.post(seal([worker]), **headers)) == expected
    assert worker.got(MessageType.JOB) == 0


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"aud": "elsewhere"}, (400, "bad_envelope")),
        ({"iat": 1_700_000_000, "exp": 1_700_000_300}, (408, "expired")),
        ({"iat": 2_700_000_000, "exp": 2_700_000_300}, (408, "expired")),
    ],
    ids=["audience", "past", "future"],
)
async def test_a_clear_header_that_does_not_fit_is_refused(
    up: Up, fleet: Fleet, header: dict[str, Any], expected: tuple[int, str]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    assert problem(await up.post(seal([worker], **header))) == expected


async def test_an_unknown_key_is_refused_as_kid_unknown(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    stranger = fleet.make("b")
    assert problem(await up.post(seal([worker, stranger]))) == (409, "kid_unknown")


async def test_a_request_id_in_flight_is_refused(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    first = asyncio.create_task(up.post(sealed))
    job = await worker.job()
    assert problem(await up.post(sealed)) == (409, "bad_envelope")
    assert problem(await up.post(sealed, "tenant-b")) == (409, "bad_envelope")
    await worker.answer(job)
    assert (await first).status_code == 200


@pytest.mark.parametrize("settings", [{"request_bytes_max": 8192}])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused_while_it_is_sent(
    up: Up, fleet: Fleet, declared: bool
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker], body=os.urandom(30_000).hex().encode())
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for at in range(0, len(sealed.envelope), 1000):
            sent += 1
            yield sealed.envelope[at : at + 1000]

    headers = up.headers(idempotency_key=b64u(sealed.header.rid))
    content = sealed.envelope if declared else body()
    response = await up.http.post("/v1/sealed", content=content, headers=headers)
    assert problem(response) == (413, "too_large")
    assert "expected at most" in response.json()["detail"]
    assert up.gateway.spool.held == 0


@pytest.mark.parametrize("settings", [{"header_deadline_s": 0.2}])
async def test_an_envelope_header_that_does_not_come_is_refused(up: Up) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"AHQ1"
        await asyncio.sleep(1)

    response = await up.http.post("/v1/sealed", content=body(), headers=up.headers())
    assert problem(response) == (408, "bad_envelope")


@pytest.mark.parametrize("settings", [{"idle_deadline_s": 0.2}])
async def test_a_body_that_stops_is_refused(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])

    async def body() -> AsyncIterator[bytes]:
        yield sealed.envelope[:2000]
        await asyncio.sleep(1)

    headers = up.headers(idempotency_key=b64u(sealed.header.rid))
    response = await up.http.post("/v1/sealed", content=body(), headers=headers)
    assert problem(response) == (408, "bad_envelope")
    assert up.gateway.spool.held == 0


@pytest.mark.parametrize("settings", [{"header_deadline_s": 0.2}])
async def test_http_headers_that_do_not_come_close_the_connection(up: Up) -> None:
    port = httpx2.URL(up.running.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
    async with asyncio.timeout(3):
        assert await reader.read() == b""
    writer.close()


async def test_broken_http_is_answered_with_a_problem(up: Up) -> None:
    port = httpx2.URL(up.running.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    writer.close()


@pytest.mark.parametrize("settings", [{"tenant_requests_max": 2}])
async def test_a_tenant_over_its_cap_is_refused_and_others_are_not(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    waiting = [asyncio.create_task(up.post(seal([worker]))) for _ in range(2)]
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting < 2:
            await asyncio.sleep(0.01)
    refused = await up.post(seal([worker]))
    assert problem(refused) == (429, "quota")
    assert refused.headers["retry-after"] in {"1", "2", "5", "10", "30"}
    other = asyncio.create_task(up.post(seal([worker]), "tenant-b"))
    await worker.pull(3)
    for _ in range(3):
        await worker.answer(await worker.job())
    replies = await asyncio.gather(*waiting, other)
    assert [reply.status_code for reply in replies] == [200, 200, 200]


@pytest.mark.parametrize("settings", [{"tenant_bytes_max": 20_000}])
async def test_a_tenants_bytes_are_capped_while_they_are_received(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    big = seal([worker], body=os.urandom(15_000).hex().encode())
    assert problem(await up.post(big)) == (429, "quota")
    assert up.gateway.spool.held == 0


@pytest.mark.parametrize("settings", [{"queue_requests_max": 1}])
async def test_the_global_cap_answers_queue_full(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    waiting = asyncio.create_task(up.post(seal([worker])))
    async with asyncio.timeout(5):
        while not up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.01)
    assert problem(await up.post(seal([worker]), "tenant-b")) == (503, "queue_full")
    waiting.cancel()


@pytest.mark.parametrize("settings", [{"spool_memory_bytes": 1000}])
async def test_a_large_request_is_spooled_to_a_private_file_that_is_removed(
    up: Up, fleet: Fleet, deployment: Deployment
) -> None:
    (worker,) = await fleet.admit("a")
    folder = deployment.config.path("spool_dir", "spool")
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    async with asyncio.timeout(5):
        while not up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.01)
    (file,) = await asyncio.to_thread(_files, folder)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b64u(sealed.header.rid) not in file.name
    await worker.pull(1)
    job = await worker.job()
    assert job.envelope == sealed.envelope
    writer = worker.begin(job)
    async with asyncio.timeout(5):
        while await asyncio.to_thread(_files, folder):
            await asyncio.sleep(0.01)
    await worker.finish(job, writer, "")
    assert (await reply).status_code == 200


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_unknown_paths_methods_and_parameters_are_problems(up: Up) -> None:
    assert problem(await up.http.get("/v1/nothing")) == (404, "not_found")
    assert problem(await up.http.get("/v1/sealed")) == (405, "method")
    assert problem(await up.http.get("/v1/log/consistency?first=1")) == (400, "bad_request")
    letters = "/v1/log/consistency?first=a&second=2"
    assert problem(await up.http.get(letters)) == (400, "bad_request")
    assert problem(await up.http.get("/v1/log/inclusion?index=-1&size=2")) == (400, "bad_request")
    assert problem(await up.http.get("/v1/log/inclusion?index=9&size=2")) == (400, "bad_request")
    assert problem(await up.http.get("/v1/keys/zzz")) == (404, "not_found")
    assert problem(await up.http.get(f"/v1/keys/{b64u(bytes(32))}")) == (404, "not_found")
    assert problem(await up.http.get("/v1/keys?model=" + "m" * 300)) == (400, "bad_request")


async def test_health_and_readiness_say_what_is_so(up: Up, fleet: Fleet) -> None:
    assert (await up.http.get("/healthz")).json() == {"status": "ok"}
    assert problem(await up.http.get("/readyz")) == (503, "no_worker")
    await fleet.admit("a")
    assert (await up.http.get("/readyz")).json() == {"status": "ready"}


async def test_a_stopped_log_makes_the_gateway_not_ready_and_no_answer_complete(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker])))
    job = await worker.job()
    writer = worker.begin(job)
    await asyncio.to_thread(up.gateway.ledger.log.close)
    _, _, event = worker.receipt(job, writer, "")
    assert await worker.log(job, event) == {"error": "log_unavailable"}
    with pytest.raises(httpx2.RemoteProtocolError):
        await reply
    for path in ("/readyz", f"/v1/keys/{b64u(worker.bh)}"):
        assert problem(await up.http.get(path)) == (503, "no_worker")
    assert (await up.http.get("/v1/log/checkpoint")).status_code == 200


async def test_no_docs_pages_are_served(up: Up) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert problem(await up.http.get(path)) == (404, "not_found")


async def test_a_method_no_route_has_is_a_problem_of_its_own_type(up: Up) -> None:
    reply = await up.http.delete("/v1/keys")
    assert problem(reply) == (405, "method")
    assert reply.headers["allow"] == "GET"
    assert "found 'DELETE', expected GET" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({"content-type": "text/plain"}, b"x", "Content-Type: found 'text/plain', expected appl"),
        ({"content-type": ""}, b"x", "Content-Type: found '', expected"),
        ({"content-type": "\xe9" * 200}, b"x", "found '" + "?" * 48 + "…'"),
        ({"content-encoding": "br"}, b"x", "Content-Encoding: found 'br', expected none"),
        ({}, b"POST", "found the bytes 504f5354, expected it to begin with 41485131 (AHQ1)"),
        ({}, b"AHQ1\xff\xff\xff\xff", "header: found 4294967295 bytes, expected at most 8192"),
    ],
    ids=["type", "empty type", "long type", "encoding", "magic", "header size"],
)
async def test_a_refusal_says_what_was_found_and_what_was_expected(
    up: Up, headers: dict[str, str], body: bytes, said: str
) -> None:
    sent = [(k, v.encode("latin-1")) for k, v in (up.headers() | headers).items()]
    reply = await up.http.post("/v1/sealed", content=body, headers=sent)
    assert said in reply.json()["detail"]


async def test_refusals_are_counted_by_type(up: Up, observed: Observed) -> None:
    await up.http.post("/v1/sealed", content=b"x")
    await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert observed.total("anchorhold_refusals", error__type="auth") == 1
    assert observed.total("anchorhold_refusals", error__type="bad_envelope") == 1


async def test_random_bodies_are_always_refused_with_a_problem(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=64)
    sealed = seal([worker])
    envelope = sealed.envelope
    assert parse_envelope(envelope)
    bodies: list[bytes] = []

    whole = st.binary(max_size=400)
    prefixed = whole.map(lambda tail: b"AHQ1" + tail)
    with_header = st.tuples(st.integers(0, 2**32 - 1), whole).map(
        lambda pair: b"AHQ1" + pair[0].to_bytes(4, "big") + pair[1]
    )
    cut = st.integers(0, len(envelope) - 1).map(lambda at: envelope[:at])
    longer = st.binary(min_size=1, max_size=40).map(lambda tail: envelope + tail)

    @hypothesis_settings(
        max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.one_of(whole, prefixed, with_header, cut, longer))
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    rid = b64u(sealed.header.rid)
    for body in bodies:
        headers = up.headers(idempotency_key=rid)
        response = await up.http.post("/v1/sealed", content=body, headers=headers)
        status, kind = problem(response)
        assert 400 <= status < 500
        assert kind in {"bad_envelope", "too_large", "expired", "kid_unknown"}
    assert worker.got(MessageType.JOB) == 0
    assert up.gateway.spool.held == 0
