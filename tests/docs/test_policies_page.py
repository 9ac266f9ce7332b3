"""docs/operate/policies.md: its policies parse and say what the page says, its commands run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from simulators.hardware_tee import SnpTee
from simulators.service import Service

from attestation.policy import Policy, parse_policy
from attestation.reasons import CODES
from attestation.rules.hardware import HardwareRule
from attestation.rules.nvidia import NvidiaRule
from attestation.rules.snp import PRODUCTS_DEFAULT
from attestation.schemes import SCHEMES
from client import cli_policy
from client.clock import wall_clock
from wire.ids import b64u

PAGES = Path(__file__).resolve().parents[2] / "docs"
PAGE = (PAGES / "operate/policies.md").read_text()
KINDS = (PAGES / "spec/evidence-kinds.md").read_text()
# Each example stands under a sentence that names its file.
BLOCK = re.compile(r"^`(\w+\.json)`:[^`]*?```json\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = dict(BLOCK.findall(PAGE))
NAMES = {
    "snp.json": "amd-sev-snp-report",
    "tdx.json": "intel-tdx-quote",
    "nitro.json": "aws-nitro-document",
}


def parsed(name: str) -> Policy:
    return parse_policy(EXAMPLES[name].encode())


def rule(name: str) -> HardwareRule:
    (only,) = parsed(name).accept
    assert isinstance(only, HardwareRule)
    return only


def test_every_json_block_is_a_policy_with_a_name() -> None:
    assert len(re.findall(r"^```json$", PAGE, re.MULTILINE)) == len(EXAMPLES)
    assert set(EXAMPLES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_accepts_hardware_of_one_kind_and_nothing_weaker(name: str) -> None:
    policy = parsed(name)
    assert rule(name).kind == NAMES[name]
    assert not rule(name).anchors.simulated
    assert not policy.allow_software
    assert not policy.allow_simulated
    assert policy.require_pq


@pytest.mark.parametrize("name", NAMES)
def test_checking_an_example_warns_of_nothing(name: str) -> None:
    policy = parsed(name)
    assert cli_policy.warnings(policy, policy.not_before) == []


def members(document: dict[str, Any]) -> set[str]:
    """Members of a rule; those of `tcb`, `platform`, `td` and `gpu` instead of the four."""
    whole = {"tcb", "platform", "td", "gpu"} & document.keys()
    return (document.keys() - whole) | {key for name in whole for key in document[name]}


@pytest.mark.parametrize("name", NAMES)
def test_every_member_of_an_example_is_explained(name: str) -> None:
    table = PAGE.split(f"`{name}`:")[1].split("```\n", 1)[1].split("\n## ")[0]
    explained = set(re.findall(r"`(?:\w+\.)?(\w+)`", table))
    document = json.loads(EXAMPLES[name])
    asked = members(document["accept"][0])
    if name == "snp.json":  # the first one explains what all share
        asked |= (document.keys() - {"freshness"}) | document["freshness"].keys()
    else:
        asked -= {"kind", "measurements", "posture"}
    assert asked - explained == set()


def test_the_page_is_right_about_milan() -> None:
    assert PRODUCTS_DEFAULT == ("Genoa", "Turin")
    assert "defaults to Genoa and Turin" in " ".join(PAGE.split())


def test_the_tdx_example_demands_all_there_is_of_its_gpu() -> None:
    demands = rule("tdx.json").gpu
    assert isinstance(demands, NvidiaRule)
    assert (demands.count, demands.rim, demands.ocsp, demands.rim_ocsp) == (1, True, True, True)


def test_every_deny_member_is_in_the_table() -> None:
    named = set(re.findall(r"`deny\.(\w+)`", PAGE))
    assert named == {"bh", "measurements", "kids", "chip_ids", "ppids", "serials", "keys"}


# ---------------------------------------------------------------- the commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's files, the examples in force now, and a worker's document as a gateway serves."""
    now = wall_clock()
    for name, text in EXAMPLES.items():
        policy: dict[str, Any] = json.loads(text)
        policy |= {"not_before": now - 60, "expires": now + 30 * 86_400}
        (tmp_path / name).write_text(json.dumps(policy, indent=2))
    service = Service()
    listed = service.add(SnpTee("one", now))
    with service.serve() as running:
        answer = httpx2.get(f"{running.url}/v1/keys/{b64u(listed.bh)}")
    (tmp_path / "worker-1.json").write_bytes(answer.content)
    return tmp_path


def script() -> list[str]:
    """The lines of the page that work on a policy's file, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if "anchorhold policy" in line and "release.corim" not in line]


def test_the_commands_of_the_page_run(folder: Path) -> None:
    program = shutil.which("anchorhold", path=str(Path(sys.executable).parent))
    assert program is not None
    lines = script()
    assert {line.split("anchorhold policy ")[1].split()[0] for line in lines} == {
        "check", "explain", "simulate", "keygen", "sign",
    }  # fmt: skip
    # A worker of another measurement: refused with reasons, which is what simulate is for.
    shell = [f"{line} || test $? = 3" if " simulate " in line else line for line in lines]
    run = subprocess.run(
        ["/bin/bash", "-c", "\n".join(["set -e", *shell])],
        cwd=folder,
        env={"PATH": f"{Path(program).parent}:/usr/bin:/bin", "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "0 of 1 accepted" in run.stdout
    assert (folder / "snp.signed.json").is_file()


# ---------------------------------------------------------------- the specification of the kinds


def test_every_kind_of_hardware_has_its_section() -> None:
    headings = "\n".join(re.findall(r"^## .*$", KINDS, re.MULTILINE))
    assert {kind for kind in SCHEMES if f"`{kind}`" not in headings} == set()


@pytest.mark.parametrize("kind", SCHEMES)
def test_every_role_and_every_member_of_a_rule_is_specified(kind: str) -> None:
    scheme = SCHEMES[kind]
    names = {*scheme.evidence[0], *scheme.evidence[1], *scheme.collateral}
    names |= {*scheme.rule_keys[0], *scheme.rule_keys[1]}
    for name in sorted(names):
        # One name stands for those of all banks, and for all of a numbered series.
        told = re.sub(r"_\d+$", "", re.sub(r"_sha\d+$", "_BANK", name))
        assert re.search(rf"\b{told}\b", KINDS), name


def test_the_kinds_page_names_no_code_that_does_not_exist() -> None:
    tables = [line for line in KINDS.splitlines() if line.startswith("|")]
    columns = [line.rstrip("| ").rpartition(" | ")[2] for line in tables]
    only_codes = [cell for cell in columns if re.fullmatch(r"(`[a-z_]+`[,;]? ?)+", cell)]
    assert len(only_codes) > 100
    named = {code for cell in only_codes for code in re.findall(r"`([a-z_]+)`", cell)}
    assert named - set(CODES) == set()
