"""How long collateral counts: as long as its vendor says, and no longer than the policy allows."""

from __future__ import annotations

from simulators.kept_collateral import DCAP, NOW, World, missing
from simulators.vendor_collateral import DAY_S
from simulators.vendor_services import Fault


def test_the_first_end_is_that_of_the_shortest_lived_entry(world: World) -> None:
    assert world.resolve(*world.needs).expires == NOW + 3600
    assert world.resolve(DCAP).expires == NOW + DAY_S
    assert world.resolve().expires is None


def test_an_ended_entry_is_fetched_again_and_offline_never_used(world: World) -> None:
    world.resolve(DCAP)
    later = NOW + DAY_S
    offline = world.resolve(DCAP, now=later, offline=True)
    assert missing(offline) == ["collateral_expired"]
    assert not offline.roles
    asked = len(world.served.asked)
    assert not world.resolve(DCAP, now=later).missing
    assert len(world.served.asked) == asked + 4


def test_one_second_before_its_end_it_counts(world: World) -> None:
    world.resolve(DCAP)
    assert not world.resolve(DCAP, now=NOW + DAY_S - 1, offline=True).missing


def test_a_service_that_is_down_is_no_reason_to_use_an_ended_entry(world: World) -> None:
    world.resolve(DCAP)
    world.served.faults[""] = Fault("status")
    found = world.resolve(DCAP, now=NOW + DAY_S)
    assert missing(found) == ["collateral_unavailable"]
    assert not found.roles
    assert not found.complete


def test_a_shorter_life_is_renewed_in_its_own_last_quarter(world: World) -> None:
    found = world.resolve(DCAP, max_age_s=400)
    assert (found.due, found.expires) == (NOW + 300, NOW + 400)


def test_in_the_last_quarter_of_the_policys_age_an_entry_is_fetched_again(world: World) -> None:
    world.resolve(*world.needs)
    asked = len(world.served.asked)
    assert not world.resolve(*world.needs, now=NOW + 44, max_age_s=60).missing
    assert len(world.served.asked) == asked
    renewed = world.resolve(*world.needs, now=NOW + 45, max_age_s=60)
    assert not renewed.missing
    assert len(world.served.asked) == 2 * asked
    assert renewed.expires == NOW + 105


def test_offline_an_entry_as_old_as_the_policy_allows_has_ended(world: World) -> None:
    world.resolve(DCAP)
    assert not world.resolve(DCAP, now=NOW + 59, offline=True, max_age_s=60).missing
    found = world.resolve(DCAP, now=NOW + 60, offline=True, max_age_s=60)
    assert missing(found) == ["collateral_expired"]
    assert not found.roles
    assert not found.complete
    assert "fetched 60 s ago, expected less than 60 s" in found.missing[0].detail


def test_a_service_that_is_down_is_no_reason_to_use_an_entry_past_the_policys_age(
    world: World,
) -> None:
    world.resolve(DCAP)
    world.served.faults[""] = Fault("status")
    assert not world.resolve(DCAP, now=NOW + 59, max_age_s=60).missing
    found = world.resolve(DCAP, now=NOW + 60, max_age_s=60)
    assert missing(found) == ["collateral_unavailable"]
    assert not found.roles


def test_a_greatest_age_never_lengthens_an_entrys_own_life(world: World) -> None:
    world.resolve(DCAP)
    long = 30 * DAY_S
    assert world.resolve(DCAP, offline=True, max_age_s=long).expires == NOW + DAY_S
    ended = world.resolve(DCAP, now=NOW + DAY_S, offline=True, max_age_s=long)
    assert missing(ended) == ["collateral_expired"]
    assert "ended 0 s ago" in ended.missing[0].detail


def test_a_chain_above_a_certificate_is_as_old_as_the_policy_allows_too(world: World) -> None:
    need = world.needs[1]  # a chip's certificate, which is checked under the product's chain
    world.resolve(need)
    asked = len(world.served.asked)
    world.resolve(need, now=NOW + 60, max_age_s=60)
    assert len(world.served.asked) == asked + 2
