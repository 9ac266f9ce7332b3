"""A policy out of its time is refused in words, whatever times it names."""

from __future__ import annotations

import json
import re

import pytest
from simulators.tee import NOW, SoftwareTee

from attestation.policy import parse_policy
from client.directory import check_policy_window
from client.report import Report
from wire.errors import PolicyExpiredError


@pytest.mark.parametrize(
    ("not_before", "expires", "says"),
    [
        (1, NOW, "expired: found 20"),
        (NOW + 1, NOW + 2, "not yet in force: found 20"),
        (NOW + 1, 2**53 - 1, f"to {2**53 - 1} s after 1970"),
    ],
)
def test_both_ends_are_named(not_before: int, expires: int, says: str) -> None:
    demands = SoftwareTee().demands | {"not_before": not_before, "expires": expires}
    policy = parse_policy(json.dumps(demands).encode())
    with pytest.raises(PolicyExpiredError, match=re.escape(says)):
        check_policy_window(policy, NOW, Report())


def test_a_policy_is_in_force_from_its_first_second() -> None:
    demands = SoftwareTee().demands | {"not_before": NOW, "expires": 2**53 - 1}
    check_policy_window(parse_policy(json.dumps(demands).encode()), NOW, Report())
