"""One unmeasured thing smuggled into a real worker's start: it says what it found and stops."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from simulators.models import tiny_llama

from enclave_worker.control import ControlSocket
from enclave_worker.launch_line import environment
from enclave_worker.launcher_config import LauncherConfig
from enclave_worker.measured_root import MeasuredRoot, measure_root

pytestmark = pytest.mark.sandbox

ENGINE = {"dtype": "float32", "threads": 1, "kv_pages": 256, "max_len": 256, "max_batch": 4}


class Smuggler:
    """Starts the worker as the launcher does, but for one thing."""

    def __init__(self, folder: Path) -> None:
        self.model = tiny_llama(folder / "tiny")
        (self.model / "sub").mkdir()
        config = LauncherConfig(
            model_dir=self.model,
            model_name="tiny",
            aud="tests",
            gateway_socket=folder / "worker.sock",
            state_dir=folder / "state",
            service_policy=b'{"v":1}',
            engine=ENGINE,
        )
        self.root: MeasuredRoot = measure_root(config, None)

    def message(self) -> dict[str, Any]:
        staged = self.root.staged
        return {
            "type": "CONFIG",
            "worker": self.root.worker_config.document(),
            "read_paths": [*map(str, staged.read_paths), self.root.worker_config.model_dir],
            "measured": self.root.measured.to_json(),
        }

    def start(
        self,
        *,
        variables: dict[str, str] | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = (),
        prefix: Sequence[str] = (),
        name: str | None = None,
        message: dict[str, Any] | None = None,
        descriptors: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Run until the worker fails or has confined itself; returns its last message."""
        command = self.root.staged.command("enclave_worker.main", "--fd", "0")
        ours, theirs = socket.socketpair()
        started = [*prefix, *program, *command, *arguments]
        process = subprocess.Popen(
            started if name is None else [name, *started[1:]],
            executable=started[0],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(1) if variables is None else variables,
            cwd="/",
            pass_fds=descriptors,
        )
        theirs.close()
        control = ControlSocket(ours)
        try:
            control.send(self.message() if message is None else message)
            while said := control.receive():
                if said["type"] == "FAILED" or said.get("state") == "confined":
                    return dict(said)
            return {"type": "GONE", "status": process.wait(10)}
        finally:
            process.kill()
            process.wait()
            control.close()


@pytest.fixture(scope="module")
def smuggler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smuggler]:
    made = Smuggler(tmp_path_factory.mktemp("smuggled"))
    yield made
    shutil.rmtree(made.root.staged.path)


def refusal(said: dict[str, Any]) -> str:
    assert (said["type"], said.get("stage")) == ("FAILED", "measurement"), said
    message: str = said["message"]
    assert message.startswith("measurement not complete: ")
    assert "found" in message
    assert "expected" in message
    assert "\n" in message, "what to do stands in a line of its own"
    return message


def test_a_worker_with_nothing_smuggled_in_starts(smuggler: Smuggler) -> None:
    said = smuggler.start()
    assert said.get("state") == "confined", said


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "PYTHONPATH", "OPENBLAS_NUM_THREADS"])
def test_a_variable(smuggler: Smuggler, name: str) -> None:
    said = smuggler.start(variables={**environment(1), name: "/somewhere"})
    assert f"found {name}" in refusal(said)


def test_a_preloaded_library(smuggler: Smuggler) -> None:
    library = next(path for name, path in smuggler.root.staged.system.items() if "libz" in name)
    said = smuggler.start(variables={**environment(1), "LD_PRELOAD": str(library)})
    assert "found LD_PRELOAD" in refusal(said)


def test_a_changed_variable(smuggler: Smuggler) -> None:
    said = smuggler.start(variables={**environment(1), "HOME": "/root"})
    assert "environment HOME: found another value" in refusal(said)


def test_an_argument(smuggler: Smuggler) -> None:
    said = smuggler.start(arguments=["--debug"])
    assert said["type"] == "GONE", "refused before it has a channel to say so"


def test_a_loader_in_front_of_the_interpreter(smuggler: Smuggler) -> None:
    loader = next(path for name, path in smuggler.root.staged.system.items() if "ld-" in name)
    said = smuggler.start(program=[str(loader)])
    assert "program: found" in refusal(said)


def test_another_name(smuggler: Smuggler) -> None:
    """The interpreter would look for its library beside that name."""
    said = smuggler.start(name="/usr/bin/python3")
    assert "argument 0: found /usr/bin/python3" in refusal(said)


def test_a_debugger(smuggler: Smuggler) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine")
    said = smuggler.start(prefix=["strace", "-f", "-qq", "-e", "trace=none"])
    if said["type"] == "GONE":
        pytest.skip("no process may trace another here")
    assert "process: found a debugger" in refusal(said)


