"""What breaks and what does not: workers die, the gateway restarts, users make mistakes."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.whole_service import running

from anchorhold import Client, GatewayError, Options, StreamTruncated
from ops.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]
QUESTION = [{"role": "user", "content": "the lazy dog"}]
#: Long enough that a worker can be killed in the middle of it.
LONG = 1500


@pytest.fixture
def pair(tmp_path: Path, tiny_model: Path) -> Iterator[Stack]:
    with running(tmp_path, tiny_model, workers=2) as started:
        yield started


def connect(stack: Stack, folder: Path, pad: str = "cadence") -> Client:
    deployment = stack.config.deployment
    return Client(
        stack.url, deployment.api_key, policy=deployment.tenant_policy,
        options=Options(state_dir=folder / "state", pad=pad),
    )  # fmt: skip


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def kill_worker(stack: Stack, wid: str) -> None:
    pid = stack.launchers[wid].pid
    assert pid is not None
    for victim in [pid, *children(pid)]:
        os.kill(victim, signal.SIGKILL)


def freeze_worker(stack: Stack, wid: str) -> None:
    pid = stack.launchers[wid].pid
    assert pid is not None
    for victim in [pid, *children(pid)]:
        os.kill(victim, signal.SIGSTOP)


def worker_of(stack: Stack, stream: object) -> str:
    wid = stream._stream.answered.worker.appraised.binding.wid
    assert wid in stack.launchers
    return str(wid)


def test_a_worker_lost_before_the_first_byte_is_not_the_clients_problem(
    pair: Stack, tmp_path: Path
) -> None:
    with connect(pair, tmp_path) as client:
        frozen = {one.bh for one in client.verify("tiny").workers if one.wid == "worker-1"}
        assert frozen
        # Frozen, not dead: the gateway still believes in it, releases to it, and loses it then.
        freeze_worker(pair, "worker-1")
        timer = threading.Timer(1.0, kill_worker, (pair, "worker-1"))
        timer.start()
        for _ in range(4):
            stream = client.chat(QUESTION, "tiny", stream=True, max_tokens=8)
            for _ in stream:
                pass
            assert stream.complete
            # Started anew, worker-1 may answer too: with another binding.
            assert stream._stream.answered.worker.summary().bh not in frozen
        timer.join()


def test_a_worker_lost_after_the_first_byte_truncates_the_stream(
    pair: Stack, tmp_path: Path
) -> None:
    with connect(pair, tmp_path) as client:
        stream = client.chat(QUESTION, "tiny", stream=True, max_tokens=LONG, ignore_eos=True)
        deltas = iter(stream)
        next(deltas)
        kill_worker(pair, worker_of(pair, stream))
        with pytest.raises(StreamTruncated):
            for _ in deltas:
                pass
        assert not stream.complete
        with pytest.raises(RuntimeError):
            _ = stream.receipt
        # The next request is served by the other worker at once.
        assert client.chat(QUESTION, "tiny", max_tokens=8).text is not None


def test_clients_go_on_after_a_gateway_restart(pair: Stack, tmp_path: Path) -> None:
    with connect(pair, tmp_path) as client:
        before = client.chat(QUESTION, "tiny", max_tokens=8).receipt
        pids = {wid: one.pid for wid, one in pair.launchers.items()}
        pair.stop_gateway(kill=True)
        pair.start_gateway()
        after = client.chat(QUESTION, "tiny", max_tokens=8).receipt
        # Same log, longer; same workers, not restarted.
        assert after.log_size > before.log_size
        assert {wid: one.pid for wid, one in pair.launchers.items()} == pids


def test_leaving_a_stream_early_cancels_the_work(stack: Stack, tmp_path: Path) -> None:
    logs = {wid: stack.config.deployment.root / f"{wid}.log" for wid in stack.launchers}
    before = {wid: len(log.read_text()) for wid, log in logs.items()}
    with connect(stack, tmp_path) as client:
        stream = client.chat(QUESTION, "tiny", stream=True, max_tokens=LONG, ignore_eos=True)
        next(iter(stream))
        wid = worker_of(stack, stream)
        stream.close()
    deadline = time.monotonic() + 3
    events = ""
    while time.monotonic() < deadline and "job_done" not in events:
        time.sleep(0.05)
        events = logs[wid].read_text()[before[wid] :]
    assert "worker cancelled" in events
    assert events.index("worker cancelled") < events.index("worker job_done")


def test_a_wrong_credential_is_refused_before_anything_else(stack: Stack, tmp_path: Path) -> None:
    deployment = stack.config.deployment
    wrong = deployment.api_key[:-9] + "A" * 9
    options = Options(state_dir=tmp_path / "s")
    with (
        Client(stack.url, wrong, policy=deployment.tenant_policy, options=options) as client,
        pytest.raises(GatewayError) as refused,
    ):
        client.chat(QUESTION, "tiny", max_tokens=8)
    assert refused.value.status == 401
    assert "key" in refused.value.hint
