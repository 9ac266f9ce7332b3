"""The sandboxed child. Started by the launcher as `enclave_worker.main`, control socket on `--fd`.

Order (docs/adr/0004-sandbox-order.md): 1 settings from the launcher, and nothing unmeasured about
this process (`complete`). 2 limits and Landlock, while there is one thread and torch is not
imported. 3 torch, weights, warm-up, event loop, and one whole rehearsal; nothing unmeasured was
loaded. 4 the system-call filter on every thread. 5 the posture record, signed by this boot's key.
6 evidence, then serve. From step 4 on this process opens no file and no socket.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attestation.posture import Control, Posture, encode_posture, sign_posture
from wire.errors import AnchorholdError, ProtocolFailure

from .clock import Clock
from .complete import check_loaded, check_start
from .control import ControlSocket, Message
from .engine.config import EngineConfig
from .engine.errors import EngineError
from .engine.ops.library import check_settled
from .epochs import Keyring
from .journal import Event, emit, loop_handler, report, silence
from .measured import Measured
from .mounts import places_of
from .observed import Start, module_files, observe_mappings, observe_root, observe_start
from .port import LauncherPort
from .sandbox.confine import confine_early, confine_late
from .sandbox.posture import collect
from .worker_config import WorkerConfig

EXIT_FAILED = 3
# Long bodies are parsed beside the loop; more threads would only take turns on the interpreter.
PARSERS = 2


def main() -> None:
    """Run one worker from its first message to STOP. Exit status 0 after a clean stop, else 3."""
    silence()
    start = observe_start()
    control = ControlSocket(socket.socket(fileno=_descriptor(sys.argv)), takes_fds=True)
    worker = _Worker(control, start)
    status = EXIT_FAILED
    try:
        worker.run()
        emit(Event.STOPPED)
        status = 0
    except BaseException as error:
        report(error)
        worker.give_up(error)
    finally:
        # The engine's native threads need no orderly end, and interpreter shutdown would run code
        # of many libraries for nothing.
        os._exit(status)


class _Worker:
    """The steps of one life."""

    def __init__(self, control: ControlSocket, start: Start) -> None:
        self._control = control
        self._start = start
        self._port = LauncherPort(control)
        self._stage = "configure"

    def run(self) -> None:
        """Steps 1 to 6 of the module's docstring."""
        # 1
        message = self._first_message()
        config = WorkerConfig.parse(message["worker"])
        paths = [Path(path) for path in message["read_paths"]]
        settings = EngineConfig.from_dict(config.engine)
        check_settled(settings)
        self._stage = "measurement"
        measured = Measured.from_json(message["measured"])
        staged = observe_root(Path(sys.path[0]).parent)
        places = places_of(message["read_paths"], self._start.mounts)
        check_start(self._start, staged, config, settings.threads, places, measured)
        # 2
        early = confine_early(
            paths, wrapper=config.wrapper, parent_namespaces=config.namespaces or None
        )
        emit(Event.CONFINED_EARLY, applied=_applied(early))
        # 3: torch starts threads when imported, and Landlock binds only threads made after it
        self._enter("load", "loading")
        from .bench import Bench
        from .engine.embedder import Embedder
        from .engine.engine import Engine
        from .rehearsal import rehearse
        from .serve import Server
        from .served_model import served_model
        from .statement import Notary

        model = served_model(Path(config.model_dir), settings)
        model.start()
        emit(Event.MODEL_LOADED)
        self._enter("warm-up", "warming")
        model.warm_up()
        emit(Event.WARM)
        self._stage = "rehearsal"
        executor = ThreadPoolExecutor(PARSERS, thread_name_prefix="parser")
        keyring = Keyring(config, os.urandom)
        notary = Notary(config, keyring, settings, os.urandom)
        engine = model if isinstance(model, Engine) else None
        embedder = model if isinstance(model, Embedder) else None
        bench = Bench(
            config,
            keyring,
            engine,
            notary,
            Clock(),
            os.urandom,
            executor,
            embedder=embedder,
        )
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(loop_handler)
            runner.run(rehearse(bench, settings))
            emit(Event.REHEARSED)
            self._stage = "measurement"
            check_loaded(observe_mappings(), module_files(), staged, config.model_dir, measured)
            # 4
            self._stage = "confine"
            late = confine_late()
            emit(Event.CONFINED_LATE, applied=_applied(late))
            # 5
            controls = collect(early, late, secrets=keyring.secrets())
            record = encode_posture(Posture(keyring.boot, controls))
            keyring.set_posture(record)
            posture = sign_posture(record, keyring.sig)
            states = {name: control.state for name, control in controls.items()}
            self._port.status("confined", controls=states)
            # 6
            self._stage = "serve"
            runner.run(Server(bench, self._port, posture).run())
        if engine is not None:
            engine.stop()
        executor.shutdown()

    def give_up(self, error: BaseException) -> None:
        """Tell the launcher why.

        Messages of our own errors speak of settings and model files. Once requests are served even
        they stay inside: only the type's name leaves.
        """
        message = type(error).__name__
        if self._stage != "serve" and isinstance(error, EngineError):
            message = str(error)
        elif self._stage != "serve" and isinstance(error, AnchorholdError):
            message = error.diagnostics()
        self._control.send({"type": "FAILED", "stage": self._stage, "message": message})

    def _first_message(self) -> Message:
        message = self._control.receive()
        if message is None or message["type"] != "CONFIG":
            raise ProtocolFailure("control: expected CONFIG as the first message")
        return message

    def _enter(self, stage: str, state: str) -> None:
        self._stage = stage
        self._port.status(state)


def _descriptor(argv: list[str]) -> int:
    if len(argv) != 3 or argv[1] != "--fd" or not argv[2].isdigit():
        sys.exit("worker: found no control socket; start it with `anchorhold worker --config FILE`")
    return int(argv[2])


def _applied(controls: Mapping[str, Control]) -> int:
    return sum(control.state == "applied" for control in controls.values())
