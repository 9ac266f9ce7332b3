"""How long the gateway uses what vendors said: never longer than the policy in force allows."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import SnpTee
from simulators.vendor_services import Answer, Fault, VendorServices

from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence_collateral import judged_kinds
from attestation.policy import parse_policy
from client.collateral import OwnCollateral
from gateway.appraiser import Appraiser
from gateway.asker import Asker
from gateway.clock import Clock
from gateway.collateral import THREADS, CollateralSource
from gateway.found import NONE_COLLECTED
from gateway.questions import Questions
from wire.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.evidence import Evidence
    from attestation.policy import Policy

CERT = "endorsement_cert"


class World:
    """A worker, its vendor's service, and a gateway's source of collateral."""

    def __init__(self, folder: Path, served: VendorServices) -> None:
        self.tee = SnpTee()
        self.served = served
        self.tee.serve(served)
        self.evidence = [self.tee.evidence(self.tee.binding())]
        self.appraiser = Appraiser(self.policy(60))
        self.now = self.tee.now
        self.folder = folder / "cache"
        self.missing: list[str] = []

    def policy(self, max_age_s: int) -> Policy:
        self.tee.demands["freshness"] = {"collateral_max_age_s": max_age_s}
        return parse_policy(json.dumps(self.tee.demands).encode())

    @contextmanager
    def source(self, *, fetch: bool = True) -> Iterator[CollateralSource]:
        services = self.served.services()
        vendors = Vendors(services, secrets.token_bytes, self.tee.amd.anchors)
        found = CollateralSource(
            Store(self.folder),
            lambda: vendors,
            HttpFetcher(services, pause=lambda _: None) if fetch else None,
            Clock(wall=lambda: self.now),
            lambda: self.appraiser.policy.collateral_max_age_s,
            lambda kinds: judged_kinds(self.appraiser.policy, kinds),
            self.missing.append,
            Questions(lambda: float(self.now), 15, 60),
        )
        try:
            yield found
        finally:
            found.close()

    def another(self, name: str) -> list[Evidence]:
        """Evidence of a chip that nobody knows, the service neither."""
        tee = SnpTee(name)
        return [tee.evidence(tee.binding())]

    def chips_asked(self) -> int:
        """Questions about chips."""
        return sum(
            path.startswith("/vcek/v1/Genoa/") and "?" in path for _, path, _ in self.served.asked
        )

    async def roles(self, source: CollateralSource) -> set[str]:
        return set((await source.collect(self.evidence, Asker(1))).roles[self.tee.kind])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with VendorServices() as served:
        yield World(tmp_path, served)


async def test_what_the_policy_calls_old_is_fetched_again(world: World) -> None:
    with world.source() as source:
        assert CERT in await world.roles(source)
        asked = len(world.served.asked)
        world.now += 44
        assert CERT in await world.roles(source)
        assert len(world.served.asked) == asked
        world.now += 16
        assert CERT in await world.roles(source)
        assert len(world.served.asked) > asked


async def test_what_the_policy_calls_old_is_not_there_offline(world: World) -> None:
    with world.source() as source:
        await world.roles(source)
    with world.source(fetch=False) as offline:
        world.now += 59
        assert CERT in await world.roles(offline)
        world.now += 1
        assert await world.roles(offline) == set()


async def test_a_policy_put_in_force_counts_at_once_memory_or_not(world: World) -> None:
    world.appraiser.policy = world.policy(3600)
    with world.source() as source:
        await world.roles(source)
        asked = len(world.served.asked)
        world.now += 10
        assert CERT in await world.roles(source)
        world.appraiser.policy = world.policy(5)
        assert CERT in await world.roles(source)
        assert len(world.served.asked) == 2 * asked


async def test_a_clients_own_folder_is_under_its_policys_age_too(world: World) -> None:
    with world.source() as source:
        await world.roles(source)
    own = OwnCollateral(world.folder, world.appraiser.policy)
    kind, now = world.tee.kind, world.tee.now
    assert CERT in own.find(world.evidence, now + 59)[kind]
    assert not own.find(world.evidence, now + 60)[kind]
    patient = OwnCollateral(world.folder, world.policy(3600))
    assert CERT in patient.find(world.evidence, now + 60)[kind]


async def test_what_was_found_is_not_put_together_again_for_a_moment(world: World) -> None:
    world.appraiser.policy = world.policy(3600)
    with world.source() as source:
        await world.roles(source)
        kind, found = world.tee.kind, await source.collect(world.evidence, Asker(1))
        world.now += 29
        again = await source.collect(world.evidence, Asker(2))
        assert again.pieces[kind] is found.pieces[kind]
        world.now += 1
        again = await source.collect(world.evidence, Asker(3))
        assert again.pieces[kind] is not found.pieces[kind]


async def test_what_was_found_is_gone_with_what_the_cache_had(world: World) -> None:
    world.appraiser.policy = world.policy(3600)
    with world.source() as source:
        await world.roles(source)
        assert CERT in await world.roles(source)
        for path in (world.folder / "entries").iterdir():
            path.unlink()
        world.served.faults[""] = Fault("status", status=404)
        assert await world.roles(source) == set()


async def test_what_was_found_counts_no_longer_than_the_first_of_its_entries(world: World) -> None:
    world.appraiser.policy = world.policy(20)
    with world.source() as source:
        await world.roles(source)
        world.served.faults[""] = Fault("status", status=404)
        world.now += 19
        assert CERT in await world.roles(source)
        world.now += 1
        assert await world.roles(source) == set()


async def test_what_is_not_whole_is_not_remembered(world: World) -> None:
    world.served.faults["/vcek/v1/Genoa/crl"] = Fault("status", status=404)
    with world.source() as source:
        assert "crl" not in await world.roles(source)
        assert len(source._memory) == 0
        world.served.faults.clear()
        world.now += 15
        assert "crl" in await world.roles(source)
        assert len(source._memory) == 1


async def test_what_nears_its_end_is_renewed_for_admitted_workers_and_for_no_stranger(
    world: World,
) -> None:
    """Whoever comes anew needs only what is in force, and must not wait for a slow vendor."""
    with world.source() as source:
        await world.roles(source)
        asked = len(world.served.asked)
        world.now += 50  # of 60: the last quarter
        assert CERT in await world.roles(source)
        assert len(world.served.asked) == asked
        world.now += 5
        source._memory = type(source._memory)()
        await source.refresh(world.evidence, NONE_COLLECTED)
        assert len(world.served.asked) == 2 * asked


async def test_nothing_is_looked_for_again_while_the_cache_has_what_it_had(world: World) -> None:
    world.appraiser.policy = world.policy(86_400)
    with world.source() as source:
        held = await source.collect(world.evidence, Asker(1))
        held = await source.refresh(world.evidence, held)  # once more: it was fetched just now
        world.now += 20_000
        assert await source.refresh(world.evidence, held) is held
        world.appraiser.policy = world.policy(80_000)
        shorter = await source.refresh(world.evidence, held)
        assert shorter is not held
        assert shorter.digest == held.digest


async def test_what_another_process_puts_into_the_cache_counts_at_once(world: World) -> None:
    world.appraiser.policy = world.policy(86_400)
    with world.source() as source, world.source() as other:
        await source.collect(world.evidence, Asker(1))
        held = await source.refresh(world.evidence, NONE_COLLECTED)
        world.now += 10
        revoking = world.tee.amd.crl([4711])
        world.served.answers["/vcek/v1/Genoa/crl"] = Answer(revoking)
        for path in await asyncio.to_thread(list, (world.folder / "entries").iterdir()):
            path.unlink()
        await other.collect(world.evidence, Asker(2))
        found = await source.refresh(world.evidence, held)
        assert found.roles[world.tee.kind]["crl"] == revoking != held.roles[world.tee.kind]["crl"]


async def test_what_was_held_is_renewed_in_the_last_quarter_of_its_time(world: World) -> None:
    with world.source() as source:
        await source.collect(world.evidence, Asker(1))
        held = await source.refresh(world.evidence, NONE_COLLECTED)
        asked = len(world.served.asked)
        world.now += 44
        assert await source.refresh(world.evidence, held) is held
        world.now += 1
        renewed = await source.refresh(world.evidence, held)
        assert renewed is not held
        assert len(world.served.asked) == 2 * asked


async def test_what_is_missing_is_asked_for_again_and_offline_is_waited_for(world: World) -> None:
    world.appraiser.policy = world.policy(86_400)
    world.served.faults["/vcek/v1/Genoa/crl"] = Fault("status", status=404)
    with world.source() as source, world.source(fetch=False) as offline:
        held = await source.refresh(world.evidence, NONE_COLLECTED)
        alone = await offline.refresh(world.evidence, NONE_COLLECTED)
        assert "crl" not in held.roles[world.tee.kind]
        assert "crl" not in alone.roles[world.tee.kind]
        world.now += 30
        assert await offline.refresh(world.evidence, alone) is alone
        world.served.faults.clear()
        assert "crl" in (await source.refresh(world.evidence, held)).roles[world.tee.kind]
        assert "crl" in (await offline.refresh(world.evidence, alone)).roles[world.tee.kind]


async def test_a_cache_that_cannot_be_read_any_more_is_told_whatever_was_held(
    world: World,
) -> None:
    with world.source() as source:
        await source.collect(world.evidence, Asker(1))
        held = await source.refresh(world.evidence, NONE_COLLECTED)
        entries = world.folder / "entries"
        entries.rename(world.folder / "away")
        entries.write_text("no folder")
        world.served.faults[""] = Fault("status", status=404)
        with pytest.raises(UnavailableError, match="cannot be used"):
            await source.refresh(world.evidence, held)


async def test_a_cache_that_cannot_be_read_any_more_keeps_no_vendors_word_out(
    world: World,
) -> None:
    with world.source() as source:
        await source.collect(world.evidence, Asker(1))
        held = await source.refresh(world.evidence, NONE_COLLECTED)
        entries = world.folder / "entries"
        entries.rename(world.folder / "away")
        entries.write_text("no folder")
        world.tee.crl = {"start": -60}
        world.tee.serve(world.served)
        found = (await source.refresh(world.evidence, held)).roles[world.tee.kind]
        assert set(found) == set(held.roles[world.tee.kind])
        assert found["crl"] != held.roles[world.tee.kind]["crl"]
        # By now it is in memory, and nobody is asked.
        world.served.faults[""] = Fault("status", status=404)
        assert (await source.refresh(world.evidence, NONE_COLLECTED)).roles[world.tee.kind] == found


async def test_a_vendor_is_asked_a_bounded_number_of_times_about_chips_that_do_not_exist(
    world: World,
) -> None:
    with world.source() as source:
        source.questions = Questions(lambda: float(world.now), 15, 2)
        await world.roles(source)
        world.appraiser.policy = world.policy(30)
        for number in range(20):
            await source.collect(world.another(f"flood {number}"), Asker(100 + number, 7))
        assert world.chips_asked() - 1 == 4  # of six; the first was the worker's own
        # That worker comes back although its pieces have ended, and so does its process's link.
        world.now += 30
        assert CERT in await world.roles(source)
        # A worker nobody knew, of another process, is let through too.
        late = SnpTee("late")
        late.serve(world.served)
        found = await source.collect([late.evidence(late.binding())], Asker(999, 8))
        assert CERT in found.roles[late.kind]


async def test_a_worker_whose_pieces_are_in_the_cache_waits_for_nobody_who_fetches(
    world: World,
) -> None:
    with world.source() as source:
        await world.roles(source)
        world.now += 40  # memory is over, the cache holds
        gate = asyncio.Event()

        async def stuck() -> None:
            await gate.wait()

        strangers = [
            asyncio.create_task(source._turns.run(Asker(number, number), stuck))
            for number in range(THREADS + 5)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert CERT in await world.roles(source)
            renewed = await source.refresh(world.evidence, NONE_COLLECTED)
            assert CERT in renewed.roles[world.tee.kind]
        waiting = asyncio.create_task(source.collect(world.another("new"), Asker(500, 500)))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        gate.set()
        await asyncio.gather(waiting, *strangers)


async def test_a_question_that_failed_is_not_put_again_by_the_next_link(world: World) -> None:
    world.served.faults[""] = Fault("status", status=404)
    with world.source() as source:
        await world.roles(source)
        asked = len(world.served.asked)
        for link in range(5):
            await source.collect(world.evidence, Asker(link, link))
        assert len(world.served.asked) == asked
        assert world.missing.count("collateral_unavailable") == len(world.missing)
