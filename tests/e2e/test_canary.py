"""Nothing outside the worker ever holds a byte of prompt or answer: memory, files, spans, wire."""

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simulators.capture import Capture

ROOT = Path(__file__).resolve().parents[2]
PROMPT_WINDOW = 8
ANSWER_WINDOW = 24

#: One line of the product changed so that it leaks: (file, line as it is, line that leaks).
LINES = {
    "worker-log": (
        "enclave_worker/intake.py",
        "    return Accepted(opened, epoch)\n",
        '    return (__import__("os").write(2, opened.body), Accepted(opened, epoch))[1]\n',
    ),
    "client-header": (
        "wire/sealing.py",
        '    raw = replace(header, in_=sum(size for _, size in frames), raw=b"").encode()\n',
        '    raw = replace(header, in_=sum(size for _, size in frames), raw=b"").encode()[:-1]'
        """ + b',"note":"' + body.hex().encode() + b'"}'\n""",
    ),
}


def run_capture(tree: Path, out: Path, model: Path, canary: str) -> tuple[Capture, bytes]:
    """Run the service of `tree` once in its own processes and record all an outsider could.

    The client runs in a process of its own as well, so that the recording side never holds the
    canary in anything that is scanned.
    """
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tests/e2e/canary_run.py"), str(out), str(model)],
        input=canary, capture_output=True, text=True, timeout=120,
        env={
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{tree}:{ROOT / 'tests'}",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    capture = Capture()
    capture.add_files("service", out / "service")
    capture.add_files("recorded", out / "recorded")
    return capture, (out / "answer.bin").read_bytes()


def canary() -> str:
    return secrets.token_urlsafe(24)


@pytest.mark.e2e
@pytest.mark.xdist_group("canary")
@pytest.mark.timeout(180)
def test_no_byte_of_prompt_or_answer_leaves_the_worker(tmp_path: Path, tiny_model: Path) -> None:
    secret = canary()
    capture, answer = run_capture(ROOT, tmp_path / "run", tiny_model, secret)
    # The recording is not empty where it matters.
    names = set(capture.parts)
    assert {"recorded:gateway.mem", "recorded:http.bin", "recorded:link.bin"} <= names
    for name in ("recorded:gateway.mem", "recorded:http.bin", "recorded:link.bin"):
        assert len(capture.parts[name]) > 4096, name
    assert any(name.endswith("telemetry.jsonl") for name in names)
    assert any(name.endswith("log.db") for name in names)
    assert len(answer) > 2 * ANSWER_WINDOW
    assert capture.leaks(secret.encode(), PROMPT_WINDOW) == []
    assert capture.leaks(answer, ANSWER_WINDOW) == []


PACKAGES = (
    "wire", "attestation", "evidence", "tenancy", "enclave_worker", "gateway", "client",
    "anchorhold", "ops",
)  # fmt: skip


def leaking_tree(folder: Path, leak: str) -> Path:
    """A copy of the product with one line changed to leak the prompt."""
    folder.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path, old, new = LINES[leak]
    text = (folder / path).read_text()
    assert text.count(old) == 1, f"{path} no longer holds the line this test changes"
    (folder / path).write_text(text.replace(old, new))
    return folder


@pytest.mark.e2e
@pytest.mark.xdist_group("canary")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("leak", ["worker-log", "client-header"])
def test_the_capture_sees_a_one_line_leak(leak: str, tmp_path: Path, tiny_model: Path) -> None:
    secret = canary()
    tree = leaking_tree(tmp_path / "tree", leak)
    capture, _ = run_capture(tree, tmp_path / "run", tiny_model, secret)
    assert capture.leaks(secret.encode(), PROMPT_WINDOW), leak
