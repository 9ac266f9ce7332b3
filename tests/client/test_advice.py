"""Every refusal says what to do next, also where nobody thought of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.service import Service

from client.advice import hint_of
from client.cli_verify import lines
from client.report import Verification
from wire import errors
from wire.errors import AnchorholdError, DirectoryError

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, AnchorholdError)
]


def bare(kind: type[AnchorholdError]) -> AnchorholdError:
    """An error of this kind that says nothing of its own."""
    error = kind.__new__(kind)
    AnchorholdError.__init__(error, "found one thing, expected another")
    return error


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_hint(kind: type[AnchorholdError]) -> None:
    assert 20 < len(hint_of(bare(kind))) < 80


def test_an_errors_own_hint_comes_first() -> None:
    assert hint_of(DirectoryError("no", hint="do this")) == "do this"


def test_a_verification_that_failed_has_a_hint_in_words_and_as_json() -> None:
    found = Verification("http://x", "p", (), (), "", DirectoryError("no"), None)
    hint = found.to_json()["error"]["hint"]
    assert "until its operator has explained it" in hint
    assert f"hint: {hint}" in lines(found)


def test_a_receipt_that_is_none_says_what_to_name(run: Any, tmp_path: Path) -> None:
    policy, receipt = tmp_path / "policy.json", tmp_path / "receipt.json"
    policy.write_bytes(Service().policy())
    receipt.write_bytes(bytes(range(256)))
    code, out, _ = run("receipt", "verify", receipt, "--policy", policy)
    assert code == 4
    assert "hint: name a file that" in out
    _, out, _ = run("receipt", "verify", receipt, "--policy", policy, "--json")
    assert "name a file that" in json.loads(out)["hint"]
