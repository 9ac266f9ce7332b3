"""The launcher: outside the sandbox, it stages, measures, starts and watches one worker.

It is the host's agent: it owns the attester, the GPUs and the connection to the gateway, and never
sees a request. What it relays is ciphertext it cannot open: it passes the gateway connection to the
worker as a descriptor and reads nothing from it.

Steps of `start`: 1 check the model folder. 2 stage the root of links. 3 measure root, model,
arguments and configuration. 4 tell the attester. 5 look at the GPUs, where they are demanded, and
let them work. 6 start the worker under the best wrapper. 7 wait until it has loaded, warmed up and
confined itself. After that a thread serves the worker's requests for evidence and connections, and
starts a new worker when one dies unasked.
"""

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from wire.errors import AttestationError, ConfigError, UnavailableError
from wire.excerpt import cut

from .attendant import Attendant
from .clock import Clock
from .engine.config import EngineConfig
from .launcher_config import LauncherConfig
from .machine import Machine, make_machine
from .measured_root import MeasuredRoot, Progress, measure_root
from .spawn import Wrapped, spawn, wrap
from .worker_config import WorkerConfig

# Loading a large model from a slow disk takes minutes; longer than this means it hangs.
READY_TIMEOUT_S = 600.0
# A worker that dies at once must not be started in a tight loop.
RESTART_FIRST_S = 0.5
RESTART_MAX_S = 30.0
# A worker that served this long did not die of how it was started.
LONG_LIFE_S = 60.0
# A wrong engine setting is repeated, but not at any length.
FAULT_MAX = 200
# Between the closing of its channel and the end of the process; then it is killed.
EXIT_WAIT_S = 2.0

