"""What must not keep a refused worker in service, nor put an honest one out of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Deployment, Fleet, Observed, Up, now, read, seal, until, written
from simulators.hardware_tee import SnpTee
from simulators.held_log import HeldLog
from simulators.vendor_services import Fault, VendorServices

from attestation.result import AppraisedEvidence
from evidence.events import ATTEST_VERDICT
from gateway.clock import Clock
from gateway.descriptors import LEAST
from gateway.found import NONE_COLLECTED
from gateway.journal import Event
from gateway.watched import Watched
from wire.errors import ConfigError
from wire.link import HEARTBEAT, MessageType, encode, json_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from simulators.worker_peer import WorkerPeer

    from attestation.evidence import Evidence
    from gateway.found import Collected

OTHER = "sha256:" + "ab" * 32


@pytest.fixture
def machines(served: VendorServices, tmp_path: Path) -> Iterator[Deployment]:
    """Workers on hardware, whose vendors' words are old after a minute."""
    services = tmp_path / "services.toml"
    found = Deployment(SnpTee, collateral_services_file=services, reappraise_s=0.5)
    services.write_text(f'amd_kds = "{served.url}"')
    found.tee.demands["freshness"] = {"collateral_max_age_s": 60}
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


@pytest.fixture
async def hardware(machines: Deployment, observed: Observed) -> AsyncIterator[Up]:
    async with machines.up(observed.telemetry) as found:
        yield found


async def admit(up: Up, served: VendorServices, *names: str) -> list[WorkerPeer]:
    fleet = Fleet(up.deployment)
    for name in names:
        worker = fleet.make(name)
        assert isinstance(worker.tee, SnpTee)
        worker.tee.serve(served)
        await worker.admitted()
    return fleet.workers


# ---------------------------------------------------------------- slow vendors and logs


async def test_a_vendor_that_stalls_does_not_keep_a_denied_worker_in_service(
    hardware: Up, served: VendorServices
) -> None:
    bad, good = await admit(hardware, served, "bad", "good")
    served.faults[""] = Fault("slow")
    asked = len(served.asked)
    hardware.deployment.ahead = 50
    await until(lambda: len(served.asked) > asked)  # what is old is being renewed
    assert isinstance(bad.tee, SnpTee)
    deny = {"chip_ids": [bad.tee.chip.facts.chip_id.hex()]}
    await hardware.demand(deny=deny, freshness={"collateral_max_age_s": 86_400})
    await bad.closed()
    assert not hardware.gateway.registry.knows(bad.kid)
    assert hardware.gateway.registry.knows(good.kid)
    served.faults.clear()
    await asyncio.gather(bad.drop(), good.drop())


async def test_a_vendors_header_that_finds_our_mistake_ends_nothing(
    hardware: Up, served: VendorServices, caplog: pytest.LogCaptureFixture
) -> None:
    (worker,) = await admit(hardware, served, "a")

    async def mistaken(evidence: object, _held: object) -> Collected:
        raise ValueError(evidence)

    async def changed(held: Sequence[Collected]) -> list[bool]:
        return [True] * len(held)

    hardware.gateway.reappraisal.refresh = mistaken
    hardware.gateway.reappraisal.stale = changed
    assert await hardware.gateway.reappraisal.sweep() == 0
    assert written(caplog, Event.INTERNAL)
    assert hardware.gateway.registry.knows(worker.kid)
    assert not hardware.gateway.failed.is_set()
    await worker.drop()


async def test_a_log_that_is_slow_keeps_no_refused_worker_in_service(up: Up, fleet: Fleet) -> None:
    workers = await fleet.admit("a", "b", "c")
    held = HeldLog(up.gateway.ledger.log, ATTEST_VERDICT)
    up.gateway.ledger.log = held
    await up.demand(accept=[{**up.deployment.tee.rule, "measurements": [OTHER]}])
    await held.reached.wait()
    for worker in workers:
        await worker.closed()
        assert not up.gateway.registry.knows(worker.kid)
    held.gate.set()
    async with asyncio.timeout(5):
        while sum(not body["ok"] for body in await up.events(ATTEST_VERDICT)) < len(workers):
            await asyncio.sleep(0.02)


