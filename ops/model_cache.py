"""Models imported once and kept: what the demo and the tools use instead of a path."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wire.errors import ConfigError

from .model_import import NO_ROOM, NONE, import_model, quiet
from .model_manifest import FILE as MANIFEST
from .model_manifest import check_name, verify
from .model_source import KNOWN
from .progress import Report


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where imported models are kept: ANCHORHOLD_MODELS, else below XDG_CACHE_HOME or ~/.cache."""
    if chosen := environ.get("ANCHORHOLD_MODELS"):
        return Path(chosen)
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "anchorhold" / "models"


def ensure(
    source: str,
    cache: Path | None = None,
    *,
    dtype: str | None = None,
    quantise: str = NONE,
    report: Report = quiet,
) -> Path:
    """Return a verified folder with the model, importing it on first use.

    Safe beside other processes doing the same: they wait for the one that imports. A cached model
    whose digests do not match is imported again.

    Args:
        source: a known name, a .gguf file, a Hugging Face folder, or a folder imported before
            (which is verified and returned as it is).
        cache: folder of models; by default `cache_dir()`.
        dtype: see `model_import.Form`, as is the one after it.
        quantise: int8 weights.
        report: hears of progress.

    Raises:
        ConfigError: as `import_model` and `verify` raise it.
    """
    if source not in KNOWN and (Path(source) / MANIFEST).is_file():
        verify(Path(source))
        return Path(source)
    cache = cache_dir() if cache is None else cache
    target = cache / f"{_key(source)}-{(dtype or 'bfloat16') if quantise == NONE else quantise}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"model cache {cache}: cannot be created: {error.strerror}",
            hint="set ANCHORHOLD_MODELS to a folder this user may write to",
        ) from None
    with _locked(cache / f".{target.name}.lock"):
        # Left by a process that was killed; only the holder of the lock writes here.
        for stale in (*cache.glob(f".{target.name}.*.tmp"), *cache.glob(f".{target.name}.*.old")):
            shutil.rmtree(stale, ignore_errors=True)
        if (target / MANIFEST).is_file():
            try:
                verify(target)
            except ConfigError:
                report("importing again: the cached model does not match its manifest", 0, 1)
            else:
                return target
        try:
            import_model(source, target, dtype=dtype, quantise=quantise, force=True, report=report)
        except ConfigError as error:
            if error.code == NO_ROOM:  # here the folder is ours to choose, and theirs to move
                error.hint = "free some space, or set ANCHORHOLD_MODELS to a folder that has it"
            raise
    return target


def _key(source: str) -> str:
    """Name a source inside the cache: a file or folder also by its path, size and time."""
    if source in KNOWN:
        return check_name(KNOWN[source].name)
    path = Path(source).resolve()
    try:
        newest = max([path, *path.glob("*")], key=lambda p: p.stat().st_mtime_ns).stat()
    except OSError:
        raise ConfigError(
            f"model source {source!r}: found nothing, expected a .gguf file, a Hugging Face "
            f"folder or one of {sorted(KNOWN)}",
            hint="paths are taken from the folder the command is run in",
        ) from None
    identity = f"{path}\0{newest.st_mtime_ns}\0{newest.st_size}".encode()
    return check_name(f"{path.stem.lower()}-{hashlib.sha256(identity).hexdigest()[:12]}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel drops it with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
