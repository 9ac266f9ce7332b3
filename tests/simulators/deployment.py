"""A gateway with its files in a folder, a tenant with a key, and a client that seals by hand.

Real server on loopback, real Unix socket, real log; only workers are played by the test
(`simulators.worker_peer`). Used by gateway tests and by anything that wants a gateway without a
worker process.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from simulators.tee import SERVICE_POLICY, SoftwareTee, Tee
from simulators.worker_peer import WorkerPeer

from attestation.policy import Policy, parse_policy
from evidence.events import parse_event
from gateway.clock import Clock
from gateway.config import GatewayConfig
from gateway.exporters import metric_points
from gateway.main import initialise
from gateway.runtime import Gateway
from gateway.server import Running, running
from gateway.telemetry import Telemetry
from tenancy.key_table import load_table, save_table
from wire.envelope import SealedRequest, seal_request
from wire.header import RequestHeader
from wire.ids import b64u
from wire.problems import parse_problem
from wire.response import ResponseReader
from wire.wraps import CONTENT_TYPE as WRAPS_TYPE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import pytest

    from gateway.journal import Event
    from wire.records import Record
    from wire.wraps import Candidate

AUD = "gateway.test"
HEAD = {"m": "POST", "p": "/v1/chat/completions", "h": {}}
REQUEST_TYPE = "application/vnd.anchorhold.request"
WAIT_S = 15.0
# The gateway speaks plain HTTP here: a context that knows no authority takes no time to make.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def now() -> int:
    return time.time_ns() // 1_000_000_000


class Deployment:
    """Files and settings of one gateway; `up()` runs it, again after a stop if wanted.

    Attributes:
        anchors: what policies must pin.
        keys: API key text by tenant.
        tees: the workers the admission policy accepts share one root and one measurement.
        ahead: seconds by which the gateway's clock is ahead of ours, from now on.
        workers: all that were made for it; they go when the gateway has gone.
    """

    def __init__(self, kind: type[Tee] = SoftwareTee, **settings: Any) -> None:
        # Unix socket paths are short: pytest's own folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="ah-"))
        self.kind = kind
        self.ahead = 0
        self.tee = kind("pattern", now(), AUD)
        self.keys: dict[str, str] = {}
        self.workers: list[WorkerPeer] = []
        policy = self.folder / "admission.json"
        policy.write_text(json.dumps(self.tee.demands))
        deny = self.folder / "deny.txt"
        deny.write_text("")
        self.config = GatewayConfig(
            **{
                "aud": AUD,
                "state_dir": self.folder / "state",
                "admission_policy_file": policy,
                "deny_file": deny,
                "port": 0,
                "settle_s": 0.0,
                "lease_s": 60,  # a busy machine stops for seconds, and must lose nobody by it
                "shutdown_s": 0,
                **settings,
            }
        )
        self.anchors = initialise(self.config)
        for tenant in ("tenant-a", "tenant-b"):
            self.mint(tenant)

    @property
    def socket(self) -> Path:
        return self.config.path("worker_socket", "worker.sock")

    @property
    def table(self) -> Path:
        return self.config.path("key_table_file", "keys.json")

    def mint(self, tenant: str, *, life_s: int = 3600, at: int | None = None) -> str:
        created = now() if at is None else at
        table, text, _ = load_table(self.table).create(
            tenant, ["infer"], "test", created, life_s, os.urandom
        )
        save_table(table, self.table)
        self.keys[tenant] = text
        return text

    def worker(self, name: str, **options: Any) -> WorkerPeer:
        made = WorkerPeer(self.kind(name, self.tee.now, AUD), self.socket, **options)
        self.workers.append(made)
        return made

    def client_policy(self, **changes: Any) -> Policy:
        """A tenant's policy that pins this deployment."""
        members = {"directory": self.anchors["directory"], "log": self.anchors["log"]}
        return parse_policy(json.dumps({**self.tee.demands, **members, **changes}).encode())

    @asynccontextmanager
    async def up(self, telemetry: Telemetry | None = None) -> AsyncIterator[Up]:
        clock = Clock(wall=lambda: now() + self.ahead)
        gateway = await asyncio.to_thread(
            Gateway.open, self.config, telemetry=telemetry, clock=clock
        )
        try:
            async with (
                running(self.config, gateway) as served,
                httpx2.AsyncClient(base_url=served.url, timeout=30, verify=NO_TLS) as http,
            ):
                yield Up(self, served, http)
        finally:
            await asyncio.gather(*(worker.drop() for worker in self.workers))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Up:
    """A running gateway and a client of it."""

    deployment: Deployment
    running: Running
    http: httpx2.AsyncClient
    replies: list[httpx2.Response] = field(default_factory=list)

    @property
    def gateway(self) -> Gateway:
        return self.running.gateway

    def headers(self, tenant: str = "tenant-a", **changes: str) -> dict[str, str]:
        honest = {
            "authorization": f"Bearer {self.deployment.keys[tenant]}",
            "content-type": REQUEST_TYPE,
        }
        return {**honest, **{name.replace("_", "-"): value for name, value in changes.items()}}

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of all logged events of a type."""
        log = self.gateway.ledger.log
        parsed = [parse_event((await log.entry(i)).event) for i in range(log.size)]
        return [dict(event.body) for event in parsed if event.type == kind]

    async def post(
        self, sealed: SealedRequest, tenant: str = "tenant-a", **headers: str
    ) -> httpx2.Response:
        """Send an envelope and read the whole answer."""
        rid = {"idempotency_key": b64u(sealed.header.rid), **headers}
        return await self.http.post(
            "/v1/sealed", content=sealed.envelope, headers=self.headers(tenant, **rid)
        )

    def begin(
        self, sealed: SealedRequest, tenant: str = "tenant-a"
    ) -> asyncio.Task[httpx2.Response]:
        """Send an envelope, and go on meanwhile."""
        return asyncio.create_task(self.post(sealed, tenant))

    async def idle(self) -> None:
        """Wait until nothing is in flight and nothing is spooled."""
        async with asyncio.timeout(WAIT_S):
            while len(self.gateway.dispatcher) or self.gateway.spool.held:
                await asyncio.sleep(0.01)

    async def write_policy(self, **changes: Any) -> None:
        """Replace the admission policy's file by one that differs in these members."""
        document = {**self.deployment.tee.demands, "seq": 2, **changes}
        path = self.deployment.config.admission_policy_file
        await asyncio.to_thread(path.write_text, json.dumps(document))

    async def demand(self, **changes: Any) -> None:
        """Do that, and have the gateway look at once."""
        await self.write_policy(**changes)
        await self.gateway.look()

    def stream(self, sealed: SealedRequest, tenant: str = "tenant-a") -> Any:
        """Send an envelope; the answer's bytes can be read as they come."""
        headers = self.headers(tenant, idempotency_key=b64u(sealed.header.rid))
        return self.http.stream("POST", "/v1/sealed", content=sealed.envelope, headers=headers)

    async def post_wraps(
        self, sealed: SealedRequest, wraps: bytes, tenant: str = "tenant-a"
    ) -> httpx2.Response:
        rid = b64u(sealed.header.rid)
        headers = self.headers(tenant, content_type=WRAPS_TYPE, idempotency_key=rid)
        return await self.http.post(f"/v1/sealed/{rid}/wraps", content=wraps, headers=headers)


