"""The whole service on one machine: one gateway process, one launcher per worker.

Order matters and is the point: a worker is measured first, the policies name that measurement, and
only then does a gateway come up that admits nothing else.
"""

import errno
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from attestation.rules.tpm import PCR_DEFAULT
from client.clock import wall_clock
from enclave_worker.launch import Launcher
from enclave_worker.launcher_config import LauncherConfig, Trust
from wire.errors import ConfigError, UnavailableError
from wire.ids import unb64u

from .deployment import Deployment
from .tether import TETHERED

GATEWAY_TIMEOUT_S = 30.0
ADMISSION_TIMEOUT_S = 60.0

OnState = Callable[[str, str, Mapping[str, Any]], None]
OnProgress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """What to run.

    Attributes:
        deployment: its folder, keys and policies.
        model_dir: a model folder the worker can read.
        model_name: the name clients ask for.
        port: TCP port of the gateway on loopback; 0 picks a free one.
        trust: evidence kind of the workers.
        workers: how many.
        engine: EngineConfig members.
        epoch_s: seconds a worker key is offered.
        gateway: further keys of the gateway's settings file.
        connect_via: worker socket the launchers use instead of the gateway's own (a relay).
    """

    deployment: Deployment
    model_dir: Path
    model_name: str
    port: int = 0
    trust: Trust = "software"
    workers: int = 1
    engine: dict[str, Any] = field(default_factory=dict)
    epoch_s: int = 3600
    gateway: dict[str, str | int | float] = field(default_factory=dict)
    connect_via: Path | None = None


class Stack:
    """Starts, watches and stops the service. Use as a context manager."""

    def __init__(
        self,
        config: StackConfig,
        *,
        on_state: OnState | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            config: what to run.
            on_state: told (worker, state, facts), from launcher threads.
            on_progress: told (worker, part, bytes done, bytes in all) while measuring.
        """
        self.config = config
        self.port = config.port or free_port()
        check_port(self.port)
        self.gateway: subprocess.Popen[bytes] | None = None
        self._measured = {f"worker-{n + 1}": threading.Event() for n in range(config.workers)}
        self._on_state = on_state
        self.launchers = {wid: self._launcher(wid, on_progress) for wid in self._measured}

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Bring everything up and return when every worker is admitted.

        Raises:
            AnchorholdError: a setting, model folder or worker is not right; says what to do.
        """
        failures: list[BaseException] = []
        starts = [
            threading.Thread(target=self._start_one, args=(wid, failures), daemon=True)
            for wid in self.launchers
        ]
        for thread in starts:
            thread.start()
        for measured in self._measured.values():
            measured.wait()
        if not failures:
            self.write_policy()
            self.config.deployment.write_gateway(port=self.port, **self.config.gateway)
            self.start_gateway()
        for thread in starts:
            thread.join()
        if failures:
            raise failures[0]
        for launcher in self.launchers.values():
            launcher.wait_for("admitted", ADMISSION_TIMEOUT_S)
        self._wait_listed()

    def start_gateway(self) -> None:
        """Start (or start again) the gateway and wait until it answers."""
        log = (self.config.deployment.root / "gateway.log").open("ab")
        command = [sys.executable, "-P", "-c", TETHERED, "gateway", "--config"]
        self.gateway = subprocess.Popen(
            [*command, str(self.config.deployment.gateway_config)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + GATEWAY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.gateway.poll() is not None:
                raise UnavailableError(
                    f"gateway: ended with status {self.gateway.returncode} before it was ready",
                    hint=f"its own words are in {self.config.deployment.root / 'gateway.log'}",
                )
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise UnavailableError(f"gateway: no answer at {self.url} in {GATEWAY_TIMEOUT_S:g} s")

    def stop_gateway(self, *, kill: bool = False) -> None:
        """End the gateway: politely, or as a crash would."""
        if self.gateway is None:
            return
        if kill:
            self.gateway.kill()
        else:
            self.gateway.terminate()
        try:
            self.gateway.wait(15)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
            self.gateway.wait()
        if self.gateway.stdin is not None:
            self.gateway.stdin.close()
        self.gateway = None

    def stop(self) -> None:
        """End workers and gateway; safe to call twice."""
        stops = [threading.Thread(target=one.stop) for one in self.launchers.values()]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()
        self.stop_gateway()

    def write_policy(self) -> None:
        """Write policies that accept exactly the measured workers."""
        rules: dict[str, dict[str, Any]] = {}
        for launcher in self.launchers.values():
            rule = rules.setdefault(launcher.trust_anchor, self._rule(launcher.trust_anchor))
            if launcher.measurement not in rule["measurements"]:
                rule["measurements"].append(launcher.measurement)
        self.config.deployment.write_policy(
            accept=list(rules.values()), models=[self.config.model_name], now=wall_clock()
        )

    def __enter__(self) -> Self:
        """Start; a failed start leaves nothing behind."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _wait_listed(self) -> None:
        """Wait until the published directory names every worker: admission comes just before it."""
        deadline = time.monotonic() + ADMISSION_TIMEOUT_S
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self.url}/v1/keys", timeout=5) as answer:  # noqa: S310
                payload = json.loads(unb64u(json.load(answer)["payload"]))
            if len(payload["workers"]) >= len(self.launchers):
                return
            time.sleep(0.02)
        raise UnavailableError(f"gateway: the directory did not name {len(self.launchers)} workers")

    def _rule(self, anchor: str) -> dict[str, Any]:
        if self.config.trust == "software":
            return {"kind": "software", "roots": [anchor], "measurements": [], "posture": {}}
        return {
            "kind": "tpm2", "roots": [anchor], "measurements": [],
            "pcr": PCR_DEFAULT, "posture": {},
        }  # fmt: skip

    def _launcher(self, wid: str, on_progress: OnProgress | None) -> Launcher:
        config, root = self.config, self.config.deployment.root
        settings = LauncherConfig(
            model_dir=config.model_dir,
            model_name=config.model_name,
            aud=config.deployment.aud,
            gateway_socket=config.connect_via or config.deployment.worker_socket,
            state_dir=root / wid,
            service_policy=config.deployment.service_policy,
            trust=config.trust,
            software_root=root / "software-root.key" if config.trust == "software" else None,
            tpm_ca=root / "tpm-ca" if config.trust == "simulated" else None,
            wid=wid,
            engine=config.engine,
            epoch_s=config.epoch_s,
            log=root / f"{wid}.log",
        )

        def state(name: str, facts: Mapping[str, Any]) -> None:
            if name == "loading":
                self._measured[wid].set()
            if self._on_state is not None:
                self._on_state(wid, name, facts)

        def progress(part: str, done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(wid, part, done, total)

        return Launcher(settings, progress=progress, on_state=state)

    def _start_one(self, wid: str, failures: list[BaseException]) -> None:
        try:
            self.launchers[wid].start()
        except BaseException as error:
            failures.append(error)
        finally:
            self._measured[wid].set()


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Refuse a port that is in use, before minutes are spent on anything else.

    Raises:
        ConfigError: somebody listens there already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port}: found it in use, expected a free port",
                    hint="stop what listens there, or choose another one with --port",
                ) from None
            raise ConfigError(
                f"port {port}: cannot listen there: {error.strerror}",
                hint="choose another one with --port; those below 1024 need privileges",
            ) from None
