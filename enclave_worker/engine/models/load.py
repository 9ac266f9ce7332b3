"""Which back end runs a model, and on which kernels."""

from pathlib import Path

import torch

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.errors import KernelError
from enclave_worker.engine.ops.library import FOLDER, Library, candidates, library_path
from enclave_worker.engine.ops.packing import return_freed_memory
from enclave_worker.engine.ops.selftest import check

from .back_end import BackEnd
from .decoder import Decoder
from .decoder_weights import DecoderWeights
from .encoder import Encoder
from .folder import ModelFolder
from .native_decoder import NativeDecoder
from .weights import Weights

_BITS = {"w8a8": 8, "w8a16": 16}


def load(folder: ModelFolder, config: EngineConfig, max_len: int) -> BackEnd:
    """Load a model's weights onto the back end its configuration names.

    Raises:
        KernelError: the kernels it names cannot be used, or its dtype needs some and none can.
        ModelError: the weights are not what config.json says.
    """
    library = choose(config)
    dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
    with Weights(folder.path, dtype) as weights:
        if library is not None:
            source = DecoderWeights(folder.decoder, weights)
            decoder = NativeDecoder(library, folder.decoder, source, config, max_len)
            return_freed_memory()
            return decoder
        bits = _BITS.get(config.dtype)
        return Decoder(folder.decoder, weights, dtype, config.kv_pages, max_len, bits=bits)


def load_encoder(folder: ModelFolder) -> Encoder:
    """Load an encoder's weights; raises ModelError."""
    with Weights(folder.path, torch.float32) as weights:
        return Encoder(folder.encoder, weights, folder.pooling)


def choose(config: EngineConfig, folder: Path = FOLDER) -> Library | None:
    """The first library that a configuration allows and that agrees with torch; None for torch.

    Raises:
        KernelError: none may be missing and none can be used; says why the last one cannot.
    """
    failed: KernelError | None = None
    for name in candidates(config, folder):
        try:
            library = Library(name, library_path(name, folder))
            check(library)
        except KernelError as error:
            failed = error
        else:
            return library
    if failed is not None and (config.kernels != "auto" or config.dtype != "bfloat16"):
        raise failed
    return None
