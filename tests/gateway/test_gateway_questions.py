"""What vendors are asked: a failure is remembered, silence respected, strangers held to a share."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from attestation.collateral.entry import Entry, Piece
from attestation.collateral.fetcher import DeclinedError
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.services import Services
from attestation.collateral.store import Store
from attestation.collateral_key import (
    AMD_KDS,
    INTEL_PCS,
    amd,
    ocsp,
    qe_identity,
    rim,
    tcb_info,
    vcek,
)
from gateway import allowance, breaker, questions
from gateway.allowance import Allowance
from gateway.asker import Asker, peer_of
from gateway.breaker import OPEN_S, SILENT_MAX, Breaker
from gateway.questions import Held, Questions, Watcher
from gateway.turns import Turns
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.collateral.fetcher import Fetcher
    from attestation.collateral_key import CollateralKey
    from gateway.questions import AskedFor

NOW = 1_700_000_000
LIST = amd("crl", "vcek", "Genoa")
CHAIN = amd("chain", "vcek", "Genoa")
SILENCE = UnavailableError("nothing came")
NO_SUCH = DeclinedError("status 404")


def chip(number: int) -> CollateralKey:
    """A name that evidence can make up."""
    return vcek("Genoa", number.to_bytes(64, "big"), (10, 0, 23, 84))


class Vendor:
    """Answers with an entry, or with what `says` holds for the key or for all."""

    def __init__(self) -> None:
        self.says: dict[CollateralKey | None, Exception] = {}
        self.asked: list[CollateralKey] = []

    def fetch(
        self, key: CollateralKey, fetcher: Fetcher, now: int, chain: Piece | None = None
    ) -> Entry:
        del fetcher, chain
        self.asked.append(key)
        error = self.says.get(key) or self.says.get(None)
        if error is not None:
            raise error
        return Entry(key, Piece(b"x"), now, now + 1000)


class World:
    """A vendor, a cache and a clock that the test sets."""

    def __init__(self, folder: Path, fetcher: HttpFetcher, per_minute: int = 20) -> None:
        self.at = 1000.0
        self.vendor, self.store, self.fetcher = Vendor(), Store(folder / "cache"), fetcher
        self.held: list[Held] = []
        self.turned: list[tuple[str, bool]] = []
        self.failed: list[BaseException] = []
        watcher = Watcher(
            held=lambda _, why: self.held.append(why),
            silent=lambda source, silent: self.turned.append((source, silent)),
            failed=self.failed.append,
        )
        self.questions = Questions(lambda: self.at, 15, per_minute, watcher)
        self.sweep = self.asker(None)
        self.link = self.asker(Asker(1, 1))

    def asker(self, asker: Asker | None) -> AskedFor:
        return self.questions.of(self.vendor, self.store, asker)

    def ask(self, key: CollateralKey, asker: AskedFor | None = None) -> Exception | None:
        """What asking came to; None for an entry."""
        try:
            (asker or self.sweep).fetch(key, self.fetcher, NOW)
        except (AttestationError, MalformedError, UnavailableError) as error:
            return error
        return None

    def silence(self, times: int = SILENT_MAX, first: int = 0) -> None:
        """The vendor leaves questions unanswered, each about another piece."""
        self.vendor.says[None] = SILENCE
        for number in range(first, first + times):
            assert self.ask(chip(number)) is SILENCE


def test_what_a_vendor_says_that_finds_our_mistake_is_refused_told_and_remembered(
    world: World,
) -> None:
    mistake = ValueError("could not convert")
    world.vendor.says[LIST] = mistake
    assert isinstance(world.ask(LIST), MalformedError)
    assert isinstance(world.ask(LIST), MalformedError)
    assert world.failed == [mistake]
    assert world.vendor.asked == [LIST]


def test_a_mistake_of_ours_is_no_silence_of_the_vendors(world: World) -> None:
    world.vendor.says[None] = ValueError("could not convert")
    for number in range(SILENT_MAX + 1):
        assert isinstance(world.ask(chip(number)), MalformedError)
    assert len(world.vendor.asked) == SILENT_MAX + 1
    assert world.turned == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with HttpFetcher(Services()) as fetcher:  # never called: `Vendor` answers
        yield World(tmp_path, fetcher)


# ---------------------------------------------------------------- one piece


@pytest.mark.parametrize(
    "error",
    [
        SILENCE,
        NO_SUCH,
        MalformedError("no list"),
        AttestationError("an old one", reasons=("collateral_rollback",)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_failed_is_not_asked_again_for_a_moment_and_fails_likewise(
    world: World, error: Exception
) -> None:
    world.vendor.says[LIST] = error
    first = world.ask(LIST)
    world.at += 14.9
    second = world.ask(LIST)
    assert first is error
    assert world.vendor.asked == [LIST]
    assert world.held == [Held.REMEMBERED]
    assert second is not first  # one raised twice would keep alive all that led to it
    assert isinstance(second, UnavailableError) == isinstance(first, UnavailableError)
    assert str(second) == str(first)
    assert getattr(second, "reasons", None) == getattr(first, "reasons", None)


def test_after_that_moment_it_is_asked_again_and_may_be_had(world: World) -> None:
    world.vendor.says[LIST] = NO_SUCH
    world.ask(LIST)
    world.vendor.says.clear()
    world.at += 15
    assert world.ask(LIST) is None
    assert world.ask(LIST) is None
    assert world.vendor.asked == [LIST] * 3


def test_a_failure_says_nothing_of_another_piece(world: World) -> None:
    world.vendor.says[LIST] = NO_SUCH
    world.ask(LIST)
    assert world.ask(CHAIN) is None


def test_failures_are_remembered_in_bounded_number(world: World) -> None:
    world.vendor.says[None] = NO_SUCH
    for number in range(questions.FAILURES_MAX + 10):
        world.ask(chip(number))
    assert len(world.questions._failed) == questions.FAILURES_MAX
    world.at += 15
    world.ask(LIST)
    assert list(world.questions._failed) == [LIST]


def test_a_piece_without_an_address_is_neither_remembered_nor_held_against_the_vendor(
    world: World,
) -> None:
    world.vendor.says[None] = ConfigError("no such issuer")
    for _ in range(SILENT_MAX + 1):
        with pytest.raises(ConfigError):
            world.sweep.fetch(LIST, world.fetcher, NOW)
    assert len(world.vendor.asked) == SILENT_MAX + 1


# ---------------------------------------------------------------- one vendor


def test_a_vendor_that_gives_no_answer_several_times_in_turn_is_left_alone(world: World) -> None:
    world.silence()
    assert world.turned == [(AMD_KDS, True)]
    world.vendor.says.clear()
    assert isinstance(world.ask(LIST), UnavailableError)
    assert world.held == [Held.SILENT]
    assert LIST not in world.vendor.asked
    assert world.ask(qe_identity("tdx")) is None  # Intel is another


def test_an_answer_in_between_starts_the_count_anew(world: World) -> None:
    world.silence(SILENT_MAX - 1)
    world.vendor.says.clear()
    world.ask(CHAIN)
    world.silence(SILENT_MAX - 1, first=100)
    assert world.turned == []
    world.silence(1, first=200)
    assert world.turned == [(AMD_KDS, True)]


def test_refusals_never_make_a_vendor_silent(world: World) -> None:
    world.vendor.says[None] = NO_SUCH
    for number in range(5 * SILENT_MAX):
        world.ask(chip(number))
    world.vendor.says.clear()
    assert world.ask(LIST) is None


def test_half_open_one_question_tries_and_its_answer_closes_it(world: World) -> None:
    world.silence()
    world.at += OPEN_S
    world.vendor.says.clear()
    assert world.ask(LIST) is None
    assert world.turned == [(AMD_KDS, True), (AMD_KDS, False)]
    assert world.ask(CHAIN) is None


def test_half_open_silence_opens_it_again_for_as_long(world: World) -> None:
    world.silence()
    world.at += OPEN_S
    assert world.ask(LIST) is SILENCE
    asked = len(world.vendor.asked)
    world.at += OPEN_S - 0.1
    assert isinstance(world.ask(CHAIN), UnavailableError)
    assert len(world.vendor.asked) == asked
    assert world.turned == [(AMD_KDS, True)]


def test_half_open_only_one_question_is_under_way() -> None:
    found = Breaker()
    for _ in range(SILENT_MAX):
        assert found.begin(0, stranger=False)
        found.end(0, answered=False, stranger=False)
    assert not found.begin(OPEN_S - 0.1, stranger=False)
    assert found.begin(OPEN_S, stranger=False)
    assert not found.begin(OPEN_S, stranger=False)
    found.end(OPEN_S, answered=None, stranger=False)  # it was not put after all
    assert found.begin(OPEN_S, stranger=False)


def test_half_open_what_a_stranger_asked_ends_nobodys_trial() -> None:
    found = Breaker()
    for _ in range(SILENT_MAX):
        found.end(0, answered=False, stranger=False)
    assert found.begin(OPEN_S, stranger=False)
    assert found.begin(OPEN_S, stranger=True)
    found.end(OPEN_S, answered=False, stranger=True)
    assert not found.begin(OPEN_S, stranger=False)


def test_names_that_strangers_make_up_cannot_cut_a_vendor_off(world: World) -> None:
    """A vendor may stall over one name, or a mirror; whoever knows it must gain nothing."""
    world.vendor.says[None] = SILENCE
    for number in range(5 * SILENT_MAX):
        assert world.ask(chip(1000 + number), world.link) is SILENCE
    assert world.turned == []
    world.silence()
    assert world.turned == [(AMD_KDS, True)]
    world.at += OPEN_S
    assert world.ask(chip(100), world.link) is SILENCE  # it is no trial
    world.vendor.says.clear()
    assert world.ask(LIST) is None


# ---------------------------------------------------------------- strangers


def unknown_pieces(world: World, asker: AskedFor, first: int, most: int = 1000) -> int:
    """How many made up names in turn are asked for."""
    world.vendor.says[None] = NO_SUCH
    asked = len(world.vendor.asked)
    for number in range(first, first + most):
        world.ask(chip(number), asker)
        if len(world.vendor.asked) == asked + number - first:
            return number - first
    return most


def test_a_link_gets_a_bounded_number_of_unknown_pieces_and_another_still_gets_some(
    world: World,
) -> None:
    burst = 20 * allowance.BURST_MINUTES
    first = unknown_pieces(world, world.link, 0)
    assert first == burst // 2
    assert world.held[-1] is Held.ALLOWANCE
    second = unknown_pieces(world, world.asker(Asker(2, 1)), 1000)
    assert second > burst // 8


def test_a_process_with_many_links_leaves_a_part_for_another_process(world: World) -> None:
    burst = 20 * allowance.BURST_MINUTES
    asked = 0
    for link in range(2 * burst):
        asked += unknown_pieces(world, world.asker(Asker(link, 1)), 1000 * link, 1)
    assert asked == burst * 3 // 4
    assert unknown_pieces(world, world.asker(Asker(9999, 2)), 10**6) >= burst // 8


def test_what_was_spent_is_forgotten_as_the_bucket_fills(world: World) -> None:
    first = unknown_pieces(world, world.link, 0)
    world.at += 30  # half a minute's worth
    assert unknown_pieces(world, world.link, 1000) == 10
    world.at += 1000
    assert unknown_pieces(world, world.link, 2000) == first
    world.at += 1000
    unknown_pieces(world, world.asker(Asker(2, 2)), 3000, 1)
    assert len(world.questions._allowance._buckets[AMD_KDS].spent) == 2  # its link and process


def test_vendors_have_a_share_each() -> None:
    found = Allowance(1)
    asker = Asker(1, 1)
    assert found.take(asker, AMD_KDS, 0)
    while found.take(asker, AMD_KDS, 0):
        pass
    assert found.take(asker, INTEL_PCS, 0)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    found = Allowance(1)
    while found.take(Asker(1, 1), AMD_KDS, 100):
        pass
    assert not found.take(Asker(1, 1), AMD_KDS, 100)
    assert not found.take(Asker(1, 1), AMD_KDS, 0)


def test_pieces_with_closed_names_cost_a_stranger_nothing(world: World) -> None:
    unknown_pieces(world, world.link, 0)
    world.vendor.says.clear()
    assert world.ask(LIST, world.link) is None
    assert world.ask(CHAIN, world.link) is None


@pytest.mark.parametrize(
    "key", [chip(7), rim("NV_GPU"), ocsp("sha384", b"n" * 48, b"k" * 48, 7)], ids=str
)
def test_a_piece_that_was_had_before_is_renewed_whatever_strangers_spent(
    world: World, key: CollateralKey
) -> None:
    for link in range(500):
        world.questions._allowance.take(Asker(link, link), key.source, world.at)
    assert isinstance(world.ask(key, world.link), UnavailableError)
    assert world.vendor.asked == []
    world.store.put(Entry(key, Piece(b"x"), NOW - 100, NOW - 50), NOW)  # long past its end
    assert world.ask(key, world.link) is None


@pytest.mark.parametrize(
    "key",
    [
        chip(7), tcb_info("tdx", bytes(5) + b"\7"), rim("NV_GPU"),
        ocsp("sha384", b"n" * 48, b"k" * 48, 7),
    ],
    ids=str,
)  # fmt: skip
def test_every_piece_whose_name_evidence_makes_up_costs_a_stranger(
    world: World, key: CollateralKey
) -> None:
    while world.questions._allowance.take(Asker(1, 1), key.source, world.at):
        pass
    assert isinstance(world.ask(key, world.link), UnavailableError)
    assert (world.held, world.vendor.asked) == ([Held.ALLOWANCE], [])
    assert world.ask(key) is None


def test_what_is_asked_for_admitted_workers_costs_nothing(world: World) -> None:
    unknown_pieces(world, world.link, 0)
    world.vendor.says.clear()
    assert world.ask(chip(5000)) is None


# ---------------------------------------------------------------- turns


class Work:
    """Things under way, each until it is let go."""

    def __init__(self, places: int) -> None:
        self.turns = Turns(places)
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}

    async def start(self, name: str, peer: int) -> None:
        gate = self.gates[name] = asyncio.Event()

        async def work() -> str:
            self.begun.append(name)
            await gate.wait()
            return name

        asker = Asker(len(self.tasks), peer)
        self.tasks[name] = asyncio.create_task(self.turns.run(asker, work))
        await self.settle()

    async def end(self, name: str) -> None:
        self.gates[name].set()
        await self.settle()

    @staticmethod
    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_process_that_takes_all_turns_leaves_one_for_another() -> None:
    work = Work(4)
    for number in range(50):
        await work.start(f"flood {number}", 1)
    assert work.begun == ["flood 0", "flood 1", "flood 2"]
    await work.start("honest", 2)
    assert work.begun[-1] == "honest"


async def test_the_next_turn_is_for_whoever_has_the_fewest_under_way() -> None:
    work = Work(2)
    await work.start("first", 1)
    await work.start("honest", 2)
    for number in range(50):
        await work.start(f"flood {number}", 1)
    await work.start("honest again", 2)
    await work.end("honest")
    assert work.begun == ["first", "honest", "honest again"]
    await work.end("honest again")
    assert work.begun == ["first", "honest", "honest again"]  # the last place is another's
    await work.end("first")
    assert work.begun[3:] == ["flood 0"]
    assert await work.tasks["honest"] == "honest"


async def test_whoever_goes_while_waiting_takes_no_turn() -> None:
    work = Work(2)
    await work.start("a", 1)
    await work.start("b", 1)
    work.tasks["b"].cancel()
    await work.settle()
    await work.end("a")
    await work.start("c", 1)
    assert work.begun == ["a", "c"]


async def test_whoever_goes_while_it_runs_keeps_its_place_until_it_has_ended() -> None:
    work = Work(2)
    await work.start("a", 1)
    work.tasks["a"].cancel()
    await work.settle()
    assert work.tasks["a"].cancelled()
    await work.start("b", 1)
    assert work.begun == ["a"]
    await work.end("a")
    assert work.begun == ["a", "b"]


async def test_a_failure_gives_the_place_back_and_is_heard() -> None:
    turns = Turns(2)

    async def fail() -> None:
        raise ConfigError("no")

    for _ in range(5):
        with pytest.raises(ConfigError):
            await turns.run(Asker(1, 1), fail)


# ---------------------------------------------------------------- who asks


def test_the_process_at_the_other_end_is_the_kernels_word() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        assert peer_of(near) == os.getpid()
    assert peer_of(None) == 0
    with socket.socket(socket.AF_INET) as other:
        assert peer_of(other) == 0


def test_the_limits_are_what_their_reasons_say() -> None:
    assert breaker.OPEN_S <= 60  # a vendor that is back is noticed within a sweep
