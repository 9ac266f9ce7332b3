"""A process of few files, strangers at its HTTP port without a credential, and who is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from simulators.deployment import AUD, NO_TLS, REQUEST_TYPE, Deployment, answered, read, seal

from gateway.descriptors import LEAST
from wire.ids import b64u

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterator

    from wire.envelope import SealedRequest

GATEWAY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv[1:] = sys.argv[2:]
from ops.cli import main; main()
"""

#: Comes often, asks for what nobody needs a credential for, reads nothing, and sits.
CROWD = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
many = min(2000, hard - 50)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asked = b"GET /v1/keys HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n" * 400
held = []
for number in range(many):
    one = socket.socket()
    one.settimeout(20)
    one.connect(("127.0.0.1", int(sys.argv[1])))
    try:
        if number % 4 == 0: one.send(asked)
        if number % 4 == 1: one.send(asked[:20])
        if number % 400 == 2: one.send(b"no http\\r\\n\\r\\n")
    except ConnectionError: pass
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment()
    yield found
    found.remove()


@asynccontextmanager
async def served(
    deployment: Deployment, most: int, said: Path
) -> AsyncIterator[tuple[Process, str]]:
    """A gateway process that may open so many files, and where it is reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "aud": AUD,
        "state_dir": "state",
        "admission_policy_file": "admission.json",
        "deny_file": "deny.txt",
        "port": port,
        "settle_s": 0,
        "lease_s": 60,
    }
    path = deployment.folder / "gateway.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    arguments = [str(most), "gateway", "--config", str(path)]
    with said.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GATEWAY, *arguments, stdout=PIPE, stderr=errors,
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield process, line.decode().split()[-1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def crowd(url: str) -> AsyncIterator[int]:
    """Strangers that hold so many connections to it, and sit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CROWD, str(httpx2.URL(url).port), stdin=PIPE, stdout=PIPE,
        stderr=DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield int(await asyncio.wait_for(process.stdout.readline(), 60))
    finally:
        await process.communicate(b"")


def files(process: Process) -> int:
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


async def test_strangers_that_come_by_the_thousand_and_sit_keep_nobody_out_and_nobody_in(
    deployment: Deployment, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def post(http: httpx2.AsyncClient, sealed: SealedRequest) -> asyncio.Task[httpx2.Response]:
        headers = {
            "authorization": f"Bearer {deployment.keys['tenant-a']}",
            "content-type": REQUEST_TYPE,
            "idempotency-key": b64u(sealed.header.rid),
        }
        return asyncio.create_task(
            http.post("/v1/sealed", content=sealed.envelope, headers=headers)
        )

    async with (
        served(deployment, LEAST, log) as (process, url),
        httpx2.AsyncClient(base_url=url, timeout=30, verify=NO_TLS) as before,
        httpx2.AsyncClient(base_url=url, timeout=30, verify=NO_TLS) as after,
    ):
        worker = deployment.worker("a")
        await worker.admitted()
        await worker.pull(2)
        early = seal([worker])
        waiting = post(before, early)
        job = await worker.job()
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                most = max(most, files(process))
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        async with crowd(url) as held:
            assert held > 2 * LEAST
            late = seal([worker])
            # Hundreds of requests wait on each of hundreds of connections, for half a minute.
            async with asyncio.timeout(10):
                for _ in range(20):
                    told = await before.post(
                        "/v1/workers/nobody/challenge",
                        headers={"authorization": f"Bearer {deployment.keys['tenant-a']}"},
                    )
                    assert told.status_code != 200
            await answered(late, worker, post(after, late))
            # What a tenant waited for all the while is given to it too.
            await worker.answer(job)
            reader, _ = read(early, (await waiting).content)
            reader.finish()
            deployment.config.deny_file.write_text(b64u(worker.bh) + "\n")
            await asyncio.wait_for(worker.closed(), 30)
        counting.cancel()
        await worker.drop()
    assert most < LEAST - 64
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if line["event"] == "foreign"] == []
    assert len(lines) < 20
