"""What a model folder holds and needs, for people and programs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.models.config import ModelConfig
from enclave_worker.engine.models.encoder_config import EncoderConfig
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.load import load_encoder
from enclave_worker.engine.models.weights import SINGLE
from wire.errors import ConfigError

from .footprint import Footprint, footprint, mib
from .model_manifest import FILE, Manifest, read, verify
from .model_tensors import StoredTensor, check_tensors, stored_tensors
from .progress import Report

#: Of the KV pool, where nobody chose.
PAGES = EngineConfig().kv_pages


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model folder, opened.

    Attributes:
        manifest: what its manifest says.
        folder: what its JSON files say.
        tensors: what is in its weight file.
        pages: of the KV pool that `memory` counts with.
        memory: what a worker takes.
    """

    manifest: Manifest
    folder: ModelFolder
    tensors: tuple[StoredTensor, ...]
    pages: int
    memory: Footprint

    @property
    def config(self) -> ModelConfig | EncoderConfig:
        """Shape of the model."""
        return self.folder.config

    @property
    def parameters(self) -> int:
        """Numbers of the model; scales are how some are stored, not numbers of it."""
        return sum(t.count for t in self.tensors if not t.name.endswith("_scale"))

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight file."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def mode(self) -> str:
        """The worker's `dtype` that the weights are stored for."""
        return _mode(self.config, self.manifest)

    def kv_bytes(self) -> int:
        """Bytes of keys and values a token; 0 for an encoder, which keeps none."""
        c = self.config
        if isinstance(c, EncoderConfig):
            return 0
        return 2 * c.layers * c.kv_heads * c.head_dim * (4 if self.mode == "float32" else 2)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self.manifest) | {
            "serves": self.folder.serves,
            "mode": self.mode,
            "config": asdict(self.config),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "kv_bytes_per_token": self.kv_bytes(),
            "memory": {"pages": self.pages, "bytes": self.memory.total},
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        c, manifest = self.config, self.manifest
        yield manifest.name
        yield f"  licence       {manifest.licence}"
        yield f"  source        {manifest.source}"
        yield f"  architecture  {_architecture(c)}"
        yield f"  parameters    {self.parameters / 1e6:.1f} million"
        yield f"  weights       {self._weights()}, {mib(self.weight_bytes)} MiB"
        yield f"  serves        {self._serves()}"
        yield f"  context       {self.folder.longest} tokens"
        if isinstance(c, EncoderConfig):
            yield f"  memory        {self.memory.told()}"
        else:
            yield f"  KV cache      {self.kv_bytes()} bytes a token"
            pool = f"{self.pages} pages of {PAGE_SIZE} tokens"
            yield f"  memory        {self.memory.told()} with {pool}"
        if manifest.figures is not None:
            yield from manifest.figures.table()
        yield "files, SHA-256"
        for name in sorted(manifest.files):
            yield f"  {name}"
            yield f"    {manifest.files[name]}"

    def _serves(self) -> str:
        if self.folder.serves == "text":
            return "text"
        pooling = self.folder.pooling
        rows = {
            "mean": "the mean of all tokens",
            "last": "the last token",
            "first": "the first token",
        }
        length = " at length 1" if pooling.unit else ""
        return f"embeddings of {self.config.hidden} numbers, {rows[pooling.kind]}{length}"

    def _weights(self) -> str:
        made = self.manifest.quantisation
        if self.mode != "w8a8":
            return self.manifest.dtype
        if made is None:
            return "w8a8 (int8 as they came; no figures)"
        smoothing = "searched" if made.smoothing is None else f"{made.smoothing:g}"
        return f"w8a8 (int8, smoothing {smoothing}; head and embedding {self.manifest.dtype})"


def inspect(folder: Path, pages: int = PAGES) -> Inspection:
    """Open a model folder without reading its weights; raises ConfigError.

    Args:
        folder: the model folder.
        pages: of the KV pool to count memory with.
    """
    manifest = read(folder)
    tensors = stored_tensors(folder / SINGLE)
    opened = check_folder(folder, tensors)
    config = opened.config
    kind = "decoder" if isinstance(config, ModelConfig) else "encoder"
    if kind != manifest.kind:
        raise ConfigError(
            f"model folder {str(folder)!r}: {FILE}: found kind {manifest.kind!r}, expected "
            f"{kind!r}, which config.json describes"
        )
    mode = _mode(config, manifest)
    engine = EngineConfig(dtype=mode, kv_pages=pages)  # type: ignore[arg-type]
    return Inspection(manifest, opened, tuple(tensors), pages, footprint(folder, engine))


def check_model(folder: Path, report: Report) -> Manifest:
    """Check a model folder whole: digests, then what the files say; raises ConfigError.

    Args:
        folder: the model folder.
        report: hears of the bytes read.
    """
    total = sum(path.stat().st_size for path in folder.glob("**/*") if path.is_file())
    done = 0

    def chunk(size: int) -> None:
        nonlocal done
        done += size
        report("hashing", done, total)

    verify(folder, chunk)
    found = inspect(folder)
    check_encoder(found.folder)
    return found.manifest


def check_folder(folder: Path, tensors: list[StoredTensor]) -> ModelFolder:
    """Read the JSON files strictly and hold a decoder's tensors against them.

    Raises:
        ConfigError: naming what was found and what was expected.
    """
    try:
        opened = ModelFolder.read(folder)
    except ModelError as error:
        raise ConfigError(str(error)) from None
    if isinstance(opened.config, ModelConfig):
        check_tensors(opened.config, tensors)
    return opened


def check_encoder(folder: ModelFolder) -> None:
    """Load an encoder as the worker does: it is small. Others pass; raises ConfigError."""
    if isinstance(folder.config, ModelConfig):
        return
    try:
        load_encoder(folder)
    except ModelError as error:
        raise ConfigError(str(error)) from None


def _mode(config: ModelConfig | EncoderConfig, manifest: Manifest) -> str:
    """The worker's `dtype`; an encoder runs in float32 however it is stored."""
    if isinstance(config, EncoderConfig):
        return "float32"
    return "w8a8" if config.quantised else manifest.dtype


def _architecture(config: ModelConfig | EncoderConfig) -> str:
    if isinstance(config, EncoderConfig):
        return (
            f"bert encoder, {config.layers} layers of {config.hidden}, {config.heads} heads, "
            f"vocabulary {config.vocab_size}"
        )
    return (
        f"{config.architecture} decoder, {config.layers} layers of {config.hidden}, "
        f"{config.heads} heads on {config.kv_heads} key heads of {config.head_dim}, "
        f"vocabulary {config.vocab_size}"
    )
