"""Tensors from safetensors files. The format is a JSON header and raw numbers: nothing runs.

Every tensor is asked for by name and shape, and what nobody asked for is refused at the end: a
bias the configuration does not mention would otherwise be dropped in silence.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

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
_KINDS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I8": torch.int8}


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a tensor lies: from a byte of an open file on, numbers of a kind in a shape."""

    file: FileIO
    start: int
    kind: torch.dtype | None  # one that is never asked for
    shape: tuple[int, ...]

    def read(self, to: torch.Tensor) -> torch.Tensor:
        """Fill a tensor of this kind and size, and return it; raises ModelError."""
        room, done = to.view(-1).view(torch.uint8).numpy().data, 0
        while done < len(room):  # one read gives at most 2 GiB
            count = os.preadv(self.file.fileno(), [room[done:]], self.start + done)
            if count == 0:
                raise ModelError(f"model weights: found a file cut short, expected {len(room)} B")
            done += count
        return to


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
        self._where: dict[str, _Stored] = {}
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
                found = self._tensors(folder / name)
            except (OSError, SafetensorError, ValueError, LookupError) as error:
                raise ModelError(f"model file {name}: {type(error).__name__}: {error}") from None
            for key in found:
                if key in self._where or (index is not None and index.get(key) != name):
                    raise ModelError(f"model file {name}: found tensor {key!r} it should not hold")
            self._where |= found
        if index is not None and set(index) != set(self._where):
            missing = sorted(set(index) - set(self._where))
            raise ModelError(f"model file {INDEX}: names {missing[0]!r}, found in no shard")

    def _tensors(self, path: Path) -> dict[str, _Stored]:
        """The tensors of one file, in its order; the library has checked its header."""
        file = self._stack.enter_context(FileIO(path))
        with safe_open(path, framework="np") as checked:
            size = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
            header = json.loads(os.pread(file.fileno(), size, 8))
            parts = {name: checked.get_slice(name) for name in checked.offset_keys()}
            return {
                name: _Stored(
                    file,
                    8 + size + int(header[name]["data_offsets"][0]),
                    _KINDS.get(part.get_dtype()),
                    tuple(part.get_shape()),
                )
                for name, part in parts.items()
            }

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

        It is in the dtype asked for, or else the engine's; int8 is never converted. It is read,
        once, into memory that is ours: a tensor backed by the file would change when the file does,
        after the model has been measured, and would be in memory twice while it is laid out.
        """
        return self.stack({name: shape[0]}, *shape[1:], dtype=dtype)

    def stack(
        self, rows: Mapping[str, int], *shape: int, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return tensors of so many rows each as one, in this order; see `take`."""
        dtype = dtype or self._dtype
        found = [self._find(name, (n, *shape), dtype) for name, n in rows.items()]
        whole = torch.empty(sum(rows.values()), *shape, dtype=dtype)
        for stored, part in zip(found, torch.split(whole, [*rows.values()]), strict=True):
            if stored.kind == dtype:
                stored.read(part)
            else:
                part.copy_(stored.read(torch.empty(part.shape, dtype=stored.kind)))
        self._left.difference_update(rows)
        return whole

    def _find(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> _Stored:
        """Where a tensor lies, if it is what is expected."""
        stored = self._where.get(name)
        if stored is None:
            raise ModelError(f"model weights: found no tensor {name!r}, expected shape {shape}")
        if stored.shape != shape:
            raise ModelError(f"model weights {name}: found shape {stored.shape}, expected {shape}")
        expected = (torch.int8,) if dtype == torch.int8 else _FLOATS
        if stored.kind not in expected:
            raise ModelError(
                f"model weights {name}: found dtype {stored.kind}, expected one of {expected}"
            )
        return stored

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