OnState = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the worker went away or never came up; every text is the launcher's or the loader's."""

    stage: str
    message: str


class Launcher:
    """One worker, from start to stop. Use as a context manager, or call `start` and `stop`.

    Attributes:
        config: as given.
        measurement: of the worker, after `start`.
        parts: digests the measurement is made of, after `start`.
        trust_anchor: what a policy lists as root, after `start`.
    """

    def __init__(
        self,
        config: LauncherConfig,
        *,
        progress: Progress | None = None,
        on_state: OnState | None = None,
        machine: Callable[[LauncherConfig], Machine] = make_machine,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            config: checked settings.
            progress: told (part, bytes done, bytes in all) while measuring.
            on_state: told every state change (the names in `RANK`, and died) with its facts,
                from the launcher's thread.
            machine: finds what vouches for the worker.
        """
        self.config = config
        self._progress = progress
        self._on_state = on_state
        self._make_machine = machine
        self._changed = threading.Condition()
        self._state = "new"
        self._facts: dict[str, Any] = {}
        self._starts = 0
        self._failure: Failure | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._attendant: Attendant | None = None
        self._machine: Machine | None = None
        self._root: MeasuredRoot | None = None

    def start(self, timeout: float = READY_TIMEOUT_S) -> None:
        """Bring the worker up and return when it has loaded its model and confined itself.

        Raises:
            ConfigError: a wrong setting or model folder; the message says found and expected.
            AttestationError: a GPU is not genuine.
            UnavailableError: the worker died or did not get ready in time.
        """
        try:
            self.measure()
            self._found().open()
            self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
            self._thread.start()
            self.wait_for("ready", timeout)
        except BaseException:
            self.stop()
            raise

    def measure(self) -> None:
        """Do steps 1 to 4 and start nothing; `stop` releases what they made.

        Raises:
            ConfigError: a wrong setting or model folder; the message says found and expected.
        """
        try:
            EngineConfig.from_dict(self.config.engine)
        except (TypeError, ValueError) as error:
            raise ConfigError(cut(str(error), FAULT_MAX)) from None
        self._machine = self._make_machine(self.config)
        self._root = measure_root(self.config, self._progress)
        self._machine.measure(self._root.parts)

    @property
    def measurement(self) -> str:
        """The worker's measurement, a "sha256:" tag."""
        return self._measured().measurement

    @property
    def parts(self) -> Mapping[str, str]:
        """Digest of each measured part."""
        return self._measured().parts

    @property
    def trust_anchor(self) -> str:
        """What a policy lists as the root of this worker's evidence."""
        return self._found().trust_anchor()

    @property
    def state(self) -> str:
        """The last state reported."""
        with self._changed:
            return self._state

    @property
    def failure(self) -> Failure | None:
        """Why the last worker ended, if it ended unasked."""
        with self._changed:
            return self._failure

    @property
    def starts(self) -> int:
        """Workers started so far."""
        with self._changed:
            return self._starts

    @property
    def pid(self) -> int | None:
        """Process id of the running worker's wrapper (or of the worker), None while none runs."""
        attendant = self._attendant
        return None if attendant is None else attendant.pid

    def wait_for(self, state: str, timeout: float) -> Mapping[str, Any]:
        """Wait until `state` is reported and return what came with it.

        A later state of the same life counts as having passed an earlier one (`RANK`).

        Raises:
            AttestationError: "admitted" was awaited and the gateway refused the evidence.
            UnavailableError: the worker failed for good, or the time is over.
        """

        def reached() -> bool:
            refused = state == "admitted" and self._state == "refused"
            return self._over() or refused or RANK.get(self._state, -1) >= RANK[state]

        with self._changed:
            done = self._changed.wait_for(reached, timeout)
            if self._over():
                raise self._explain(state)
            if self._state == "refused" and state == "admitted":
                reasons = tuple(str(item) for item in self._facts.get("reasons", ()))
                shown = ", ".join(reasons) or "no reason given"
                raise AttestationError(
                    f"gateway: refused this worker's evidence ({shown})",
                    reasons=reasons,
                    hint="Compare the gateway's admission policy with the worker's measurement.",
                )
            if not done:
                raise UnavailableError(
                    f"worker: found state {self._state!r} after {timeout:g} s, expected {state!r}"
                )
            return dict(self._facts)

    def wait(self, timeout: float | None = None) -> Failure | None:
        """Wait until no worker runs or will run; returns why, None after a clean stop."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.failure

    def stop(self) -> None:
        """Let the worker drain and end, then release everything. Safe to call twice."""
        self._stopping.set()
        attendant = self._attendant
        if attendant is not None:
            attendant.ask_to_stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        if self._root is not None:
            shutil.rmtree(self._root.staged.path, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        """Start workers until one stops cleanly, or dies and must not be replaced."""
        try:
            self._lives()
        except Exception as error:
            self._fail("launcher", f"{type(error).__name__}: {error}")
        with self._changed:
            self._state = "stopped" if self._failure is None else "failed"
            self._changed.notify_all()

    def _lives(self) -> None:
        pause = RESTART_FIRST_S
        while not self._stopping.is_set():
            begun = time.monotonic()
            worth_repeating = self._one_life()
            if self._stopping.is_set() or not self.config.restart or not worth_repeating:
                # Never ready, or never attested: it would fail the same way again, so say so.
                break
            if time.monotonic() - begun > LONG_LIFE_S:
                pause = RESTART_FIRST_S
            self._stopping.wait(pause)
            pause = min(pause * 2, RESTART_MAX_S)

    def _one_life(self) -> bool:
        """Start one worker and attend to it until it ends; whether another one may do better."""
        root, machine = self._measured(), self._found()
        wrapped = wrap(root.staged, self.config.model_dir)
        with self._changed:
            self._starts += 1
            self._failure = None
        try:
            worker = spawn(wrapped.command, _threads(self.config), self.config.log)
        except UnavailableError as error:
            self._fail("start", str(error))
            return False
        try:
            with closing(
                Attendant(worker, machine, self.config.gateway_socket, Clock(), self._enter)
            ) as attendant:
                self._attendant = attendant
                if self._stopping.is_set():
                    attendant.ask_to_stop()
                settings = self._worker_config(root, wrapped, machine)
                attendant.configure(settings, root.staged.read_paths, root.measured)
                attendant.attend()
        finally:
            # Whatever went wrong out here: no worker runs on without its launcher.
            self._attendant = None
            status = worker.end(EXIT_WAIT_S)
        if not self._stopping.is_set():
            self._fail(*(attendant.failure or ("run", _died(status))))
            self._enter("died", {"status": status})
        return attendant.was_ready and attendant.attested is not False

    def _worker_config(
        self, root: MeasuredRoot, wrapped: Wrapped, machine: Machine
    ) -> WorkerConfig:
        return replace(
            root.worker_config,
            wrapper=wrapped.wrapper,
            namespaces=wrapped.namespaces,
            gpus=list(machine.gpu_keys),
        )

    def _found(self) -> Machine:
        if self._machine is None:
            raise RuntimeError("launcher: asked for the machine before start")
        return self._machine

    def _measured(self) -> MeasuredRoot:
        if self._root is None:
            raise RuntimeError("launcher: asked for the measurement before start")
        return self._root

    def _enter(self, state: str, facts: Mapping[str, Any]) -> None:
        """Record a state and tell whoever waits or listens."""
        with self._changed:
            self._state, self._facts = state, dict(facts)
            self._changed.notify_all()
        if self._on_state is not None:
            self._on_state(state, facts)

    def _fail(self, stage: str, message: str) -> None:
        with self._changed:
            self._failure = Failure(stage, message)

    def _over(self) -> bool:
        """Whether no worker runs or will run. Called with the condition held."""
        return self._state in ("stopped", "failed")

    def _explain(self, awaited: str) -> UnavailableError:
        failure = self._failure
        if failure is None:
            return UnavailableError(f"worker: stopped before it was {awaited}")
        log = self.config.log
        return UnavailableError(
            f"worker: failed at stage {failure.stage}: {failure.message}",
            hint=f"The worker's own events are in {log}." if log else "",
        )


# How far a worker is in each state it reports.
RANK = {
    "new": 0,
    "loading": 1,
    "warming": 2,
    "confined": 3,
    "ready": 4,
    "waiting": 4,
    "disconnected": 4,
    "connected": 5,
    "refused": 5,
    "admitted": 6,
    "epoch_refused": 6,
}


def _threads(config: LauncherConfig) -> int:
    return EngineConfig.from_dict(config.engine).threads


def _died(status: int) -> str:
    if status < 0:
        return f"found it killed by signal {-status}, expected it to run"
    return f"found exit status {status}, expected it to run"
