"""Every example that a command's help shows can be typed: it parses, and what needs no deployment
runs."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from simulators.corim import CorimPublisher, digest, element, environment
from simulators.service import Service
from simulators.tee import SoftwareTee

from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
from attestation.collateral_key import parse_key
from client.api import Client
from client.clock import wall_clock
from ops.cli import build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNS = ("policy check", "policy explain", "policy keygen", "policy sign", "policy simulate",
        "policy values", "collateral list", "collateral export", "conformance wire")  # fmt: skip


def helps(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield " ".join(path), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from helps(child, (*path, name))


HELPS = dict(helps(build_parser()))


def examples(name: str) -> list[str]:
    """The command lines of a help, without what a shell or a reader makes of their ends."""
    text = (HELPS[name].epilog or "").partition("examples:\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines()]
    typed = [re.split(r" [<>] |  ", line)[0] for line in lines]
    return [line for line in typed if line.startswith("anchorhold ")]


@pytest.mark.parametrize("name", HELPS)
def test_every_help_fits_a_terminal_and_its_examples_parse(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert all(len(line) <= 80 for line in HELPS[name].format_help().splitlines())
    assert examples(name)
    for line in examples(name):
        words = shlex.split(line)[1:]
        assert callable(build_parser().parse_args(words).run)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    service = Service()
    service.add()
    (tmp_path / "receipts").mkdir()
    with service.serve() as server:
        where = (server.url, service.api_key)
        with Client(*where, policy=service.policy(), state_dir=tmp_path / "client") as client:
            receipt = client.chat([{"role": "user", "content": "hi"}], "m").receipt
    for name in ("worker-1.json", "worker-2.json", "receipts/one.json", "receipt.json"):
        receipt.save(tmp_path / name)
    demands = {**SoftwareTee().demands, "expires": 2**33}
    for name in ("policy.json", "next.json"):
        (tmp_path / name).write_text(json.dumps(demands))
    publisher = CorimPublisher()
    publisher.reference(environment(vendor="acme"), element("firmware", {2: [[1, digest("fw")]]}))
    (tmp_path / "release.corim").write_bytes(publisher.signed())
    (tmp_path / "module.comid").write_bytes(publisher.unsigned())
    (tmp_path / "publisher.jwk").write_bytes(publisher.public_key)
    vectors = {"schema": "anchorhold-wire-vectors/1", "vectors": []}
    (tmp_path / "vectors.json").write_text(json.dumps(vectors))
    store, now = Store(tmp_path / "state" / "anchorhold" / "collateral"), wall_clock()
    entry = make_entry(parse_key("intel-pcs:qe/tdx"), Piece(b"x"), Checked(), now)
    store.put(entry, now)
    return tmp_path


def test_every_example_that_needs_no_deployment_runs(folder: Path, run: Any) -> None:
    ran = 0
    for name in RUNS:
        for line in examples(name):
            if not line.startswith(f"anchorhold {name}") or "/var/lib" in line:
                continue
            (folder / "bundle.json").unlink(missing_ok=True)
            words = [
                found
                for word in shlex.split(line)[1:]
                for found in (map(str, folder.glob(word)) if "*" in word else [word])
            ]
            code, _, err = run(*words)
            # Verdicts may be bad ones: the files are of other deployments.
            assert code in (0, 2, 3), f"{line}: {err}"
            ran += 1
    assert ran > len(RUNS)
