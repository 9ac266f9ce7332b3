"""The sandboxed child. Started by the launcher as `enclave_worker.main`, control socket on `--fd`.

Order (docs/adr/0004-sandbox-order.md): 1 settings from the launcher. 2 limits and Landlock, while
there is one thread and torch is not imported. 3 torch, weights, warm-up, event loop. 4 the system
call filter on every thread. 5 keys, and the posture record signed by them. 6 evidence, then serve.
From step 4 on this process opens no file and no socket.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

from attestation.posture import Control, Posture, encode_posture, sign_posture
from wire.errors import AnchorholdError, ProtocolFailure

from .clock import Clock
from .control import ControlSocket, Message
from .epochs import Keyring
from .journal import Event, emit, loop_handler, report, silence
from .port import LauncherPort
from .sandbox.confine import confine_early, confine_late
from .sandbox.posture import collect
from .worker_config import WorkerConfig

EXIT_FAILED = 3
# Long bodies are parsed beside the loop; more threads would only take turns on the interpreter.
PARSERS = 2

T = TypeVar("T")


def main() -> None:
    """Run one worker from the first message to STOP; the exit status is 0 after a clean stop."""
    silence()
    control = ControlSocket(socket.socket(fileno=_descriptor(sys.argv)))
    worker = _Worker(control)
    worker.run()
    emit(Event.STOPPED)
    # The engine's native threads need no orderly end, and interpreter shutdown would run code of
    # many libraries for nothing.
    sys.stderr.flush()
    os._exit(0)


class _Worker:
    """The steps of one life, each reported to the launcher before it starts."""

    def __init__(self, control: ControlSocket) -> None:
        self._control = control
        self._port = LauncherPort(control)

    def run(self) -> None:
        """Steps 1 to 6."""
        # 1
        message = self._step("configure", self._first_message)
        config = self._step("configure", lambda: WorkerConfig.parse(message["worker"]))
        paths = [Path(path) for path in message["read_paths"]]
        # 2
        early = confine_early(
            paths, wrapper=config.wrapper, parent_namespaces=config.namespaces or None
        )
        emit(Event.CONFINED_EARLY, applied=_applied(early))
        # 3: torch starts threads when imported, and Landlock binds only threads made after it
        self._port.status("loading")
        from .engine.config import EngineConfig
        from .engine.engine import Engine
        from .serve import Server
        from .session import Bench
        from .statement import Notary

        settings = EngineConfig.from_dict(config.engine)
        engine = self._step("load", lambda: Engine(Path(config.model_dir), settings))
        self._step("load", engine.start)
        emit(Event.MODEL_LOADED)
        self._port.status("warming")
        self._step("warm-up", engine.warm_up)
        emit(Event.WARM)
        executor = ThreadPoolExecutor(PARSERS, thread_name_prefix="parser")
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(loop_handler)
            # 4
            late = confine_late()
            emit(Event.CONFINED_LATE, applied=_applied(late))
            # 5
            keyring = Keyring(config, os.urandom)
            controls = collect(early, late, secrets=keyring.secrets())
            record = encode_posture(Posture(keyring.boot, controls))
            keyring.set_posture(record)
            posture = sign_posture(record, keyring.sig)
            self._port.status("confined", controls=_states(controls))
            # 6
            notary = Notary(config, keyring, settings.dtype, os.urandom)
            bench = Bench(config, keyring, engine, notary, Clock(), os.urandom, executor)
            server = Server(bench, self._port, posture)
            self._step("serve", lambda: runner.run(server.run()))
        engine.stop()
        executor.shutdown()

    def _first_message(self) -> Message:
        message = self._control.receive()
        if message is None or message["type"] != "CONFIG":
            raise ProtocolFailure("control: expected CONFIG as the first message")
        return message

    def _step(self, stage: str, work: Callable[[], T]) -> T:
        """Do one step; a failure is told to the launcher and ends the process."""
        try:
            return work()
        except Exception as error:
            report(error)
            self._give_up(stage, error)

    def _give_up(self, stage: str, error: Exception) -> NoReturn:
        """Tell the launcher why, then end at once.

        Messages of our own errors speak of settings and model files. Once requests are served even
        they stay inside: only the type's name leaves.
        """
        from .engine.errors import EngineError

        message = type(error).__name__
        if stage != "serve" and isinstance(error, EngineError | AnchorholdError):
            message = str(error)
        try:
            self._control.send({"type": "FAILED", "stage": stage, "message": message})
        finally:
            os._exit(EXIT_FAILED)


def _descriptor(argv: list[str]) -> int:
    if len(argv) != 3 or argv[1] != "--fd" or not argv[2].isdigit():
        sys.exit(
            "worker: started without its control socket; use `anchorhold worker --config FILE`"
        )
    return int(argv[2])


def _applied(controls: Mapping[str, Control]) -> int:
    return sum(control.state == "applied" for control in controls.values())


def _states(controls: Mapping[str, Control]) -> dict[str, str]:
    return {name: control.state for name, control in controls.items()}
