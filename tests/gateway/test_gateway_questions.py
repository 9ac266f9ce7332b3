"""What vendors are asked: a failure is remembered, and silence respected."""

from __future__ import annotations

import pytest
from simulators.asked_vendor import CHAIN, LIST, NO_SUCH, NOW, SILENCE, World, chip

from attestation.collateral_key import (
    AMD_KDS,
    qe_identity,
)
from gateway import breaker, questions
from gateway.breaker import OPEN_S, SILENT_MAX, Breaker
from gateway.questions import Held
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError


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


def test_the_limits_are_what_their_reasons_say() -> None:
    assert breaker.OPEN_S <= 60  # a vendor that is back is noticed within a sweep
