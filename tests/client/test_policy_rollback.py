"""A signed policy that was replaced stays signed; a client does not go back to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tee import SoftwareTee

from client.highest import FOLDER, Highest

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "http://127.0.0.1:9"


class Tenant:
    """Writes and signs policies; `verify` says what a client makes of one."""

    def __init__(self, run: Any, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.public = self.new_key("policy.key")

    def new_key(self, name: str) -> str:
        code, public, _ = self.run("policy", "keygen", self.folder / name)
        assert code == 0
        return str(public.strip())

    def sign(self, name: str, key: str = "policy.key", **changes: Any) -> Path:
        plain, signed = self.folder / "plain.json", self.folder / f"{name}.json"
        document = {**SoftwareTee().demands, "expires": 2**33, **changes}
        plain.write_text(json.dumps(document))
        words = ("--key", self.folder / key, "--out", signed, "--force")
        assert self.run("policy", "sign", plain, *words)[0] == 0
        return signed

    def refusal(self, policy: Path, public: str = "", state: str = "state") -> str:
        """Why the policy is refused before anything is asked; "" if it is not."""
        code, out, err = self.run(
            "verify", NOWHERE, "--policy", policy, "--policy-key", public or self.public,
            "--state-dir", self.folder / state,
        )  # fmt: skip
        if out:
            return ""  # the checks began
        assert code == 4
        return " ".join(err.split())


@pytest.fixture
def tenant(run: Any, tmp_path: Path) -> Tenant:
    return Tenant(run, tmp_path)


def test_an_older_signed_policy_is_refused_once_a_newer_was_in_force(tenant: Tenant) -> None:
    old, new = tenant.sign("old", seq=4), tenant.sign("new", seq=5)
    assert tenant.refusal(old) == ""
    assert tenant.refusal(new) == ""
    assert tenant.refusal(new) == ""
    found = tenant.refusal(old)
    assert "found seq 4, expected at least 5" in found
    assert "hint: take the newer file" in found


def test_other_demands_under_the_same_number_are_refused(tenant: Tenant) -> None:
    assert tenant.refusal(tenant.sign("one", seq=4)) == ""
    changed = tenant.sign("two", seq=4, min_workers=2)
    assert "found other demands under seq 4" in tenant.refusal(changed)


@pytest.mark.parametrize("changes", [{"id": "other"}, {"not_before": 2**32}])
def test_a_policy_of_another_name_or_of_the_future_stands_against_none(
    tenant: Tenant, changes: dict[str, Any]
) -> None:
    assert tenant.refusal(tenant.sign("other", seq=9, **changes)) == ""
    assert tenant.refusal(tenant.sign("old", seq=4)) == ""


def test_another_tenants_key_has_a_memory_of_its_own(tenant: Tenant) -> None:
    assert tenant.refusal(tenant.sign("new", seq=5)) == ""
    public = tenant.new_key("other.key")
    assert tenant.refusal(tenant.sign("old", "other.key", seq=4), public) == ""


def test_what_only_looks_at_a_policy_remembers_and_refuses_nothing(
    tenant: Tenant, run: Any
) -> None:
    old, new = tenant.sign("old", seq=4), tenant.sign("new", seq=5)
    for policy in (new, old):
        for action in ("check", "explain"):
            assert run("policy", action, policy, "--policy-key", tenant.public)[0] == 0
    assert tenant.refusal(old) == ""


@pytest.mark.parametrize("content", [b"", b"{}", b'{"digest":"","name":"x","number":1,"v":1}'])
def test_a_memory_that_was_damaged_is_no_memory_to_go_on_with(
    tenant: Tenant, content: bytes
) -> None:
    policy = tenant.sign("new", seq=5)
    assert tenant.refusal(policy) == ""
    (path,) = (tenant.folder / "state" / FOLDER).glob("*.json")
    path.write_bytes(content)
    found = tenant.refusal(policy)
    assert "found no record of this name" in found
    assert "restore the file, or delete it" in found


def test_a_state_folder_that_cannot_be_written_is_said(tenant: Tenant) -> None:
    (tenant.folder / "file").write_bytes(b"")
    found = tenant.refusal(tenant.sign("new", seq=5), state="file")
    assert "Not a directory" in found
    assert "--state-dir" in found


def test_a_number_only_rises(tmp_path: Path) -> None:
    memory = Highest(tmp_path)
    assert memory.admit("a", 3, "x") is None
    assert memory.admit("a", 3, "x") is None
    for number, digest in ((2, "x"), (3, "y"), (0, "")):
        mark = memory.admit("a", number, digest)
        assert (mark is not None and mark.number, mark and mark.digest) == (3, "x")
    assert memory.admit("b", 1) is None
    assert memory.admit("a", 4, "y") is None
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / FOLDER).iterdir())
