"""An answer runs again to the same bits; what differs in one fact is told apart."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.bundles import bundled
from simulators.exchange import NOW
from simulators.models import tiny_llama
from simulators.replayable import Replayable

from client.cli import execute
from client.opening import Opening, parse_opening
from client.report import Report, exit_code
from enclave_worker.engine.ops.library import supported
from ops.cli import build_parser
from ops.replay import STEPS, Replay
from wire.errors import AnchorholdError, ConfigError

pytestmark = pytest.mark.skipif(not supported(), reason="no compiled kernels, so no determinism")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("replayed") / "tiny", hidden=64)


@pytest.fixture(scope="module")
def sampled(folder: Path) -> Replayable:
    """Sampled without a seed of the caller's."""
    return Replayable(folder, "bfloat16", temperature=1.0, ignore_eos=True)


@pytest.fixture(scope="module")
def scored(folder: Path) -> Replayable:
    """Two answers, with log-probabilities."""
    wanted: dict[str, Any] = {"n": 2, "logprobs": True, "top_logprobs": 2, "seed": 7}
    return Replayable(folder, "bfloat16", **wanted)


def replayed(
    made: Replayable,
    folder: Path,
    receipt: bytes | None = None,
    opening: Opening | None = None,
    changes: dict[str, Any] | None = None,
) -> tuple[int, str, str]:
    """Exit code, the step that failed, and what it said."""
    exchange = made.exchange(**(changes or {}))
    raw = made.receipt(**(changes or {})) if receipt is None else receipt
    report = Report()
    replay = Replay(raw, opening or made.opening, folder, report)
    try:
        replay.run(exchange.policy, NOW, lambda _: None)
    except AnchorholdError as error:
        assert not report.checks[-1].ok
        return exit_code(error), report.checks[-1].step, error.message
    assert [check.step for check in report.checks] == list(STEPS)
    return 0, "", report.checks[-1].detail


def test_an_answer_sampled_without_a_seed_runs_again_to_the_same_bits(
    sampled: Replayable, folder: Path
) -> None:
    assert sampled.changes["par"]["seed"] is not None
    assert replayed(sampled, folder) == (0, "", "text, finish, token counts")


def test_a_greedy_answer_needs_no_seed(folder: Path) -> None:
    made = Replayable(folder, "bfloat16", temperature=0, stream=True, stop=["zz"], top_k=5)
    assert made.changes["par"]["seed"] is None
    assert replayed(made, folder)[0] == 0