class Observed:
    """Telemetry that a test can read."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.telemetry = Telemetry(self.spans, [self.reader], immediate=True)

    def points(self, name: str) -> list[dict[str, Any]]:
        data = self.reader.get_metrics_data()
        return [p for p in metric_points(data) if p["metric"] == name] if data else []

    def total(self, name: str, **attributes: Any) -> int:
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        points = [p for p in self.points(name) if wanted.items() <= p["attributes"].items()]
        return sum(p.get("value", p.get("count", 0)) for p in points)


class Fleet:
    """Workers of one test, dropped at its end."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.workers: list[WorkerPeer] = []

    def make(self, name: str, **options: Any) -> WorkerPeer:
        worker = self.deployment.worker(name, **options)
        self.workers.append(worker)
        return worker

    async def admit(self, *names: str, pull: int = 0) -> list[WorkerPeer]:
        found = [self.make(name) for name in names]
        for worker in found:
            await worker.admitted()
            if pull:
                await worker.pull(pull)
        return found


def seal(
    candidates: Sequence[Candidate | WorkerPeer], body: bytes = b'{"model":"m"}', **header: Any
) -> SealedRequest:
    """Seal a request to workers."""
    iat = now()
    members: dict[str, Any] = {
        "rid": os.urandom(16),
        "aud": AUD,
        "op": "chat",
        "model": "m",
        "policy": SERVICE_POLICY,
        "iat": iat,
        "exp": iat + 300,
        "out": 256,
        "pad": "off",
    }
    keys = [item.candidate() if isinstance(item, WorkerPeer) else item for item in candidates]
    return seal_request(RequestHeader(**{**members, **header}), keys, HEAD, body, os.urandom)


def read(sealed: SealedRequest, data: bytes) -> tuple[ResponseReader, list[Record]]:
    """Open a sealed response as far as it goes."""
    reader = ResponseReader(sealed.th, sealed.header.rid, sealed.keys, sealed.R, sealed.kids)
    return reader, reader.feed(data)


async def answered(
    sealed: SealedRequest, worker: WorkerPeer, reply: asyncio.Task[httpx2.Response]
) -> None:
    """The worker answers, and the client can read it to its end."""
    await worker.answer(await worker.job())
    response = await reply
    assert response.status_code == 200
    reader, _ = read(sealed, response.content)
    reader.finish()
    assert reader.kid == worker.kid


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes by itself."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


def written(caplog: pytest.LogCaptureFixture, event: Event) -> list[Any]:
    """Lines of the gateway's journal about an event."""
    return [one for one in caplog.records if getattr(one, "anchorhold_event", None) is event]


def problem(response: httpx2.Response) -> tuple[int, str]:
    """Status and last word of a problem's type; anything else is no problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    found = parse_problem(response.status_code, "application/problem+json", response.content)
    kind = found.type or str(response.json()["type"])
    return response.status_code, kind.rsplit(":", 1)[-1]
