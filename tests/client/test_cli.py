"""The command line as a user meets it: output, exit codes, errors without stack traces."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from client import cli
from client.opening import parse_opening
from evidence.receipt import parse_statement
from wire.envelope import parse_envelope
from wire.ids import unb64u

if TYPE_CHECKING:
    from simulators.loopback import Loopback
    from simulators.service import Service

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("tenant")


@pytest.fixture
def policy(service: Service, tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_bytes(service.policy())
    return path


def test_verify_prints_every_check_and_the_trust(run: Any, server: Loopback, policy: Path) -> None:
    code, out, _ = run("verify", server.url, "--policy", policy)
    assert code == 0
    lines = out.splitlines()
    assert lines[:2] == lines[-2:]
    assert lines[0].startswith("trust=software: SOFTWARE")
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("ok ") for line in lines) > 30
    assert not any(line.startswith(("FAIL", "----")) for line in lines)


def test_no_weak_trust_is_ever_called_by_a_strong_word(
    run: Any, server: Loopback, policy: Path
) -> None:
    _, verified, _ = run("verify", server.url, "--policy", policy)
    words = ("--url", server.url, "--policy", policy, "--model", "m", "hi")
    _, out, err = run("chat", *words)
    for text in (verified, out, err):
        assert "attested" not in text.lower()
        assert "confidential" not in text.lower()


@pytest.mark.parametrize(
    ("key", "expected", "said"),
    [
        ("right", 0, "API key: accepted by the gateway"),
        ("none", 0, "API key: not sent, not tested"),
        ("wrong", 4, "API key: refused by the gateway (401)"),
    ],
)
def test_verify_says_what_became_of_the_api_key(
    run: Any, server: Loopback, service: Service, policy: Path, monkeypatch: pytest.MonkeyPatch,
    key: str, expected: int, said: str,
) -> None:  # fmt: skip
    keys = {"right": service.api_key, "none": "", "wrong": "anchorhold_other_key"}
    monkeypatch.setenv("ANCHORHOLD_API_KEY", keys[key])
    code, out, _ = run("verify", server.url, "--policy", policy)
    assert code == expected
    assert any(line.startswith(said) for line in out.splitlines())
    assert ("check the API key" in out) == (key == "wrong")
    assert not keys[key] or keys[key] not in out
    code, out, _ = run("verify", server.url, "--policy", policy, "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (expected, key != "wrong")
    assert f"API key: {document['api_key']}" == said or key == "none"


def test_verify_as_json(run: Any, server: Loopback, policy: Path) -> None:
    code, out, _ = run("verify", server.url, "--policy", policy, "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["trust"]) == (0, True, "software")


def test_verify_strict_shows_live_evidence_and_a_ping_for_each_worker(
    run: Any, server: Loopback, policy: Path
) -> None:
    code, out, _ = run("verify", server.url, "--policy", policy, "--strict")
    assert code == 0
    lines = re.sub(r"\n +", " ", out).splitlines()
    for said in (" 8 live evidence: answers our nonce", " 12 key answers a ping: key "):
        assert sum(line.startswith("ok ") and said in line for line in lines) == 3


def test_verify_strict_refuses_a_worker_that_another_answers_for(
    run: Any, server: Loopback, service: Service, policy: Path
) -> None:
    service.lies.add("ping_other_worker")
    code, out, _ = run("verify", server.url, "--policy", policy, "--strict")
    assert code == 2
    assert "REFUSED (possession_unproven)" in out


@pytest.mark.parametrize(("flag", "ops"), [("--live", ["chat"]), ("--strict", ["ping"] * 3)])
def test_chat_takes_the_same_proofs(
    run: Any, server: Loopback, service: Service, policy: Path, flag: str, ops: list[str]
) -> None:
    words = ("--url", server.url, "--policy", policy, "--model", "m", flag)
    code, out, _ = run("chat", *words, "hello there")
    assert (code, out) == (0, "You said: hello there\n")
    sealed = [parse_envelope(seen.body) for seen in service.seen if seen.path == "/v1/sealed"]
    assert [one.header.op for one in sealed][: len(ops)] == ops
    assert sum(seen.path.endswith("/challenge") for seen in service.seen) == 3


@pytest.mark.parametrize(
    ("lie", "change", "expected"),
    [
        ("swapped_evidence", {}, 2),
        ("unsigned_directory", {}, 2),
        ("", {"min_workers": 9}, 3),
        ("", {"allow_software": False}, 3),
    ],
)
def test_verify_exit_codes(
    run: Any,
    server: Loopback,
    service: Service,
    tmp_path: Path,
    lie: str,
    change: Any,
    expected: int,
) -> None:
    service.lies |= {lie} - {""}
    service.policy_changes |= change
    path = tmp_path / "changed.json"
    path.write_bytes(service.policy())
    code, out, _ = run("verify", server.url, "--policy", path)
    assert code == expected
    assert "REFUSED (" in out
    assert "FAIL" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "http://127.0.0.1:9", "--policy", "POLICY"), "cannot connect"),
        (("verify", "ftp://x", "--policy", "POLICY"), "expected http:// or https://"),
        (("verify", "http://127.0.0.1:9"), "policy: found none"),
        (("verify", "http://127.0.0.1:9", "--policy", "missing.json"), "missing.json"),
        (("receipt", "verify", "missing.json", "--policy", "POLICY"), "missing.json"),
        (("policy", "check", "missing.json"), "missing.json"),
        (("conformance", "wire", "missing.json"), "missing.json"),
        (("conformance", "wire", "POLICY"), "schema"),
        (("verify",), "usage"),
        (("nonsense",), "usage"),
        (("chat", "--url", "x"), "usage"),
        (
            ("proxy", "--url", "http://127.0.0.1:9", "--policy", "POLICY", "--host", "0.0.0.0"),
            "loop",
        ),
    ],
)
def test_what_cannot_be_read_is_said_and_exits_4(
    run: Any, policy: Path, words: tuple[str, ...], said: str
) -> None:
    named = [str(policy) if word == "POLICY" else word for word in words]
    code, out, err = run(*named)
    assert code == 4
    assert said in " ".join((out + err).split()) or "network" in err


def test_chat_streams_the_answer_and_proves_it(
    run: Any, server: Loopback, policy: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "receipt.json"
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--receipt", saved)
    code, out, err = run("chat", *words, "hello there")
    assert code == 0
    assert out == "You said: hello there\n"
    assert "trust=software" in err
    assert "receipt verified: 9 checks" in err
    code, out, _ = run("receipt", "verify", saved, "--policy", policy)
    assert code == 0
    assert "SOFTWARE TRUST" in out
    code, out, _ = run("receipt", "verify", saved, "--policy", policy, "--json")
    assert json.loads(out)["trust"] == "software"


def test_chat_whole(run: Any, server: Loopback, policy: Path) -> None:
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--no-stream")
    assert run("chat", *words, "--system", "be brief", "hi")[1] == "You said: hi\n"


@pytest.mark.parametrize("how", [(), ("--no-stream",)])
def test_what_opens_a_receipt_is_saved_for_its_owner_alone_and_opens_it(
    run: Any, server: Loopback, policy: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    saved, bundle = tmp_path / "opening.json", tmp_path / "receipt.json"
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--receipt", bundle, *how)
    code, _, err = run("chat", *words, "--opening", saved, "hello")
    assert code == 0
    assert "opening saved (it is content)" in err
    assert saved.stat().st_mode & 0o777 == 0o600
    opening = parse_opening(saved.read_bytes())
    assert json.loads(opening.body)["messages"][-1]["content"] == "hello"
    assert opening.answer[0][1] == b"You said: hello"
    statement = unb64u(json.loads(bundle.read_bytes())["receipt"]["statement"])
    opening.check(parse_statement(statement).claims)
    assert b"hello" not in bundle.read_bytes()


def test_an_opening_that_cannot_be_kept_is_said_before_anything_is_sent(
    run: Any, server: Loopback, policy: Path, tmp_path: Path
) -> None:
    (tmp_path / "opening.json").write_text("mine")
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--opening")
    for place in ("opening.json", "absent/opening.json"):
        code, out, err = run("chat", *words, tmp_path / place, "hello")
        assert (code, out) == (4, "")
        assert "nothing was sent" in err.replace("\n", " ")
    assert (tmp_path / "opening.json").read_text() == "mine"


def test_an_incomplete_answer_is_marked_and_fails(
    run: Any, server: Loopback, service: Service, policy: Path
) -> None:
    service.lies.add("truncated")
    code, _, err = run("chat", "--url", server.url, "--policy", policy, "--model", "m", "a b c d")
    assert code == 2
    assert "INCOMPLETE" in err


def test_a_damaged_receipt_is_invalid(
    run: Any, server: Loopback, policy: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "receipt.json"
    words = ("--url", server.url, "--policy", policy, "--model", "m", "--receipt", saved)
    run("chat", *words, "hello")
    document = json.loads(saved.read_bytes())
    statement = document["receipt"]["statement"]
    document["receipt"]["statement"] = statement[:-4] + (
        "AAAA" if statement[-4:] != "AAAA" else "B"
    )
    saved.write_text(json.dumps(document))
    assert run("receipt", "verify", saved, "--policy", policy)[0] == 2
    saved.write_text("not a receipt")
    assert run("receipt", "verify", saved, "--policy", policy)[0] == 4


def test_the_key_comes_from_a_file_or_the_environment_only(
    run: Any, server: Loopback, service: Service, policy: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = ("chat", "--url", server.url, "--policy", policy, "--model", "m", "hi")
    monkeypatch.delenv("ANCHORHOLD_API_KEY")
    code, _, err = run(*words)
    assert code == 4
    assert "API key" in err
    key = tmp_path / "key.txt"
    key.write_text(service.api_key + "\n")
    assert run(*words, "--key-file", key)[0] == 0
    assert run(*words, "--key-file", tmp_path / "none")[0] == 4
    help_text = cli.build_parser().format_help()
    assert "--key " not in help_text


def test_policy_check_says_what_a_policy_lets_through(
    run: Any, policy: Path, tmp_path: Path
) -> None:
    code, out, _ = run("policy", "check", policy)
    assert code == 0
    assert "allow_software" in out
    assert "min_workers is 1" in out
    document = json.loads(policy.read_bytes())
    for name, change, expected in (
        ("unknown", {"surprise": 1}, 4),
        ("expired", {"not_before": 1, "expires": 2}, 3),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document | change))
        assert run("policy", "check", path)[0] == expected
        # One rule for all commands: the same file gets the same code wherever it is named.
        assert run("verify", "http://127.0.0.1:9", "--policy", path)[0] == expected
        assert run("receipt", "verify", path, "--policy", path)[0] in (expected, 4)
    assert json.loads(run("policy", "check", policy, "--json")[1])["ok"] is True


def test_conformance_runs_vectors_and_counts_failures(run: Any, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ANCHORHOLD_VECTORS") or ROOT.parent / "shared" / "vectors")
    official = folder / "protocol" / "anchorhold-wire-v1.json"
    if not official.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"official vectors are not at {official}")
        pytest.skip(f"official vectors are not at {official}")
    code, out, _ = run("conformance", "wire", official)
    assert code == 0, out
    document = json.loads(official.read_bytes())
    document["vectors"][0]["expect"]["prk"] = "00" * 32
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    code, out, _ = run("conformance", "wire", changed, "--json")
    assert code == 2
    assert json.loads(out)["failed"] >= 1
    empty = tmp_path / "empty.json"
    empty.write_text('{"schema":"anchorhold-wire-vectors/1","vectors":[]}')
    assert run("conformance", "wire", empty)[0] == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"schema":"anchorhold-wire-vectors/1","vectors":[{"id":"a","expect":[]}]}', 2),
        ('{"schema":"anchorhold-wire-vectors/1","vectors":[{"id":"a"},{"id":"a"}]}', 2),
        ('{"schema":"anchorhold-wire-vectors/1","vectors":[{"id":"a","expect":{"x":0}}]}', 2),
        ('{"schema":"anchorhold-wire-vectors/2","vectors":[]}', 4),
        ('{"schema":"anchorhold-wire-vectors/1","vectors":{}}', 4),
        ('{"schema":"anchorhold-wire-vectors/1",', 4),
    ],
)
def test_conformance_tells_failing_cases_from_unreadable_files(
    run: Any, tmp_path: Path, text: str, code: int
) -> None:
    file = tmp_path / "vectors.json"
    file.write_text(text)
    assert run("conformance", "wire", file)[0] == code


def test_every_command_has_help_with_an_example(run: Any) -> None:
    for words in (
        ("verify",), ("chat",), ("proxy",), ("receipt", "verify"), ("policy", "check"),
        ("conformance", "wire"),
    ):  # fmt: skip
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert "examples:\n  anchorhold " + " ".join(words) in out


def test_terminals_get_no_control_characters_from_strangers(
    run: Any, server: Loopback, service: Service, policy: Path
) -> None:
    from wire.problems import NO_WORKER, problem

    service.fail_next.append((503, problem(NO_WORKER, 503, "x", "\x1b[2Jgone\x07")))
    _, _, err = run("chat", "--url", server.url, "--policy", policy, "--model", "m", "hi")
    assert "\x1b" not in err
    assert "\x07" not in err


def test_proxy_prints_its_key_once_and_stops_on_interrupt(
    server: Loopback, service: Service, policy: Path, tmp_path: Path
) -> None:
    words = [
        sys.executable, "-c", "from client.cli import main; main()", "proxy", "--url", server.url,
        "--policy", str(policy), "--port", "0", "--state-dir", str(tmp_path / "state"),
    ]  # fmt: skip
    env = {**os.environ, "ANCHORHOLD_API_KEY": service.api_key}
    with subprocess.Popen(
        words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        base = process.stdout.readline().strip().removeprefix("OPENAI_BASE_URL=")
        key = process.stdout.readline().strip().removeprefix("OPENAI_API_KEY=")
        assert base.startswith("http://127.0.0.1:")
        reply = httpx2.get(f"{base}/models", headers={"authorization": f"Bearer {key}"})
        assert reply.json()["data"][0]["id"] == "m"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert "Traceback" not in out + err
    assert process.returncode in (0, 130)
