"""Settings of a model pool: what all its workers share, and one table for each model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from enclave_worker.launcher_config import LauncherConfig, config_of, read_settings
from wire.errors import ConfigError
from wire.excerpt import shown

#: A pool is one machine's workers; beyond this something else is meant.
MODELS_MAX: Final = 64
SOCKET: Final = "pool.sock"
# A model's own keys; every other key of a worker's settings stands once, for all.
_OWN = ("name", "model_dir", "wid", "engine", "load", "slots", "log")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PooledModel:
    """One model of the pool.

    Attributes:
        launcher: settings of its worker.
        load: whether it is loaded when the pool starts.
    """

    launcher: LauncherConfig
    load: bool


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Settings of one pool.

    Attributes:
        models: by the name clients ask for, in the file's order.
        state_dir: of the pool; each worker has a folder in it.
        memory: most bytes all workers may take together; None: what the machine has.
    """

    models: dict[str, PooledModel]
    state_dir: Path
    memory: int | None

    @property
    def socket(self) -> Path:
        """Where the running pool listens for its operator."""
        return self.state_dir / SOCKET


def read_pool(path: Path) -> PoolConfig:
    """Read a TOML file; relative paths in it are relative to the file.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type, a name twice.
    """
    document = read_settings(path)
    tables = document.pop("model", None)
    memory = document.pop("memory_mib", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(f"pool configuration {path}: expected a [[model]] table for each model")
    if len(tables) > MODELS_MAX:
        raise ConfigError(
            f"pool configuration {path}: found {len(tables)} models, expected {MODELS_MAX} at most"
        )
    if memory is not None and (type(memory) is not int or memory < 1):
        raise ConfigError(
            f"pool configuration {path}: memory_mib: expected an integer of at least 1"
        )
    models: dict[str, PooledModel] = {}
    wids: set[str] = set()
    for table in tables:
        pooled = _model(path, document, table)
        name, wid = pooled.launcher.model_name, pooled.launcher.wid
        if name in models or wid in wids:
            raise ConfigError(
                f"pool configuration {path}: found model {shown(name)} or worker {shown(wid)} "
                "twice, expected each once"
            )
        models[name] = pooled
        wids.add(wid)
    first = next(iter(models.values())).launcher
    return PoolConfig(models, first.state_dir.parent, None if memory is None else memory * _MIB)


def _model(path: Path, shared: dict[str, Any], table: dict[str, Any]) -> PooledModel:
    """Join what is shared with one model's table."""
    for key in table:
        if key not in _OWN:
            raise ConfigError(
                f"pool configuration {path}: found {shown(key)} in a [[model]] table, expected "
                f"some of {', '.join(_OWN)}; other keys stand above, once for all"
            )
    name, load = table.get("name"), table.get("load", True)
    if not isinstance(name, str):
        raise ConfigError(f"pool configuration {path}: a [[model]] table names no model: name")
    if type(load) is not bool:
        raise ConfigError(f"pool configuration {path}: load: expected true or false")
    own = {key: value for key, value in table.items() if key not in ("name", "load", "engine")}
    wid = own.setdefault("wid", re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:64].strip("."))
    engines = [source.get("engine", {}) for source in (shared, table)]
    if not all(isinstance(engine, dict) for engine in engines):
        raise ConfigError(f"pool configuration {path}: engine: expected a table")
    merged = {**shared, **own, "model_name": name, "engine": {**engines[0], **engines[1]}}
    if isinstance(merged.get("state_dir"), str):
        merged["state_dir"] = f"{merged['state_dir']}/{wid}"
    return PooledModel(config_of(path, merged), load)
