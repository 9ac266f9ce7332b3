"""What a gateway remembers of policies that were in force: no older file, no other demands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tee import SoftwareTee

from attestation.policy import Policy, parse_policy
from gateway.policy_memory import IDS_MAX, PolicyMemory
from wire.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    from pathlib import Path


def policy(seq: int, name: str = "stage", **changes: Any) -> Policy:
    document = {**SoftwareTee().demands, "id": name, "seq": seq, **changes}
    return parse_policy(json.dumps(document).encode())


@pytest.fixture
def memory(tmp_path: Path) -> PolicyMemory:
    return PolicyMemory(tmp_path / "state" / "policies.json")


def test_a_lower_number_is_refused_and_the_same_is_taken_again(memory: PolicyMemory) -> None:
    memory.admit(policy(7))
    memory.admit(policy(7))
    with pytest.raises(PolicyError, match="found seq 6, expected at least 7"):
        PolicyMemory(memory.path).admit(policy(6))
    memory.admit(policy(8))
    with pytest.raises(PolicyError, match="expected at least 8"):
        memory.admit(policy(7))


def test_other_demands_under_the_same_number_are_refused(memory: PolicyMemory) -> None:
    memory.admit(policy(7))
    with pytest.raises(PolicyError, match="other demands under seq 7"):
        memory.admit(policy(7, k=1))
    memory.admit(policy(8, k=1))


def test_numbers_are_remembered_for_each_name_and_for_few_names(memory: PolicyMemory) -> None:
    for number in range(IDS_MAX):
        memory.admit(policy(IDS_MAX - number, f"stage-{number}"))
    with pytest.raises(PolicyError, match=f"more than {IDS_MAX} ids"):
        memory.admit(policy(1, "one more"))
    with pytest.raises(PolicyError, match=f"expected at least {IDS_MAX}"):
        memory.admit(policy(1, "stage-0"))


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"stage":{"seq":1}}', b'{"stage":{"seq":1,"digest":"x"}}', b"x" * 70_000],
)
def test_a_memory_that_cannot_be_read_forgets_nothing(memory: PolicyMemory, raw: bytes) -> None:
    memory.admit(policy(7))
    memory.path.write_bytes(raw)
    with pytest.raises(ConfigError, match="policy memory"):
        memory.admit(policy(8))
    assert memory.path.read_bytes() == raw
