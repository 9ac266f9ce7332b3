"""Collateral as quote verifiers exchange it: nine members, and a tenth that is never read."""

from __future__ import annotations

import json

import pytest
from simulators.intel import Intel

from attestation.formats.intel_collateral import parse_collateral
from attestation.schemes.tdx import SCHEME
from wire.errors import MalformedError


@pytest.mark.parametrize("value", ["", "-----BEGIN", None, 7])
def test_a_certificate_chain_beside_the_nine_members_is_not_read(value: object) -> None:
    intel = Intel()
    members = {**intel.members(), "pck_certificate_chain": value}
    alone = SCHEME.examine(intel.question())
    beside = SCHEME.examine(intel.question(collateral=json.dumps(members).encode()))
    assert beside.authentic is True
    assert (beside.claims, beside.reasons) == (alone.claims, alone.reasons)


def test_any_other_member_is_refused() -> None:
    members = {**Intel().members(), "pck_certificate": ""}
    with pytest.raises(MalformedError, match="unknown key"):
        parse_collateral({"collateral": json.dumps(members).encode()})
