"""How much memory a model's worker will take, told before anything is started.

Weights are counted from the headers of the weight files; nothing of them is read. The sum is what
the worker holds once it is warm; that it fits is a promise about memory, never about speed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.models.encoder_config import EncoderConfig
from enclave_worker.engine.models.folder import ModelFolder
from wire.errors import ConfigError

#: Interpreter, torch and its libraries, tokenizer, buffers: measured on a warm worker.
PROGRAM_BYTES: Final = 600 << 20
_WIDTHS: Final = {"float32": 4, "bfloat16": 2}
_CELL: Final = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes one worker takes.

    Attributes:
        weights: as laid out in memory, with what loading needs on top of them.
        cache: keys and values, all pages in use; 0 for an encoder, which keeps none.
        program: everything else.
    """

    weights: int
    cache: int
    program: int = PROGRAM_BYTES

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.program

    def told(self) -> str:
        """A sentence part: the sum and its terms."""
        return (
            f"{mib(self.total)} MiB (weights {mib(self.weights)}, "
            f"{f'KV cache {mib(self.cache)}, ' if self.cache else ''}program {mib(self.program)})"
        )


def footprint(model_dir: Path, engine: EngineConfig) -> Footprint:
    """Estimate from the model's folder and the engine's settings; raises ConfigError."""
    try:
        shape = ModelFolder.read(model_dir).config
    except ModelError as error:
        raise ConfigError(str(error)) from None
    # An encoder runs in float32 whatever the settings of others are.
    width = 4 if isinstance(shape, EncoderConfig) else _WIDTHS.get(engine.dtype)
    weights = largest = 0
    for path in sorted(model_dir.glob("*.safetensors")):
        for count, stored in _tensors(path):
            # Integers keep their size in every mode; floats take the mode's.
            size = count * (stored if width is None or stored == 1 else width)
            weights, largest = weights + size, max(largest, size)
    if isinstance(shape, EncoderConfig):
        return Footprint(weights + largest, 0)
    if shape.tied:  # the head is laid out for products, the table stays as it is
        weights += shape.vocab_size * shape.hidden * (width or 2)
    cell = 4 if engine.dtype == "float32" else 2
    page = 2 * shape.layers * shape.kv_heads * shape.head_dim * PAGE_SIZE * cell
    return Footprint(weights + largest, engine.kv_pages * page)


def available() -> int:
    """Bytes this process's machine, or its control group, can still give."""
    free = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if most == "max" else min(free, max(int(most) - used, 0))


def mib(count: int) -> int:
    """Whole mebibytes, rounded up."""
    return -(-count >> 20)


def _tensors(path: Path) -> list[tuple[int, int]]:
    """(numbers, bytes a number) of each tensor of a file."""
    try:
        with safe_open(path, framework="np") as file:
            found = []
            for name in file.keys():  # noqa: SIM118 - not a mapping
                cells = file.get_slice(name)
                count = 1
                for side in cells.get_shape():
                    count *= side
                found.append((count, _CELL.get(cells.get_dtype(), 8)))
            return found
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ConfigError(f"model file {path.name}: {type(error).__name__}: {error}") from None