# ---------------------------------------------------------------- keys of others


def claim(worker: WorkerPeer, other: WorkerPeer) -> None:
    """Give a worker another's key, which it then lists, and opens what is sealed to it."""
    worker.tee.keys = other.tee.keys
    worker.tee.facts["kems"] = [other.tee.kem(next(iter(other.tee.keys)))]


async def test_new_keys_that_are_another_workers_are_refused_and_it_stays(
    up: Up, fleet: Fleet
) -> None:
    honest, evil = await fleet.admit("a", "evil")
    claim(evil, honest)
    await evil.new_keys(epoch=1)
    refused = (await evil.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["kid_in_use"]
    await evil.drop()
    await until(lambda: len(up.gateway.roster) == 1)
    await honest.pull(1)
    sealed = seal([honest])
    reply = asyncio.create_task(up.post(sealed))
    await honest.answer(await honest.job())
    assert read(sealed, (await reply).content)[1]


async def test_a_worker_that_lists_the_key_of_one_that_is_gone_is_refused(
    up: Up, fleet: Fleet
) -> None:
    (honest,) = await fleet.admit("a")
    await honest.drop()
    await until(lambda: len(up.gateway.roster) == 0)
    evil = fleet.make("evil")
    claim(evil, honest)
    evil.binding = evil.tee.binding()
    assert await evil.refused() == ["kid_in_use"]
    await honest.admitted()
    assert up.gateway.registry.live(honest.kid, now()) is not None


# ---------------------------------------------------------------- files


def test_a_file_that_could_not_be_read_counts_once_it_can_though_it_did_not_change(
    tmp_path: Path,
) -> None:
    """Another file, a mode or the hour may be what mends it."""
    path = tmp_path / "file"
    path.write_text("1")
    broken = False

    def load() -> str:
        if broken:
            raise ConfigError("cannot be read")
        return path.read_text()

    watched = Watched(path, load)
    path.write_text("22")
    broken = True
    with pytest.raises(ConfigError):
        asyncio.run(watched.changed())
    assert not asyncio.run(watched.changed())  # said once
    broken = False
    assert asyncio.run(watched.changed())
    assert watched.value == "22"
    assert not asyncio.run(watched.changed())


def test_a_change_that_keeps_size_and_dates_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    stamp = path.stat()
    watched = Watched(path, path.read_text)
    path.write_text("2")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert asyncio.run(watched.changed())
    assert watched.value == "2"


async def test_a_policy_that_is_not_in_force_yet_waits_for_its_hour(
    up: Up, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    (worker,) = await fleet.admit("a")
    path = up.deployment.config.admission_policy_file
    present = await asyncio.to_thread(path.read_text)
    await up.demand(not_before=now() + 86_400, expires=now() + 2 * 86_400)
    assert len(written(caplog, Event.POLICY_UNREADABLE)) == 1
    await asyncio.to_thread(path.write_text, present)
    await up.gateway.look()
    assert up.gateway.reappraisal.appraiser.policy.seq == 1
    assert up.gateway.registry.knows(worker.kid)
    begins = now() + 60
    await up.demand(not_before=begins)
    assert up.gateway.reappraisal.appraiser.policy.seq == 1
    up.deployment.ahead = 60
    await up.gateway.look()
    assert up.gateway.reappraisal.appraiser.policy.not_before == begins
    assert len(written(caplog, Event.POLICY_UNREADABLE)) == 2
    assert up.gateway.registry.knows(worker.kid)


# ---------------------------------------------------------------- keys that nobody knows


async def test_a_worker_whose_keys_are_all_past_their_end_is_ended_and_may_come_back(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    up.gateway.clock = Clock(wall=lambda: epoch.held_until)  # it jumped
    await worker.closed()
    assert not up.gateway.ready
    up.gateway.clock = Clock()
    (again,) = await fleet.admit("a")
    assert [one.bh for one in up.gateway.registry.offered(now())] == [again.bh]


async def test_a_worker_is_offered_by_known_keys_and_stays_while_it_has_some(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    first, registry = worker.bh, up.gateway.registry
    worker.tee.keys = type(worker.tee)("other", worker.tee.now).keys
    await worker.new_keys(epoch=1, kems=[worker.tee.kem(next(iter(worker.tee.keys)))])
    await worker.receive(MessageType.ADMITTED)
    assert registry.models()
    registry.forget([worker.bh])
    assert (list(registry.offered(now())), registry.models()) == ([], frozenset())
    up.gateway.roster.end_unknown()
    assert len(up.gateway.roster) == 1
    registry.forget([first])
    up.gateway.roster.end_unknown()
    assert len(up.gateway.roster) == 0
    await worker.closed()


# ---------------------------------------------------------------- strangers' connections

HOLD = """
import socket, sys
held = socket.socket(socket.AF_UNIX); held.connect(sys.argv[1])
print(len(held.recv(1)))
"""


async def test_a_process_that_takes_all_the_links_it_can_get_leaves_some(
    up: Up, fleet: Fleet
) -> None:
    await fleet.admit("a", "b")  # of this process too, and no strangers
    workers = up.gateway.workers
    workers._most = 6
    strangers = [await asyncio.open_unix_connection(up.deployment.socket) for _ in range(4)]
    await until(lambda: len(workers._links) == 4)
    answers = [await reader.read(1) for reader, _ in strangers]
    assert [len(answer) for answer in answers] == [1, 1, 0, 0]
    command = [sys.executable, "-c", HOLD, str(up.deployment.socket)]
    other = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=20)
    assert other.stdout == b"1\n"
    for _, writer in strangers:
        writer.close()


def limited(soft: int, hard: int) -> str:
    return (
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}));"
        "from gateway.descriptors import make_room, links_max; few = links_max(); make_room();"
        "print(few, r.getrlimit(r.RLIMIT_NOFILE)[0], links_max())"
    )