def test_an_interpreter_option(smuggler: Smuggler) -> None:
    adds = 'program=$1; shift; exec "$program" -O "$@"'
    said = smuggler.start(prefix=["/bin/sh", "-c", adds, "sh"])
    assert "argument 1: found -O" in refusal(said)


def test_a_descriptor(smuggler: Smuggler) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = smuggler.start(descriptors=[theirs.fileno()])
        assert f"found {theirs.fileno()} open" in refusal(said)


@pytest.mark.parametrize("path", ["/etc", "/"])
def test_a_read_path(smuggler: Smuggler, path: str) -> None:
    message = smuggler.message()
    message["read_paths"].append(path)
    assert f"read paths: found {path}," in refusal(smuggler.start(message=message))


def test_a_setting(smuggler: Smuggler) -> None:
    message = smuggler.message()
    message["worker"]["aud"] = "other"
    assert "part config" in refusal(smuggler.start(message=message))


def test_another_models_digest(smuggler: Smuggler) -> None:
    message = smuggler.message()
    message["worker"]["model_digests"]["tree"] = "sha256:" + "0" * 64
    assert "part model" in refusal(smuggler.start(message=message))


def test_another_measurement(smuggler: Smuggler) -> None:
    message = smuggler.message()
    message["worker"]["image"] = "sha256:" + "0" * 64
    assert "statement: found" in refusal(smuggler.start(message=message))


def test_a_file_system_mounted_into_the_model(smuggler: Smuggler) -> None:
    mount = 'mount -t tmpfs none "$0" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", mount]
    point = smuggler.model / "sub"
    trial = subprocess.run([*prefix, str(point), "true"], capture_output=True)
    if trial.returncode != 0:
        pytest.skip("no user namespace may mount on this kernel")
    said = smuggler.start(prefix=[*prefix, str(point)])
    assert f"mounts: found {str(point)[:60]}" in refusal(said)


@pytest.mark.parametrize("covered", ["model", "root"])
def test_the_same_names_mounted_over_what_was_measured(
    smuggler: Smuggler, tmp_path: Path, covered: str
) -> None:
    """Every name is there and every link leads where it did; the files may be others."""
    point = smuggler.model if covered == "model" else smuggler.root.staged.path
    other = shutil.copytree(point, tmp_path / "other", symlinks=True)
    mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", mount]
    prefix += [str(other), str(point)]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace may mount on this kernel")
    said = smuggler.start(prefix=prefix)
    assert f"mounts: found {str(point)[:60]}" in refusal(said)


# Runs in the staged root as a module of its own, to load what no measured code would.
LOADS = """
import ctypes, json, sys
from pathlib import Path
def main():
    measured, model, what = json.loads(sys.argv[1])
    from enclave_worker.complete import check_loaded
    from enclave_worker.measured import Measured
    from enclave_worker.observed import module_files, observe_mappings, observe_root
    from wire.errors import AttestationError
    staged = observe_root(Path(sys.path[0]).parent)
    if what.endswith(".py"):
        import importlib.util
        spec = importlib.util.spec_from_file_location("evil", what)
        sys.modules["evil"] = importlib.util.module_from_spec(spec)
    elif what:
        ctypes.CDLL(what)
    try:
        check_loaded(
            observe_mappings(), module_files(), staged, model, Measured.from_json(measured)
        )
    except AttestationError as error:
        print(error.reasons[0], error.message)
    else:
        print("fine")
"""


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("", "fine"),
        ("library", "unmeasured_code"),
        ("\f", "unmeasured_code"),
        ("\r", "unmeasured_code"),
        ("module", "unmeasured_module"),
    ],
)
def test_code_loaded_from_elsewhere(
    smuggler: Smuggler, tmp_path: Path, what: str, found: str
) -> None:
    staged = smuggler.root.staged
    program = staged.parts["first_party"] / "loads.py"
    program.write_text(LOADS)
    library = next(path for name, path in staged.system.items() if "libz" in name)
    smuggled = ""
    if what == "library":
        smuggled = str(shutil.copy(library, tmp_path / "libother.so"))
    elif what.isspace():  # in a folder that is named like the root up to what may pass for its end
        sibling = Path(f"{staged.path}{what}a b")
        sibling.mkdir()
        smuggled = str(shutil.copy(library, sibling / "libother.so"))
    elif what == "module":
        (tmp_path / "evil.py").write_text("")
        smuggled = str(tmp_path / "evil.py")
    asked = json.dumps([smuggler.root.measured.to_json(), str(smuggler.model), smuggled])
    try:
        done = subprocess.run(
            staged.command("loads", asked), capture_output=True, text=True, timeout=50, env={}
        )
    finally:
        program.unlink()
        if what.isspace():
            shutil.rmtree(sibling)
    assert done.stdout.startswith(found), done.stdout + done.stderr
    assert (
        smuggled[:60].replace(what if what.isspace() else "?", "?") in done.stdout
    )  # a message is a line: long paths are cut
