"""`anchorhold model import`: a model from outside becomes a folder the worker can read.

The worker reads safetensors and JSON only. Here, outside of it, a GGUF file (also one inside an
installed package) or a Hugging Face folder is turned into that, in one dtype or with int8 weights,
with a manifest of digests. Equal sources give equal bytes. The result appears under its name only
when it is complete.
"""

import errno
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from enclave_worker.engine.errors import EngineError
from enclave_worker.engine.models.config import ModelConfig
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.quantisation import W8A8 as W8A8_CONFIG
from enclave_worker.engine.models.weights import SINGLE
from enclave_worker.engine.templates import ChatTemplate
from enclave_worker.engine.tokenizer import Tokenizer
from wire.errors import ConfigError

from .model_figures import Figures
from .model_inspect import check_encoder, check_folder
from .model_manifest import FILE as MANIFEST
from .model_manifest import Manifest, Quantisation, check_name, digest, files_below
from .model_quantise import W8A8, quantise
from .model_source import ModelSource, encode_json, open_source
from .model_tensors import stored_tensors
from .progress import Report

DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Tokenizer, configuration, file system slack.
SPACE_MARGIN = 64 << 20
#: Code of the error for a disk without room.
NO_ROOM = "no_room"
_ROOM_HINT = "free some space, or import into a folder on another disk"
NONE = "none"
QUANTISATIONS = (NONE, W8A8)


@dataclass(frozen=True, slots=True)
class Form:
    """How the weights are written.

    Attributes:
        dtype: "bfloat16" or "float32"; None for bfloat16, float32 where it is an encoder, which
            runs in that.
        quantise: "none", or "w8a8" for int8 weights of the layers; then dtype is bfloat16.
        smoothing: strength 0 to 1 of SmoothQuant; None searches one for each product.
    """

    dtype: str | None = None
    quantise: str = NONE
    smoothing: float | None = None

    def check(self) -> None:
        """Refuse what does not fit together (ConfigError)."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(
                f"model dtype: found {self.dtype!r}, expected one of {sorted(DTYPES)}"
            )
        if self.quantise not in QUANTISATIONS:
            raise ConfigError(
                f"model quantisation: found {self.quantise!r}, expected one of {QUANTISATIONS}"
            )
        if self.quantise == NONE:
            if self.smoothing is not None:
                raise ConfigError(
                    "model smoothing: found a strength and nothing to quantise",
                    hint=f"add --quantise {W8A8}, or leave --smoothing out",
                )
            return
        if self.dtype not in (None, "bfloat16"):
            raise ConfigError(
                f"model dtype: found {self.dtype!r}, expected 'bfloat16' beside int8 weights",
                hint="leave --dtype out",
            )
        if self.smoothing is not None and not 0 <= self.smoothing <= 1:
            raise ConfigError(
                f"model smoothing: found {self.smoothing}, expected a number from 0 to 1"
            )


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Report to nobody."""


def import_model(
    source: str,
    target: Path,
    *,
    dtype: str | None = None,
    quantise: str = NONE,
    smoothing: float | None = None,
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
        dtype: see Form, as are the two after it.
        quantise: int8 weights.
        smoothing: strength.
        name: what clients call the model; by default taken from the source.
        force: replace a model that is there already.
        report: hears of progress.

    Raises:
        ConfigError: naming what was found and what was expected; nothing is left behind.
    """
    form = Form(dtype, quantise, smoothing)
    form.check()
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
        _check_room(
            opened.parameters * DTYPES[dtype or "bfloat16"].itemsize + SPACE_MARGIN, target.parent
        )
        made = _write(opened, work, form, report)  # 4
        _accepted(work)  # 5
        manifest = _seal(opened, work, chosen, made, report)  # 6
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


@dataclass(frozen=True, slots=True)
class _Made:
    """What step 4 found out."""

    kind: str
    dtype: str
    quantisation: Quantisation | None = None
    figures: Figures | None = None


def _write(opened: ModelSource, work: Path, form: Form, report: Report) -> _Made:
    """Step 4: the small files, then the weights."""
    files = opened.files()
    settings: dict[str, Any] = json.loads(files["config.json"])
    settings.pop("torch_dtype", None)
    for name, data in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(data)
    config = _read(work).config
    decoder = isinstance(config, ModelConfig)
    dtype = form.dtype or ("bfloat16" if decoder else "float32")
    settings["dtype"] = dtype
    made = _Made("decoder" if decoder else "encoder", dtype)
    tensors: dict[str, torch.Tensor] = {}
    done = 0
    for name, tensor in opened.tensors():
        tensors[name] = tensor if form.quantise == W8A8 else _converted(name, tensor, dtype)
        done += tensor.numel()
        report("converting tensors", done, opened.parameters)
    if form.quantise == W8A8:
        if not isinstance(config, ModelConfig):
            raise ConfigError(
                "model quantisation: found an encoder, expected a model that generates text",
                hint="import it without --quantise: an encoder is small and runs as it is",
            )
        tokenizer = Tokenizer(files["tokenizer.json"].decode())
        found = quantise(config, tokenizer, tensors, form.smoothing, report)
        tensors = found.tensors
        made = _Made(made.kind, dtype, found.quantisation, found.figures)
        settings["quantization_config"] = W8A8_CONFIG
    (work / "config.json").write_bytes(encode_json(settings))
    report("writing", 0, 1)
    save_file(tensors, str(work / SINGLE), metadata={"format": "pt"})
    return made


def _converted(name: str, tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return a tensor as it is stored; int8 weights and their scales stay what they are."""
    if tensor.dtype == torch.int8:
        return tensor.contiguous()
    wanted = torch.float32 if name.endswith(".weight_scale") else DTYPES[dtype]
    return tensor.to(wanted).contiguous()


def _read(work: Path) -> ModelFolder:
    """Read the JSON files as the worker does."""
    try:
        return ModelFolder.read(work)
    except EngineError as error:
        raise ConfigError(f"imported model: {error}") from None


def _accepted(work: Path) -> None:
    """Step 5: what the worker will read can be read."""
    folder = check_folder(work, stored_tensors(work / SINGLE))
    check_encoder(folder)
    try:
        Tokenizer(folder.tokenizer_json)
        if folder.template is not None:
            ChatTemplate(folder.template, folder.special)
    except EngineError as error:
        raise ConfigError(f"imported model: {error}") from None


def _seal(opened: ModelSource, work: Path, name: str, made: _Made, report: Report) -> Manifest:
    """Step 6: digest the files from disk and write the manifest."""
    digests: dict[str, str] = {}
    names = files_below(work)
    for index, file in enumerate(names):
        report("hashing", index, len(names))
        (work / file).chmod(0o644)
        digests[file] = digest(work / file)
        _sync(work / file)
    manifest = Manifest(
        name,
        opened.licence,
        opened.description,
        made.dtype,
        digests,
        made.kind,
        made.quantisation,
        made.figures,
    )
    (work / MANIFEST).write_bytes(manifest.encode())
    _sync(work / MANIFEST)
    report("hashing", len(names), len(names))
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
