"""Stages and measures everything one worker consists of, with progress in bytes."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from attestation.measurement import measured
from wire.errors import ConfigError

from .engine.errors import EngineError
from .launch_line import ARGUMENTS, MODULE, environment
from .launcher_config import LauncherConfig
from .measured import Measured
from .model_folder import check_model, model_digests
from .mounts import observe_mounts, places_of
from .settled_engine import settled_engine
from .stage import WorkerRoot, measure, stage_worker_root
from .system_libraries import library_tags
from .worker_config import WorkerConfig

# Told (part, bytes done, bytes in all); parts come one after another.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class MeasuredRoot:
    """A staged root with its measurement and the worker's settings that go with it.

    Attributes:
        staged: the root.
        measurement: of everything.
        parts: what it is combined from.
        system: the system's libraries by name, each a "sha256:" tag: the part `system`.
        places: what the worker may read, each with where it led when it was measured.
        worker_config: settings, complete but for where the worker happens to run.
    """

    staged: WorkerRoot
    measurement: str
    parts: Mapping[str, str]
    system: Mapping[str, str]
    places: Mapping[str, str]
    worker_config: WorkerConfig

    @property
    def measured(self) -> Measured:
        """What the worker compares itself with."""
        return Measured(self.parts, self.system, self.places)


def measure_root(config: LauncherConfig, progress: Progress | None) -> MeasuredRoot:
    """Check the model, stage a fresh root below `config.state_dir` and measure it all.

    Raises:
        ConfigError: no model folder, a missing distribution, links or devices in a measured folder.
    """
    check_model(config.model_dir)
    model_dir = config.model_dir.resolve()
    try:
        engine = settled_engine(config.engine, model_dir)
    except EngineError as error:
        raise ConfigError(str(error)) from None
    settings = WorkerConfig(
        wid=config.wid,
        aud=config.aud,
        model_name=config.model_name,
        model_dir=str(model_dir),
        service_policy=config.service_policy,
        trust=config.trust,
        engine={**config.engine, "dtype": engine.dtype, "kernels": engine.kernels},
        require_pq=config.require_pq,
        epoch_s=config.epoch_s,
        slots=config.slots,
    )
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged_path = Path(tempfile.mkdtemp(prefix="root-", dir=config.state_dir))
    try:
        staged = stage_worker_root(staged_path)
        # Before the files are read: a mount that comes in between is then another place.
        places = places_of((*map(str, staged.read_paths), str(model_dir)), observe_mounts())
        report = None
        if progress is not None:
            report = _counter(progress, _size((*staged.parts.values(), model_dir)))
        measurement, parts = measure(
            staged,
            model_dir,
            (MODULE, *ARGUMENTS),
            settings.measured(),
            report,
            env=environment(engine.threads),
        )
        system = library_tags(staged.system)
        settings = replace(
            settings, image=measurement, model_digests=model_digests(model_dir, parts["model"])
        )
    except OSError as error:
        shutil.rmtree(staged_path, ignore_errors=True)
        raise ConfigError(f"measuring: {error.strerror} ({error.filename})") from None
    except BaseException:
        shutil.rmtree(staged_path, ignore_errors=True)
        raise
    return MeasuredRoot(staged, measurement, parts, system, places, settings)


def _counter(progress: Progress, total: int) -> Callable[[str, int], None]:
    """Turn (part, bytes since last) into (part, bytes so far, total)."""
    done = 0

    def report(part: str, count: int) -> None:
        nonlocal done
        done += count
        progress(part, min(done, total), total)

    return report


def _size(folders: Iterable[Path]) -> int:
    """Bytes of the measured files below `folders`; only a progress bar depends on it."""
    total = 0
    for folder in folders:
        for where, _, names in os.walk(folder, followlinks=True):
            for name in names:
                if measured(name) and "__pycache__" not in where:
                    total += (Path(where) / name).stat().st_size
    return total