def test_an_answer_that_a_grammar_shaped_runs_again_to_the_same_bits(folder: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    made = Replayable(folder, "bfloat16", temperature=1.5, response_format=form)
    assert made.changes["par"]["grammar"] == "json_schema"
    assert replayed(made, folder)[0] == 0


def test_several_answers_and_their_log_probabilities_run_again_to_the_same_bits(
    scored: Replayable, folder: Path
) -> None:
    assert len(set(scored.texts)) == 2
    code, _, detail = replayed(scored, folder)
    assert (code, detail) == (0, "text, finish, token counts, log-probabilities")


def test_int8_weights_run_again_to_the_same_bits(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from simulators.llamas import quantise_folder

    target = tmp_path_factory.mktemp("int8") / "tiny"
    quantise_folder(folder, target)
    for dtype in ("w8a8", "w8a16"):
        assert replayed(Replayable(target, dtype, temperature=0.9), target)[0] == 0


def test_another_text_than_the_model_gave_is_found(sampled: Replayable, folder: Path) -> None:
    text = sampled.texts[0]
    receipt, opening = sampled.lying(text[:-1] + ("a" if text[-1] != "a" else "b"))
    code, step, said = replayed(sampled, folder, receipt, opening)
    assert (code, step) == (2, STEPS[5])
    assert "choice 0 differs from byte" in said
    assert text not in said


@pytest.mark.parametrize(
    ("changes", "step", "expected"),
    [
        ({"tokens_out": 23}, STEPS[5], "24 out"),
        ({"tokens_in": 1}, STEPS[4], "prompt tokens"),
        ({"tokens_in": 400}, STEPS[5], "tokens in"),
        ({"finish": "stop", "trunc": False}, STEPS[5], "finish"),
    ],
    ids=["fewer tokens", "a shorter prompt", "a longer prompt", "another end"],
)
def test_other_counts_or_another_end_are_found(
    sampled: Replayable, folder: Path, changes: dict[str, Any], step: str, expected: str
) -> None:
    code, failed, said = replayed(sampled, folder, changes=changes)
    assert (code, failed) == (2, step)
    assert expected in said


def test_another_seed_gives_another_answer(sampled: Replayable, folder: Path) -> None:
    par = sampled.changes["par"] | {"seed": "5"}
    assert replayed(sampled, folder, changes={"par": par})[:2] == (2, STEPS[5])


def test_a_sampled_answer_without_its_seed_is_not_replayed(
    sampled: Replayable, folder: Path
) -> None:
    par = sampled.changes["par"] | {"seed": None}
    code, step, said = replayed(sampled, folder, changes={"par": par})
    assert (code, step) == (2, STEPS[4])
    assert "seed" in said


def test_other_parameters_than_the_requests_are_found(sampled: Replayable, folder: Path) -> None:
    par = sampled.changes["par"] | {"temperature": "0.5"}
    code, step, said = replayed(sampled, folder, changes={"par": par})
    assert (code, step) == (2, STEPS[4])
    assert "temperature" in said
    # No parameter is committed to with the text: an opening that names another is found here too.
    body = json.dumps(json.loads(sampled.opening.body) | {"top_k": 3}).encode()
    code, step, said = replayed(sampled, folder, opening=replace(sampled.opening, body=body))
    assert (code, step) == (2, STEPS[4])
    assert "top_k" in said


def test_log_probabilities_that_are_not_the_models_are_found(
    scored: Replayable, folder: Path
) -> None:
    first, *rest = scored.opening.logprobs
    other = replace(scored.opening, logprobs=((first[0] + 1e-6, *first[1:]), *rest))
    assert replayed(scored, folder, opening=other)[:2] == (2, STEPS[5])
    assert replayed(scored, folder, opening=replace(other, logprobs=()))[:2] == (2, STEPS[5])


def test_an_opening_of_something_else_is_refused(sampled: Replayable, folder: Path) -> None:
    opening = sampled.opening
    body = json.loads(opening.body)
    asked = body | {"messages": [{"role": "user", "content": "another question"}]}
    (role, said), *_ = opening.answer
    for other in (
        replace(opening, rid="A" * 22),
        replace(opening, body=json.dumps(asked).encode()),
        replace(opening, salt_q=bytes(32)),
        replace(opening, salt_r=bytes(32)),
        replace(opening, answer=((role, said + b"."),)),
        replace(opening, answer=()),
    ):
        assert replayed(sampled, folder, opening=other)[:2] == (2, STEPS[1])


def test_a_damaged_receipt_is_refused(sampled: Replayable, folder: Path) -> None:
    exchange = sampled.exchange()
    statement = exchange.statement[:-1] + bytes([exchange.statement[-1] ^ 1])
    receipt = bundled(exchange, record=replace(exchange.record, statement=statement))
    code, step, _ = replayed(sampled, folder, receipt)
    assert (code, step) == (2, STEPS[0])
    assert replayed(sampled, folder, b"{}")[:2] == (4, STEPS[0])


@pytest.mark.parametrize("changed", ["weights", "tokenizer", "template", "digest"])
def test_another_model_folder_is_refused_and_named(
    sampled: Replayable, folder: Path, tmp_path: Path, changed: str
) -> None:
    other = tiny_llama(tmp_path / "other", hidden=64, seed=8 if changed == "weights" else 7)
    if changed == "tokenizer":
        (other / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    if changed == "template":
        (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    if changed == "digest":
        (other / "generation_config.json").write_text('{"eos_token_id": 3}')
    code, step, said = replayed(sampled, other)
    assert (code, step) == (4, STEPS[2])
    assert f": {changed}: found sha256:" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"deterministic": False},
        {"engine": "vllm"},
        {"engine_version": "0.1.0+native-none.0011223344556677"},
        {"engine_version": "0.1.0+native-generic.0011223344556677"},
        {"engine_version": "0.0.9+reference"},
        {"engine_version": ""},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_other_kernels_are_refused_with_what_was_found_and_expected(
    sampled: Replayable, folder: Path, changes: dict[str, Any]
) -> None:
    code, step, said = replayed(sampled, folder, changes=changes)
    assert (code, step) == (4, STEPS[3])
    assert "expected" in said


def test_an_opening_is_read_as_it_was_written(scored: Replayable) -> None:
    assert parse_opening(scored.opening.encode()) == scored.opening


@pytest.mark.parametrize(
    "change",
    [
        {"format": "anchorhold-opening/2"},
        {"more": 1},
        {"salt_q": "AAAA"},
        {"answer": [[256, ""]]},
        {"answer": 1},
        {"body": 1},
        {"logprobs": [["x"]]},
    ],
    ids=str,
)
def test_what_is_no_opening_is_refused(scored: Replayable, change: dict[str, Any]) -> None:
    document = json.loads(scored.opening.encode()) | change
    with pytest.raises(ConfigError, match="opening file"):
        parse_opening(json.dumps(document).encode())


def test_the_command_says_each_step_and_what_was_not_run(
    sampled: Replayable, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = sampled.exchange()
    (tmp_path / "policy.json").write_bytes(exchange.policy_raw)
    (tmp_path / "receipt.json").write_bytes(sampled.receipt())
    saved = replace(sampled.opening, salt_q=bytes(32)).save(tmp_path / "opening.json")
    assert saved.stat().st_mode & 0o777 == 0o600
    words = [
        "receipt", "replay", str(tmp_path / "receipt.json"), "--model", str(folder),
        "--policy", str(tmp_path / "policy.json"), "--open", str(saved),
    ]  # fmt: skip
    assert execute(build_parser("receipt"), words) == 2
    out = capsys.readouterr().out
    assert f"FAIL  {STEPS[1]}" in out
    assert f"----  {STEPS[5]}: not run" in out
    assert "hint:" in out
    assert execute(build_parser("receipt"), [*words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [check["ok"] for check in document["checks"]] == [True, False, None, None, None, None]
    assert document["error"]["code"] == "opening_invalid"
    assert document["exit_code"] == 2


def test_verifying_a_receipt_loads_no_engine() -> None:
    code = (
        "import sys; from ops.cli import build_parser; build_parser('receipt'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'enclave_worker', 'fastapi')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
