"""`anchorhold demo --once`, as `make demo ONCE=1` runs it: real model, processes and proof."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.models import tiny_llama

from ops.demo_folder import demo_folder

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-demo"), pytest.mark.timeout(180)]

RUN = "import sys; from ops.cli import main; sys.exit(main())"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-c", RUN, *arguments]


def free_pair() -> int:
    """A port for the gateway that is free now, as is the next one, which the proxy takes.

    Below those the kernel deals out, so that no connection of another test gets one meanwhile.
    """
    for port in range(20_000 + os.getpid() % 5_000 * 2, 32_000, 2):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two neighbouring ports are free")


def demo(*arguments: str, temporary: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command("demo", "--port", str(free_pair()), *arguments),
        capture_output=True, text=True, timeout=150,
        env={**os.environ, "TMPDIR": str(temporary), "COLUMNS": "80"},
    )  # fmt: skip


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's name has room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ah-", dir="/tmp") as folder:
        yield Path(folder)


def check_output(done: "subprocess.CompletedProcess[str]", trust: str) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"trust={trust}" in done.stdout
    assert re.search(r"inclusion proof verified: entry \d+ of a log of \d+", done.stdout)
    answer = done.stdout.split("\n> ", 1)[1].split("(first token", 1)[0].split("\n", 1)[1]
    assert len(answer.strip()) > 20
    assert "FAIL" not in done.stdout
    for word in ("attested", "confidential"):
        assert word not in done.stdout.lower().replace("anchorhold", "")


def test_the_demo_answers_with_the_real_model_and_proves_it(temporary: Path) -> None:
    done = demo("--once", temporary=temporary)
    check_output(done, "software")
    assert "offline check of the saved receipt: valid" in done.stdout
    assert not list(temporary.glob("anchorhold-demo-*")), "the demo leaves nothing behind"


@pytest.mark.tpm
def test_the_demo_runs_on_quotes_of_a_software_tpm(temporary: Path) -> None:
    done = demo("--once", "--trust", "simulated", temporary=temporary)
    check_output(done, "simulated")
    assert "below policy" in done.stdout


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one user's client remembers logs, from one demo to the next."""
    return tmp_path_factory.mktemp("state")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_demo_stays_up_with_a_proxy_until_it_is_ended(
    temporary: Path, remembered: Path, end: signal.Signals
) -> None:
    model = tiny_llama(temporary / "tiny", hidden=64)
    port = free_pair()
    child = subprocess.Popen(
        command("demo", "--port", str(port), "--model", str(model)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TMPDIR": str(temporary), "ANCHORHOLD_MODELS": str(temporary / "m")},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port + 1)) == 0:
                    break
            time.sleep(0.1)
        check_verified(temporary, port, remembered)
        child.send_signal(end)
        output, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    if end is signal.SIGKILL:
        ended_outright(temporary, port)
        return
    assert child.returncode in (0, 130), output
    assert "curl http://127.0.0.1:" in output
    assert "from openai import OpenAI" in output
    assert "Traceback" not in output
    assert not list(temporary.glob("anchorhold-demo-*"))


def check_verified(temporary: Path, port: int, remembered: Path) -> None:
    """The printed `verify`, by a user who has tried other demos before."""
    (policy,) = temporary.glob("anchorhold-demo-*/d/policy.json")
    key = policy.parent / "key.txt"
    arguments = ["--policy", str(policy), "--key-file", str(key), "--state-dir", str(remembered)]
    done = subprocess.run(
        command("verify", f"http://127.0.0.1:{port}", *arguments), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def ended_outright(temporary: Path, port: int) -> None:
    """A killed demo cleans nothing up: its gateway ends by itself, the next demo deletes."""
    deadline = time.monotonic() + 20
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                probe.bind(("127.0.0.1", port))
                break
            except OSError:
                assert time.monotonic() < deadline, "the gateway outlived its demo"
                time.sleep(0.1)
    assert len(list(temporary.glob("anchorhold-demo-*"))) == 1
    with demo_folder(temporary) as folder:
        assert list(temporary.glob("anchorhold-demo-*")) == [folder]


def test_a_port_in_use_is_named_before_anything_is_started(temporary: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("demo", "--once", "--port", str(port)), capture_output=True, text=True
        )
    assert done.returncode == 4
    assert f"port {port}: found it in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_folder_is_named(temporary: Path) -> None:
    done = demo("--once", "--model", str(temporary / "absent"), temporary=temporary)
    assert done.returncode == 4
    assert "absent" in done.stderr
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_gateway_process_holds_no_part_of_the_plaintext_path() -> None:
    code = (
        "import sys\nfrom ops.cli import build_parser\nbuild_parser('gateway')\n"
        "import gateway.main\n"
        "print([m for m in ('torch', 'tokenizers', 'safetensors', 'enclave_worker') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
