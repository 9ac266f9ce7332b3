"""`policy check` names whatever in a rule is laxer than docs/operate/policies.md's examples."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attestation.policy import parse_policy
from client.policy_weaknesses import weaknesses
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "policies.md"
BLOCK = re.compile(r"^`(\w+\.json)`:[^`]*?```json\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = {name: json.loads(text) for name, text in BLOCK.findall(PAGE.read_text())}
# Every word by which a member says that something is not asked or passes all the same.
LAX = ("any", "as_supplied", "not_checked", "accept", "unavailable", "vlek", "ppcie", "unstated",
       "OutOfDate", "INTEL-SA-00001")  # fmt: skip
# Changes that accept no more: without the member another demand says the same, or more than it.
AS_STRICT = {
    ("smt",): "the default refuses it",
    ("tee",): "a floor of 0 is none",
    ("fmspc_allow",): "ppid_allow names the machines themselves",
    ("pcr1",): "PCR 0 is of the whole image",
    ("pcr2",): "PCR 0 is of the whole image",
}
# What is the holder's to choose, so that no choice is laxer than another one.
CHOSEN = {
    ("gpu",): "whether GPUs are used",
    ("seccomp",): "which controls there must be, if there is one",
    ("landlock_fs",): "which controls there must be, if there is one",
}
# Their items are names that somebody else gives: any word is just another one.
NAMES = {"driver_in", "vbios_in", "models", "deny_advisories"}


def changes(name: str, found: Any) -> Iterator[Any]:
    """Values that say less than one that is there."""
    if isinstance(found, bool):
        yield not found
    elif isinstance(found, int):
        yield from (0, "any")
    elif isinstance(found, str):
        yield from LAX
    elif isinstance(found, list):
        yield from LAX
        if name not in NAMES:
            yield from ([*found, word] for word in LAX)
            yield from ([word] for word in LAX)
        yield from (found[:at] + found[at + 1 :] for at in range(len(found)))
    elif isinstance(found, dict):
        yield from ({}, "any")


def places(obj: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in obj if isinstance(obj, dict) else range(len(obj)) if isinstance(obj, list) else ():
        yield from places(obj[key], (*path, key))


def laxer(document: dict[str, Any], path: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """The document without what stands in a place, and with less in it."""

    def parent_of(whole: Any) -> Any:
        for key in path[:-1]:
            whole = whole[key]
        return whole

    if isinstance(path[-1], str):
        whole = copy.deepcopy(document)
        del parent_of(whole)[path[-1]]
        yield whole
    for value in changes(str(path[-1]), parent_of(document)[path[-1]]):
        whole = copy.deepcopy(document)
        parent_of(whole)[path[-1]] = value
        yield whole


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_laxer_than_an_example_is_said(name: str) -> None:
    document = EXAMPLES[name]
    (rule,) = parse_policy(json.dumps(document).encode()).accept
    unsaid = set()
    for path in places(document["accept"][0], ("accept", 0)):
        if path[2:] and path[-1:] not in {**AS_STRICT, **CHOSEN} and path[-2] not in NAMES:
            for other in laxer(document, path):
                try:
                    policy = parse_policy(json.dumps(other).encode())
                except PolicyError:
                    continue
                if policy.accept != (rule,) and not weaknesses(policy):
                    unsaid.add(path[2:])
    assert unsaid == set()