def run(code: str) -> tuple[int, str]:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def test_a_process_takes_the_files_it_may_have_or_says_that_they_are_too_few() -> None:
    assert run(limited(256, 4096)) == (0, "64 4096 1024\n")
    code, said = run(limited(256, LEAST - 1))
    assert code == 1
    assert f"at least {LEAST} expected, found {LEAST - 1}" in said


async def test_a_cache_that_cannot_be_read_fences_nobody_for_a_while(
    hardware: Up, served: VendorServices
) -> None:
    (worker,) = await admit(hardware, served, "a")
    served.faults[""] = Fault("status", status=404)  # nor can its vendor be asked
    gateway, at = hardware.gateway, [1000.0]
    gateway.reappraisal.clock = Clock(monotonic=lambda: at[0])

    async def unremembered(evidence: Sequence[Evidence], _held: Collected) -> Collected:
        return await gateway.collateral.refresh(evidence, NONE_COLLECTED)

    gateway.reappraisal.refresh = unremembered
    entries = gateway.collateral.store.root / "entries"
    await asyncio.to_thread(entries.rename, entries.with_name("away"))
    await asyncio.to_thread(entries.write_text, "no folder")
    for second in (0, 1, 14.9):
        at[0] = 1000.0 + second
        assert await gateway.reappraisal.sweep() == 0
    epoch = gateway.registry.epoch(worker.bh)
    assert epoch is not None
    assert isinstance(epoch.appraised, AppraisedEvidence)
    assert epoch.collateral.roles[worker.tee.kind]
    at[0] = 1015.0  # a quarter of what the policy calls old
    await gateway.reappraisal.sweep()
    assert not gateway.registry.knows(worker.kid)
    await worker.drop()


async def test_a_worker_that_asks_and_reads_no_answer_is_ended(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a", beat_s=None)
    await worker.admitted()
    assert worker._writer is not None
    transport = worker._writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    beats = encode(json_message(HEARTBEAT, {})) * 1000
    async with asyncio.timeout(30):
        while len(up.gateway.roster):
            transport.write(beats)
            await asyncio.sleep(0.01)
    await until(lambda: not up.gateway.workers._links)
    transport.abort()
