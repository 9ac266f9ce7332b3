"""What strangers may have vendors asked: a share, of which each process leaves another some."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from simulators.asked_vendor import CHAIN, LIST, NO_SUCH, NOW, World, chip

from attestation.collateral.entry import Entry, Piece
from attestation.collateral_key import AMD_KDS, INTEL_PCS, ocsp, rim, tcb_info
from gateway import allowance
from gateway.allowance import Allowance
from gateway.asker import Asker, peer_of
from gateway.questions import Held
from wire.errors import UnavailableError

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey
    from gateway.questions import AskedFor


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


def test_the_process_at_the_other_end_is_the_kernels_word() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        assert peer_of(near) == os.getpid()
    assert peer_of(None) == 0
    with socket.socket(socket.AF_INET) as other:
        assert peer_of(other) == 0
