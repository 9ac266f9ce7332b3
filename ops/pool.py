"""The models of one machine: one worker each, loaded and unloaded by name.

Each worker is measured by itself and admitted by itself, so the pool is trusted with nothing: it
starts and stops launchers, and refuses to start one whose memory is not there. Clients find a model
by the name in the workers' attested bindings; nothing here is asked on their way.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from enclave_worker.engine.config import EngineConfig
from enclave_worker.launch import Launcher
from wire.errors import ConfigError, UnavailableError

from .footprint import Footprint, available, footprint, mib
from .pool_config import PoolConfig, PooledModel
from .progress import Report

State = Literal["unloaded", "loading", "loaded", "unloading"]
NO_MEMORY = "no_memory"


@dataclass(slots=True)
class _Slot:
    """One model of the pool; `lock` is held by whoever loads or unloads it."""

    pooled: PooledModel
    lock: threading.Lock = field(default_factory=threading.Lock)
    state: State = "unloaded"
    launcher: Launcher | None = None
    needs: Footprint | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one model is.

    Attributes:
        name: as clients ask for it.
        state: of the pool's own doing.
        worker: what its worker last reported; "none" where there is none.
        measurement: the worker's "sha256:" tag, "" before it is measured.
        memory: bytes promised to it, 0 when it is not loaded.
        failure: why its worker ended unasked, "" otherwise.
    """

    name: str
    state: State
    worker: str
    measurement: str
    memory: int
    failure: str


class Pool:
    """Loads and unloads models. Safe to call from several threads."""

    def __init__(self, config: PoolConfig, *, room: Callable[[], int] = available) -> None:
        """Prepare; nothing is started. `room` tells the bytes that the machine can still give."""
        self._config = config
        self._room = room
        self._slots = {name: _Slot(pooled) for name, pooled in config.models.items()}
        self._accounts = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """All models, loaded or not."""
        return tuple(self._slots)

    def load(self, name: str, report: Report) -> str:
        """Measure and start a model's worker; returns its measurement once it is ready.

        Loading what is loaded changes nothing. Steps: 1 promise the memory. 2 start.

        Raises:
            ConfigError: no such model, a wrong setting or folder, or not enough memory.
            UnavailableError: it is being loaded or unloaded by somebody else, or did not start.
        """
        slot = self._slot(name)
        if not slot.lock.acquire(blocking=False):
            raise UnavailableError(f"model {name!r}: found it {slot.state}, expected it at rest")
        try:
            if slot.launcher is not None and slot.launcher.state not in ("stopped", "failed"):
                return slot.launcher.measurement
            self._stop(slot)
            engine = _engine(slot.pooled)
            needs = footprint(slot.pooled.launcher.model_dir, engine)
            self._promise(slot, name, needs)  # 1
            try:
                slot.launcher = self._launcher(slot.pooled, report)
                slot.launcher.start()  # 2
            except BaseException:
                self._stop(slot)
                raise
            slot.state = "loaded"
            return slot.launcher.measurement
        finally:
            slot.lock.release()

    def unload(self, name: str) -> None:
        """Stop a model's worker: running answers may end first, then its memory is free.

        Raises:
            ConfigError: no such model, or it is not loaded.
            UnavailableError: it is being loaded or unloaded by somebody else.
        """
        slot = self._slot(name)
        if not slot.lock.acquire(blocking=False):
            raise UnavailableError(f"model {name!r}: found it {slot.state}, expected it at rest")
        try:
            if slot.launcher is None:
                raise ConfigError(f"model {name!r}: found it not loaded, expected it loaded")
            self._stop(slot)
        finally:
            slot.lock.release()

    def measure(self, name: str, report: Report) -> Mapping[str, str]:
        """What a policy names for a model's worker: measurement and trust anchor; starts nothing.

        Raises:
            ConfigError: no such model, or a wrong setting or folder.
        """
        launcher = self._launcher(self._slot(name).pooled, report)
        try:
            launcher.measure()
            return {"measurement": launcher.measurement, "root": launcher.trust_anchor}
        finally:
            launcher.stop()

    def status(self) -> list[ModelStatus]:
        """How every model is, in the order of the settings."""
        return [self._status(name, slot) for name, slot in self._slots.items()]

    def stop(self) -> None:
        """Unload everything."""
        stops = [
            threading.Thread(target=self._stop_held, args=(slot,)) for slot in self._slots.values()
        ]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()

    def _slot(self, name: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise ConfigError(
                f"model {name!r}: found no such model, expected one of {', '.join(self._slots)}"
            )
        return slot

    def _promise(self, slot: _Slot, name: str, needs: Footprint) -> None:
        """Step 1: what was promised to others and they have not taken yet counts as taken.

        A worker takes its cache page by page, as requests come: of one that is loaded, the whole
        cache is still to come. That errs on the side of refusing.
        """
        with self._accounts:
            others = [(s.needs, s.state) for s in self._slots.values() if s.needs and s is not slot]
            coming = sum(n.total if state == "loading" else n.cache for n, state in others)
            room = self._room() - coming
            if self._config.memory is not None:
                room = min(room, self._config.memory - sum(n.total for n, _ in others))
            if room < needs.total:
                raise ConfigError(
                    f"model {name!r}: found {mib(max(room, 0))} MiB of memory free, expected "
                    f"{needs.told()}",
                    code=NO_MEMORY,
                    hint="unload another model, lower kv_pages, or import it quantised",
                )
            slot.needs, slot.state = needs, "loading"

    def _launcher(self, pooled: PooledModel, report: Report) -> Launcher:
        def state(name: str, _facts: Mapping[str, Any]) -> None:
            report(name, 0, 1)

        return Launcher(pooled.launcher, progress=report, on_state=state)

    def _stop_held(self, slot: _Slot) -> None:
        with slot.lock:
            self._stop(slot)

    def _stop(self, slot: _Slot) -> None:
        """End a slot's worker, if it has one; its lock is held."""
        if slot.launcher is not None:
            slot.state = "unloading"
            slot.launcher.stop()
        slot.launcher, slot.needs, slot.state = None, None, "unloaded"

    def _status(self, name: str, slot: _Slot) -> ModelStatus:
        launcher, needs = slot.launcher, slot.needs
        measurement = failure = ""
        if launcher is not None:
            failure = "" if launcher.failure is None else launcher.failure.message
            measurement = launcher.measurement if launcher.starts else ""
        return ModelStatus(
            name,
            slot.state,
            "none" if launcher is None else launcher.state,
            measurement,
            0 if needs is None else needs.total,
            failure,
        )


def _engine(pooled: PooledModel) -> EngineConfig:
    try:
        return EngineConfig.from_dict(pooled.launcher.engine)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
