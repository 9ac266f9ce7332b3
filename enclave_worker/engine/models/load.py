"""Which back end runs a model."""

import torch

from enclave_worker.engine.config import EngineConfig

from .back_end import BackEnd
from .decoder import Decoder
from .folder import ModelFolder
from .weights import Weights

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(folder: ModelFolder, config: EngineConfig, max_len: int) -> BackEnd:
    """Load a model's weights onto the back end its configuration names; raises ModelError."""
    dtype = _DTYPES[config.dtype]
    with Weights(folder.path, dtype) as weights:
        return Decoder(folder.config, weights, dtype, config.kv_pages, max_len)
