"""What a carried piece is checked with: a kept chain that is in force, and no older one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.kept_collateral import NOW, VCEK, World
from simulators.vendor_collateral import DAY_S

from attestation.collateral.bundle import Carried, admit_bundle
from attestation.collateral_key import named
from attestation.scheme import Need

if TYPE_CHECKING:
    from attestation.collateral.entry import Piece

CHAIN_ENDS = NOW + 30 * DAY_S  # fetched from AMD at NOW


def imported(world: World, piece: Piece, now: int) -> list[str]:
    """Reason codes of one chip's certificate, carried to where the chain is kept."""
    carried = [Carried(VCEK, piece, NOW)]
    _, refused = admit_bundle(carried, world.vendors(), world.store, now, lambda _: None)
    return [item.code for item in refused]


@pytest.mark.parametrize(
    ("now", "codes"), [(CHAIN_ENDS - 1, []), (CHAIN_ENDS, ["collateral_missing"])]
)
def test_a_kept_chain_vouches_for_what_is_carried_until_its_last_second(
    world: World, now: int, codes: list[str]
) -> None:
    """A chain that AMD has replaced may be one whose key leaked."""
    world.resolve(Need("endorsement_cert", *named(VCEK)))
    kept = world.store.get(VCEK, NOW)
    assert kept is not None
    assert imported(world, kept.piece, now) == codes
