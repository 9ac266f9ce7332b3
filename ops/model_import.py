"""`anchorhold model import`: a model from outside becomes a folder the worker can read.

The worker reads safetensors and JSON only. Here, outside of it, a GGUF file (also one inside an
installed package) or a Hugging Face folder is turned into that, in one dtype, with a manifest of
digests. Equal sources give equal bytes. The result appears under its name only when it is complete.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from enclave_worker.engine.errors import EngineError
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.weights import SINGLE
from enclave_worker.engine.templates import ChatTemplate
from enclave_worker.engine.tokenizer import Tokenizer
from wire.errors import ConfigError

from .model_manifest import FILE as MANIFEST
from .model_manifest import Manifest, check_name, digest
from .model_source import ModelSource, encode_json, open_source

DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Tokenizer, configuration, file system slack.
SPACE_MARGIN = 64 << 20
#: Code of the error for a disk without room.
NO_ROOM = "no_room"
_ROOM_HINT = "free some space, or import into a folder on another disk"
# Progress: (what is being done, how much is done, of how much).
Report = Callable[[str, int, int], None]


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Report to nobody."""


def import_model(
    source: str,
    target: Path,
    *,
    dtype: str = "bfloat16",
    name: str | None = None,
    force: bool = False,
    report: Report = quiet,
) -> Manifest:
    """Import a model.

    1. The target is free, or may be replaced. 2. The source is understood whole. 3. There is room.
    4. Everything is written beside the target. 5. The engine accepts what was written. 6. The
    manifest is made from the files as they are on disk. 7. The folder gets its name.

    Args:
        source: a known name, a .gguf file or a Hugging Face folder.
        target: folder to make; its parent is created.
        dtype: "bfloat16" or "float32".
        name: what clients call the model; by default taken from the source.
        force: replace a model that is there already.
        report: hears of progress.

    Raises:
        ConfigError: naming what was found and what was expected; nothing is left behind.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"model dtype: found {dtype!r}, expected one of {sorted(DTYPES)}")
    # 1
    _check_target(target, force=force)
    # 2
    report("reading the source", 0, 1)
    opened = open_source(source)
    chosen = check_name(name if name is not None else opened.name)
    # 3
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Made first: where nothing can be written, "0 MiB free" would be true and beside the point.
        target.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        _check_room(opened.parameters * DTYPES[dtype].itemsize + SPACE_MARGIN, target.parent)
        _write(opened, work, dtype, report)  # 4
        _accepted(work)  # 5
        manifest = _seal(opened, work, chosen, dtype, report)  # 6
        _publish(work, target)  # 7
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise ConfigError(
            f"model import: cannot write in {target.parent}: {error.strerror}",
            hint=_ROOM_HINT if full else "name a folder inside one this user may write to",
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _check_target(target: Path, *, force: bool) -> None:
    """Step 1: never destroy what is not an imported model, nor replace one unasked."""
    if not target.exists():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise ConfigError(
            f"model folder {str(target)!r}: found something that is not an imported model, "
            "expected a new or empty folder"
        )
    if not force:
        raise ConfigError(
            f"model folder {str(target)!r}: found a model there already, expected a new folder",
            hint="use --force to replace it",
        )


def _check_room(need: int, folder: Path) -> None:
    """Step 3: bytes needed against bytes free."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ConfigError(
            f"model import: found {free >> 20} MiB free in {folder}, "
            f"expected at least {need >> 20} MiB",
            code=NO_ROOM,
            hint=_ROOM_HINT,
        )


def _write(opened: ModelSource, work: Path, dtype: str, report: Report) -> None:
    """Step 4: the small files, then the weights."""
    files = opened.files()
    config = json.loads(files["config.json"])
    config.pop("torch_dtype", None)
    files["config.json"] = encode_json(config | {"dtype": dtype})
    for name, data in files.items():
        (work / name).write_bytes(data)
    tensors: dict[str, torch.Tensor] = {}
    done = 0
    for name, tensor in opened.tensors():
        tensors[name] = tensor.to(DTYPES[dtype]).contiguous()
        done += tensor.numel()
        report("converting tensors", done, opened.parameters)
    report("writing", 0, 1)
    save_file(tensors, str(work / SINGLE), metadata={"format": "pt"})


def _accepted(work: Path) -> None:
    """Step 5: what the worker will read can be read."""
    try:
        folder = ModelFolder.read(work)
        Tokenizer(folder.tokenizer_json)
        if folder.template is not None:
            ChatTemplate(folder.template, folder.special)
    except EngineError as error:
        raise ConfigError(f"imported model: {error}") from None


def _seal(opened: ModelSource, work: Path, name: str, dtype: str, report: Report) -> Manifest:
    """Step 6: digest the files from disk and write the manifest."""
    digests: dict[str, str] = {}
    paths = sorted(work.iterdir())
    for index, path in enumerate(paths):
        report("hashing", index, len(paths))
        path.chmod(0o644)
        digests[path.name] = digest(path)
        _sync(path)
    manifest = Manifest(name, opened.licence, opened.description, dtype, digests)
    (work / MANIFEST).write_bytes(manifest.encode())
    _sync(work / MANIFEST)
    report("hashing", len(paths), len(paths))
    return manifest


def _publish(work: Path, target: Path) -> None:
    """Step 7: one rename; an old model steps aside first and is removed afterwards."""
    old = work.with_suffix(".old")
    if target.exists():
        target.rename(old)
    work.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
