"""Collateral beside evidence is bounded in kinds, names, roles and bytes before it is read."""

from __future__ import annotations

import pytest

from attestation.carried import (
    COLLATERAL_MAX,
    PIECE_MAX,
    ROLES_MAX,
    collateral_json,
    parse_collateral,
)
from attestation.evidence import EVIDENCE_ITEMS_MAX, KIND_MAX
from wire.errors import MalformedError
from wire.ids import b64u

ROLE = {"crl": "AA"}


def test_what_is_carried_is_read_back() -> None:
    held = {"a": {"crl": b"x", "chain": b""}, "b": {}}
    assert parse_collateral(collateral_json(held)) == {"a": {"crl": b"x", "chain": b""}}


def test_kinds_names_and_roles_end_at_their_limits() -> None:
    for taken, refused in (
        (
            {f"kind {number}": ROLE for number in range(EVIDENCE_ITEMS_MAX)},
            {f"kind {number}": ROLE for number in range(EVIDENCE_ITEMS_MAX + 1)},
        ),
        ({"k" * KIND_MAX: ROLE}, {"k" * (KIND_MAX + 1): ROLE}),
        (
            {"k": {f"role {number}": "AA" for number in range(ROLES_MAX)}},
            {"k": {f"role {number}": "AA" for number in range(ROLES_MAX + 1)}},
        ),
    ):
        assert parse_collateral(taken)
        with pytest.raises(MalformedError, match="collateral: expected an object of"):
            parse_collateral(refused)


def test_bytes_end_at_their_limit_over_all_kinds_together() -> None:
    quarter = b64u(bytes(COLLATERAL_MAX // 16 * 3))
    assert 4 * len(quarter) == COLLATERAL_MAX
    whole = {kind: {"a": quarter, "b": quarter} for kind in "kl"}
    assert parse_collateral(whole)
    with pytest.raises(MalformedError, match="bytes in all"):
        parse_collateral({**whole, "m": {"a": "AA"}})
    with pytest.raises(MalformedError, match=r"collateral\.k"):
        parse_collateral({"k": {"a": b64u(bytes(PIECE_MAX + 1))}})


@pytest.mark.parametrize("obj", [None, [], "x", {"k": []}, {"k": {"a": 5}}, {"k": {"a": "AA=="}}])
def test_anything_else_is_malformed(obj: object) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(obj)
