"""vLLM behind the same engine, where a Python that has it is named: salts, answers, ends, grammars.

ANCHORHOLD_VLLM names that Python (`scripts/install-peers` makes one); vLLM pins other versions of
what this project uses, so it lives in an environment of its own.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from simulators.llamas import shared_folder

from ops.model_cache import ensure

PYTHON = os.environ.get("ANCHORHOLD_VLLM", "")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "simulators" / "vllm_answers.py"
PROMPT = list(range(100, 140))
SCHEMA = (
    '{"type":"object","properties":{"a":{"type":"integer","maximum":99}},'
    '"required":["a"],"additionalProperties":false}'
)

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="ANCHORHOLD_VLLM names no Python that has vLLM"),
    pytest.mark.timeout(300),
]


def greedy(**more: object) -> dict[str, object]:
    return {"temperature": 0, "max_tokens": 6, **more}


ORDERS = [
    [
        {"prompt": PROMPT, "params": greedy(logprobs=2), "tenant": "a", "salt": "x"},
        {"prompt": [100, 200, 300], "params": {"seed": 5, "max_tokens": 6}, "n": 2},
        {"prompt": [1], "params": greedy(temperature=2.5)},
    ],
    [
        {"prompt": PROMPT, "params": greedy(), "tenant": "a", "salt": "x"},
        {"prompt": PROMPT, "params": greedy(), "tenant": "b", "salt": "x"},
        {"prompt": PROMPT, "params": greedy(), "tenant": "a", "salt": "y"},
        {"prompt": PROMPT, "params": greedy(), "tenant": "a"},
        {
            "prompt": [504, 3575, 282, 4649, 314],
            "params": greedy(max_tokens=40, grammar=["json_schema", SCHEMA]),
        },
        {"prompt": PROMPT, "params": greedy(max_tokens=300, ignore_eos=True), "leaves": 5},
        {"prompt": [504, 3575, 282, 4649, 314], "params": greedy(max_tokens=30, stop=["Paris"])},
    ],
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = ensure("smollm2", shared_folder(tmp_path_factory) / "models", dtype="bfloat16")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [PYTHON, str(SCRIPT), str(model)],
        input=json.dumps(ORDERS), capture_output=True, text=True, timeout=280, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, Any] = json.loads(done.stdout[done.stdout.index('{"answers"') :])
    return answers


def test_the_prefix_cache_is_the_same_tenants_with_the_same_salt(found: dict[str, Any]) -> None:
    hit, *misses = found["answers"][1][:4]
    assert hit["cached"] == 32
    assert [miss["cached"] for miss in misses] == [0, 0, 0]
    assert all(miss["tokens"] == hit["tokens"] for miss in misses)


def test_logprobs_come_with_their_alternatives(found: dict[str, Any]) -> None:
    answer = found["answers"][0][0]
    assert len(answer["logprobs"]) == 6
    for token, (logprob, top) in zip(answer["tokens"], answer["logprobs"], strict=True):
        assert len(top) == 2
        assert top[0][1] == logprob  # of two as likely, either may have been taken
        assert [token, logprob] in top


def test_each_answer_of_a_request_ends(found: dict[str, Any]) -> None:
    assert found["answers"][0][1]["finish"] == ["length", "length"]
    assert len(found["answers"][0][1]["tokens"]) == 12


def test_what_vllm_cannot_do_is_refused_and_the_others_go_on(found: dict[str, Any]) -> None:
    assert found["answers"][0][2]["error"] == "request_invalid"
    assert found["answers"][0][0]["finish"] == ["length"]


def test_a_grammar_holds_and_stops_and_cancels_end_answers(found: dict[str, Any]) -> None:
    schema, leaver, stopped = found["answers"][1][4:]
    assert set(json.loads(schema["text"])) == {"a"}
    assert schema["finish"] == ["stop"]
    assert leaver["finish"] == ["cancelled"]
    assert stopped["finish"] == ["stop"]
    assert "Paris" not in stopped["text"]


def test_nothing_is_left_and_what_ran_is_named(found: dict[str, Any]) -> None:
    assert (found["running"], found["waiting"]) == (0, 0)
    assert found["describe"]["engine"].startswith("vllm ")
