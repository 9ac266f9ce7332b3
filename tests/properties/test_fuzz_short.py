"""Every fuzz target, shortly: our errors only, in time and memory. The long form: `make fuzz`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `fuzz` is part of no distribution

from fuzz.attack import CORPUS, attack, variant
from fuzz.draws import Draws
from fuzz.mutators import SIZE_MAX, mutate
from fuzz.target import LIMIT_MS, Target
from fuzz.targets import TARGETS

COUNT = 300
# An examination verifies up to nine signatures an input: fewer of them for the same time.
EXAMINED = 80


@pytest.mark.xdist_group("fuzz")  # simulated vendors are made once
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_mutated_input_meets_our_errors_only_in_bounded_time_and_memory(target: Target) -> None:
    whole = target.name.startswith(("examine", "resigned"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = attack(target, EXAMINED if whole else COUNT, seed=20_260_101)
    assert not outcome.findings, [
        (found.what, found.times, found.trace) for found in outcome.findings.values()
    ]


def test_the_same_seed_makes_the_same_inputs() -> None:
    seeds = TARGETS["policy"].seeds()
    first, again = (
        [variant(seeds, (), Draws(number)).roles for number in range(50)] for _ in range(2)
    )
    assert first == again
    assert len({row[""] for row in first}) > 40


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"-----BEGIN", bytes(3000)])
def test_mutation_ends_whatever_it_is_given_and_grows_within_its_bound(data: bytes) -> None:
    draws = Draws(7)
    for _ in range(400):
        assert len(mutate(data, [data], [b"word"], draws)) <= SIZE_MAX


def test_a_target_that_lets_another_error_through_is_found() -> None:
    def careless(roles: object, context: object) -> bool:
        raise KeyError(roles, context)

    policy = TARGETS["policy"]
    target = Target("careless", policy.seeds, careless, (ValueError,))
    (what,) = attack(target, 3, 1).findings
    assert what.startswith("KeyError at tests/properties/test_fuzz_short.py:")


def test_kept_inputs_belong_to_targets_that_exist() -> None:
    names = {name.replace(" ", "-") for name in TARGETS}
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= names


def test_only_the_list_of_a_whole_node_may_take_longer() -> None:
    slower = {name for name, target in TARGETS.items() if target.limit_ms != LIMIT_MS}
    assert slower == {"examine nvidia-gpu-spdm-list"}
