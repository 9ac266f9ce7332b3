"""Several models on one machine: a worker each, found by name, loaded and unloaded."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.models import tiny_llama

from anchorhold import Client, Options
from client.clock import wall_clock
from ops.deployment import Deployment, create
from ops.stack import Stack, StackConfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
QUESTION = [{"role": "user", "content": "the quick brown fox"}]
READY_S = 120.0


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from ops.start import main; main()", "pool", *words]


def pool(settings: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, "--config", str(settings)), capture_output=True, text=True, timeout=120
    )


def wait_until(stack: Stack, count: int) -> None:
    """Until the published directory names so many workers."""
    deadline = time.monotonic() + READY_S
    while len(listed(stack)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listed(stack: Stack) -> list[object]:
    import urllib.request

    from wire.ids import unb64u

    with urllib.request.urlopen(f"{stack.url}/v1/keys", timeout=5) as answer:
        workers: list[object] = json.loads(unb64u(json.load(answer)["payload"]))["workers"]
    return workers


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("p")
    create(root / "d", aud="pool", now=wall_clock())
    tables = ""
    for seed, name in enumerate(("red", "blue")):
        folder = tiny_llama(root / name, hidden=64, seed=seed)
        tables += f'[[model]]\nname = "{name}"\nmodel_dir = "{folder}"\n'
        tables += "load = true\n" if name == "red" else "load = false\n"
    policy = json.dumps({"v": 1, "id": "pool-service", "retention": "none"})
    (root / "service.json").write_text(policy)
    (root / "pool.toml").write_text(
        'aud = "pool"\ngateway_socket = "d/gateway/worker.sock"\nstate_dir = "d/state"\n'
        'service_policy = "service.json"\nsoftware_root = "d/software-root.key"\n'
        '[engine]\ndtype = "float32"\nthreads = 1\nkv_pages = 64\n' + tables
    )
    return root / "pool.toml"


@pytest.fixture(scope="module")
def stack(settings: Path) -> Iterator[Stack]:
    """A gateway whose policies name what `pool measure` prints, and no workers of its own."""
    root = settings.parent / "d"
    deployment = Deployment(
        root, "pool", (root / "key.txt").read_text().strip(),
        (settings.parent / "service.json").read_bytes(),
    )  # fmt: skip
    found = json.loads(pool(settings, "measure", "--json").stdout)
    rule = {
        "kind": "software", "roots": [found["red"]["root"]], "posture": {},
        "measurements": [found[name]["measurement"] for name in ("red", "blue")],
    }  # fmt: skip
    deployment.write_policy(accept=[rule], models=["red", "blue"], now=wall_clock())
    stack = Stack(
        StackConfig(
            deployment=deployment, model_dir=settings.parent / "red", model_name="red", workers=0
        )
    )
    deployment.write_gateway(port=stack.port)
    stack.start_gateway()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def running(settings: Path, stack: Stack) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("run", "--config", str(settings)), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        ready = next((line for line in process.stderr if "models loaded" in line), "")
        assert "1 of 2" in ready
        wait_until(stack, 1)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_models_are_found_by_name_loaded_and_unloaded_while_others_serve(
    settings: Path, stack: Stack, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    deployment = stack.config.deployment
    options = Options(state_dir=tmp_path / "state")
    with Client(
        stack.url, deployment.api_key, policy=deployment.tenant_policy, options=options
    ) as client:
        red = client.chat(QUESTION, "red", max_tokens=12, temperature=0)
        loaded = pool(settings, "load", "blue")
        assert loaded.returncode == 0, loaded.stderr
        wait_until(stack, 2)
        blue = client.chat(QUESTION, "blue", max_tokens=12, temperature=0)
        assert red.text != blue.text  # other weights, other answer: it was the other worker
        models = [answer.receipt.claims["model"]["name"] for answer in (red, blue)]
        assert models == ["red", "blue"]
        states = json.loads(pool(settings, "status", "--json").stdout)
        assert [state["state"] for state in states] == ["loaded", "loaded"]
        assert all(state["memory"] > 0 for state in states)
        gone = pool(settings, "unload", "red")
        assert gone.returncode == 0, gone.stderr
        wait_until(stack, 1)
        assert client.chat(QUESTION, "blue", max_tokens=12, temperature=0).text == blue.text
    assert "no such model" in pool(settings, "load", "green").stderr
    assert running.poll() is None
