"""What the gateway starts and walks away from: it is heard when it fails, and settled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from simulators.deployment import Up, problem, seal

from gateway.clock import Clock
from gateway.journal import Event
from gateway.main import EXIT_DEFECT, EXIT_OK, until_ended
from gateway.runtime import Gateway
from gateway.server import running
from gateway.tasks import Tasks
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Deployment, Fleet


class Broken(frozenset[bytes]):
    """A set that cannot be asked."""

    def __contains__(self, _: object) -> bool:
        raise RuntimeError


def written(caplog: pytest.LogCaptureFixture, event: Event) -> list[Any]:
    """Records of one event."""
    return [one for one in caplog.records if getattr(one, "anchorhold_event", None) is event]


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError


async def test_a_failed_task_is_heard_once_and_a_cancelled_one_not_at_all() -> None:
    tasks, heard = Tasks(), list[BaseException]()
    tasks.start(fail(), heard.append)
    tasks.start(asyncio.Event().wait(), heard.append)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert [type(error) for error in heard] == [ValueError]
    await tasks.cancel()
    await asyncio.sleep(0.01)
    assert len(heard) == 1


async def test_a_part_that_fails_ends_the_gateway_and_the_log_is_closed(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    broken = asyncio.Event()

    def wall() -> int:
        if broken.is_set():
            raise OverflowError
        return deployment.tee.now

    gateway = await asyncio.to_thread(Gateway.open, deployment.config, clock=Clock(wall=wall))
    async with (
        running(deployment.config, gateway) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as http,
    ):
        worker = deployment.worker("a")
        await worker.admitted()
        assert (await http.get("/readyz")).status_code == 200
        waiting = asyncio.create_task(until_ended(gateway, asyncio.Event()))
        broken.set()
        gateway.directory.changed()
        assert await asyncio.wait_for(waiting, 5) == EXIT_DEFECT
        broken.clear()
        assert (await http.get("/readyz")).status_code == 503
        await worker.drop()
    (record,) = written(caplog, Event.FAILED)
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is OverflowError
    assert gateway.ledger.log.stopped is not None
    async with deployment.up() as again:  # the files are free
        assert (await again.http.get("/healthz")).status_code == 200


async def test_a_gateway_that_is_told_to_stop_ends_without_a_complaint(up: Up) -> None:
    stop = asyncio.Event()
    stop.set()
    assert await until_ended(up.gateway, stop) == EXIT_OK


async def test_an_admission_that_fails_ends_that_connection_at_once(
    up: Up, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    (admitted,) = await fleet.admit("a", pull=1)
    honest, up.gateway.deny.value = up.gateway.deny.value, Broken()
    stranger = fleet.make("b")
    await stranger.connect()
    await stranger.hello()
    await stranger.closed(within_s=3)
    assert stranger.got(MessageType.ADMITTED) + stranger.got(MessageType.REFUSED) == 0
    assert written(caplog, Event.INTERNAL)[0].exc_info[0] is RuntimeError
    up.gateway.deny.value = honest
    reply = asyncio.create_task(up.post(seal([admitted])))
    await admitted.answer(await admitted.job())
    assert (await reply).status_code == 200


@pytest.mark.parametrize("settings", [{"spool_memory_bytes": 0}])
async def test_a_request_the_disk_has_garbled_is_answered_and_its_worker_goes_on(
    up: Up, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await fleet.admit("a", "b", pull=1)
    sealed = seal([first])
    reply = asyncio.create_task(up.post(sealed))
    await first.job()
    await first.drop()
    assert problem(await reply) == (409, "rewrap_needed")
    (spooled,) = up.gateway.config.path("spool_dir", "spool").iterdir()
    await asyncio.to_thread(spooled.write_bytes, b"garbled")
    again = await up.post_wraps(sealed, sealed.rewrap([second.candidate()]))
    assert problem(again) == (500, "internal")
    assert written(caplog, Event.INTERNAL)
    # Its credit is not lost with the request.
    reply = asyncio.create_task(up.post(seal([second])))
    await second.answer(await second.job())
    assert (await reply).status_code == 200
    assert not up.gateway.spool.held
