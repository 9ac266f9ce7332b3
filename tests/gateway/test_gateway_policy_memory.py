"""What a gateway remembers of policies that were in force: no older file, no other demands."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tee import SoftwareTee
from simulators.unwritable import disk_error, disk_fault

from attestation.collateral.unkept import Cause
from attestation.policy import Policy, parse_policy
from gateway.policy_memory import IDS_MAX, PolicyMemory
from wire.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Fault = Callable[[Path, int], AbstractContextManager[None]]

CAUSES = {
    errno.ENOSPC: Cause.FULL,
    errno.EIO: Cause.FAILING,
    errno.EMFILE: Cause.EXHAUSTED,
    errno.EACCES: Cause.REFUSED,
}


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
        PolicyMemory(memory.path).admit(policy(8))
    assert memory.path.read_bytes() == raw


@pytest.mark.parametrize("fault", [disk_error, disk_fault])
@pytest.mark.parametrize("number", CAUSES, ids=errno.errorcode.get)
def test_a_newer_policy_is_taken_though_it_cannot_be_remembered(
    tmp_path: Path, fault: Fault, number: int
) -> None:
    told: list[Cause | None] = []
    memory = PolicyMemory(tmp_path / "policies.json", told.append)
    memory.admit(policy(7))
    with fault(tmp_path, number):
        memory.admit(policy(8))
        memory.admit(policy(8))
        with pytest.raises(PolicyError, match="found seq 7, expected at least 8"):
            memory.admit(policy(7))
        with pytest.raises(PolicyError, match="other demands under seq 8"):
            memory.admit(policy(8, k=1))
        memory.admit(policy(9))
        memory.settle()
        assert told == [CAUSES[number]]
    with pytest.raises(PolicyError, match="found seq 8, expected at least 9"):
        memory.admit(policy(8))
    memory.settle()
    assert told == [CAUSES[number], None]
    with pytest.raises(PolicyError, match="found seq 8, expected at least 9"):
        PolicyMemory(memory.path).admit(policy(8))


def test_a_newer_policy_is_taken_beside_a_damaged_memory_which_is_not_written_over(
    tmp_path: Path,
) -> None:
    told: list[Cause | None] = []
    memory = PolicyMemory(tmp_path / "policies.json", told.append)
    memory.admit(policy(7))
    whole = memory.path.read_bytes()
    memory.path.write_bytes(b"damaged")
    memory.admit(policy(8))
    with pytest.raises(PolicyError, match="expected at least 8"):
        memory.admit(policy(7))
    memory.settle()
    assert memory.path.read_bytes() == b"damaged"
    assert told == [Cause.DAMAGED]
    memory.path.write_bytes(whole)
    memory.settle()
    assert told == [Cause.DAMAGED, None]
    with pytest.raises(PolicyError, match="expected at least 8"):
        PolicyMemory(memory.path).admit(policy(7))


@pytest.mark.parametrize("fault", [disk_error, disk_fault])
def test_at_a_start_it_must_be_read_and_written(tmp_path: Path, fault: Fault) -> None:
    """Nobody could tell what was in force before, or would know of this one after."""
    path = tmp_path / "policies.json"
    PolicyMemory(path).admit(policy(7))
    with fault(tmp_path, errno.EIO), pytest.raises(ConfigError, match="policy memory"):
        PolicyMemory(path).admit(policy(8))


@pytest.mark.parametrize("older", [False, True], ids=["gone", "older"])
def test_what_was_in_force_is_known_though_the_file_is_gone_or_put_back(
    tmp_path: Path, older: bool
) -> None:
    """A folder that is not mounted, or a copy of it that is restored, revokes no revocation."""
    memory = PolicyMemory(tmp_path / "policies.json")
    memory.admit(policy(7))
    before = memory.path.read_bytes()
    memory.admit(policy(9))
    memory.path.unlink()
    if older:
        memory.path.write_bytes(before)
    with pytest.raises(PolicyError, match="found seq 8, expected at least 9"):
        memory.admit(policy(8))
    with pytest.raises(PolicyError, match="other demands under seq 9"):
        memory.admit(policy(9, k=1))
    memory.admit(policy(9))
    memory.admit(policy(1, "other"))  # whatever is written says all that is known
    with pytest.raises(PolicyError, match="expected at least 9"):
        PolicyMemory(memory.path).admit(policy(8))


def test_a_start_knows_no_more_than_the_file_says(tmp_path: Path) -> None:
    memory = PolicyMemory(tmp_path / "policies.json")
    memory.admit(policy(9))
    memory.path.unlink()
    PolicyMemory(memory.path).admit(policy(8))
    with pytest.raises(PolicyError, match="expected at least 9"):
        memory.admit(policy(8))


def test_what_could_not_be_written_does_not_lower_what_another_wrote(tmp_path: Path) -> None:
    memory = PolicyMemory(tmp_path / "policies.json")
    memory.admit(policy(7))
    with disk_error(tmp_path, errno.ENOSPC):
        memory.admit(policy(8))
    PolicyMemory(memory.path).admit(policy(9))
    memory.settle()
    with pytest.raises(PolicyError, match="expected at least 9"):
        PolicyMemory(memory.path).admit(policy(8))
