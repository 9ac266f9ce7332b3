"""What a worker's model folder is for: text (an engine), or vectors (an embedder)."""

from pathlib import Path

from .engine.config import EngineConfig
from .engine.embedder import Embedder
from .engine.engine import Engine
from .engine.models.encoder_config import EncoderConfig
from .engine.models.folder import ModelFolder
from .settled_engine import check_encoder


def served_model(path: Path, settings: EngineConfig) -> Engine | Embedder:
    """The model of a folder, not started.

    Raises:
        KernelError: the settings are not what such a model runs with.
        ModelError: no such folder can be served.
    """
    folder = ModelFolder.read(path)
    if isinstance(folder.config, EncoderConfig):
        check_encoder(settings)
    return Engine(path, settings) if folder.serves == "text" else Embedder(path, settings)
