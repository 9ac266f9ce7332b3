"""Counts and lengths at each parser's own bound: one below, at, one above, ten times as much."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `fuzz` is part of no distribution

from fuzz.attack import attack
from fuzz.bound import TIMES, Bound, declared
from fuzz.bounds import BOUNDS, EXEMPT
from fuzz.target import LIMIT_MS

# Lengths below are quick to make and to read: the others wait for `make fuzz`.
SHORT = 64 * 1024


def test_every_bound_is_stretched_or_says_why_not() -> None:
    stretched = {name.removeprefix("bound ") for name in BOUNDS}
    assert stretched | set(EXEMPT) == declared()
    assert stretched.isdisjoint(EXEMPT)


@pytest.mark.xdist_group("fuzz")  # simulated vendors are made once
@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_a_bound_is_where_it_says(bound: Bound) -> None:
    """A parser raises its own errors and no other, at the bound and far beyond."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accepted = [bound.accepts(count) for count in bound.counts]
    if bound.exact:
        assert accepted == [True, True, False, False]


@pytest.mark.xdist_group("fuzz")
@pytest.mark.parametrize(
    "bound", [bound for bound in BOUNDS.values() if bound.value <= SHORT], ids=lambda b: b.name
)
def test_input_at_a_bound_costs_no_more_time_or_memory_than_any_other(bound: Bound) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = attack(bound.target(), 0, seed=1)
    assert not outcome.findings, [(one.what, one.trace) for one in outcome.findings.values()]


def test_only_examinations_of_a_whole_node_may_take_longer() -> None:
    slower = {name for name, bound in BOUNDS.items() if bound.limit_ms != LIMIT_MS}
    assert all(name.startswith(("bound verify.device.", "bound verify.ocsp.")) for name in slower)


def test_a_bound_that_is_off_by_one_is_found() -> None:
    honest = BOUNDS["bound formats.tpm.CHAIN_MAX"]
    assert [honest.accepts(count) for count in (honest.value, honest.value + 1)] == [True, False]
    assert honest.counts[-1] == TIMES * honest.value
