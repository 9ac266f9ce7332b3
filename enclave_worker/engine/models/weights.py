"""Tensors from safetensors files. The format is a JSON header and raw numbers: nothing runs.

Every tensor is asked for by name and shape, and what nobody asked for is refused at the end: a
bias the configuration does not mention would otherwise be dropped in silence.
"""

import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open

from enclave_worker.engine.errors import ModelError

from .folder import INDEX_MAX_BYTES, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# A shard is a plain file beside the index: a path in it could reach outside the measured folder.
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
# Recomputed from config.json; older checkpoints carry it.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Weights:
    """The open weight files of one model folder; a context manager."""

    def __init__(self, folder: Path, dtype: torch.dtype, single: str = SINGLE) -> None:
        """Open every file and check that the names are complete; raises ModelError.

        Args:
            folder: holds one file `single`, or an index and its shards.
            dtype: of the tensors taken.
            single: name of the file.
        """
        self._dtype = dtype
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}
        self._left: set[str] = set()
        try:
            self._open(folder, single)
        except BaseException:
            self._stack.close()
            raise
        self._left = {name for name in self._where if not _DERIVED.fullmatch(name)}

    def _open(self, folder: Path, single: str) -> None:
        """Map every tensor name to the file that holds it."""
        if (folder / single).exists():
            names, index = [single], None
        elif (folder / INDEX).exists():
            index = read_json(folder / INDEX, INDEX_MAX_BYTES).get("weight_map")
            if not isinstance(index, dict) or not all(isinstance(v, str) for v in index.values()):
                raise ModelError(f"model file {INDEX}: expected a weight_map of file names")
            names = sorted(set(index.values()))
        else:
            raise ModelError(
                f"model folder {folder.name!r}: found no {single} and no {INDEX}, expected one "
                "(other weight formats can run code when loaded and are never read)"
            )
        for name in names:
            if not _SHARD.fullmatch(name):
                raise ModelError(f"model file {INDEX}: found shard name {name!r}, expected a file")
        for name in names:
            try:
                file = self._stack.enter_context(safe_open(folder / name, framework="pt"))
                keys = list(file.keys())
            except (OSError, SafetensorError) as error:
                raise ModelError(f"model file {name}: {type(error).__name__}: {error}") from None
            for key in keys:
                if key in self._where or (index is not None and index.get(key) != name):
                    raise ModelError(f"model file {name}: found tensor {key!r} it should not hold")
                self._where[key] = file
        if index is not None and set(index) != set(self._where):
            missing = sorted(set(index) - set(self._where))
            raise ModelError(f"model file {INDEX}: names {missing[0]!r}, found in no shard")

    def __enter__(self) -> Self:
        """Return self; the files close on exit."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        """Whether the model has this tensor."""
        return name in self._where

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return one tensor; raises ModelError on absence, other shape or other kind of numbers.

        It is in the dtype asked for, or else the engine's; int8 is never converted. The copy is
        ours: a tensor still backed by the file would change when the file does, after the model
        has been measured.
        """
        file = self._where.get(name)
        if file is None:
            raise ModelError(f"model weights: found no tensor {name!r}, expected shape {shape}")
        found = tuple(file.get_slice(name).get_shape())
        if found != shape:
            raise ModelError(f"model weights {name}: found shape {found}, expected {shape}")
        tensor: torch.Tensor = file.get_tensor(name)
        expected = (torch.int8,) if dtype == torch.int8 else _FLOATS
        if tensor.dtype not in expected:
            raise ModelError(
                f"model weights {name}: found dtype {tensor.dtype}, expected one of {expected}"
            )
        self._left.discard(name)
        return tensor.to(dtype or self._dtype, copy=True)

    def skip(self, name: str) -> None:
        """Leave out a tensor that is known to be redundant."""
        self._left.discard(name)

    def finish(self) -> None:
        """Refuse tensors nobody took (ModelError)."""
        if self._left:
            raise ModelError(
                f"model weights: found {len(self._left)} tensors config.json does not account for, "
                f"first {min(self._left)!r}"
            )
