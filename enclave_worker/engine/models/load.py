"""Which back end runs a model, and on which kernels."""

from pathlib import Path

import torch

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.errors import KernelError
from enclave_worker.engine.ops.library import FOLDER, Library, candidates, library_path
from enclave_worker.engine.ops.packing import return_freed_memory
from enclave_worker.engine.ops.rows import TILE_ROWS
from enclave_worker.engine.ops.selftest import check

from .back_end import BackEnd
from .config import ModelConfig
from .decoder import Attention, Decoder
from .decoder_weights import DecoderWeights
from .encoder import Encoder
from .folder import ModelFolder
from .graphs import cuda_capture
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
        bits, device = _BITS.get(config.dtype), torch.device(config.device)
        shape = (folder.decoder, weights, dtype, config.kv_pages, max_len)
        attention = gpu_attention(config, folder.decoder, dtype) if device.type == "cuda" else None
        if attention is None:
            return Decoder(*shape, bits=bits, device=device)
        return Decoder(
            *shape,
            bits=bits,
            device=device,
            attention=attention,
            capture=cuda_capture(),
            max_batch=config.max_batch,
        )


def load_encoder(folder: ModelFolder) -> Encoder:
    """Load an encoder's weights; raises ModelError."""
    with Weights(folder.path, torch.float32) as weights:
        return Encoder(folder.encoder, weights, folder.pooling)


def gpu_attention(config: EngineConfig, model: ModelConfig, dtype: torch.dtype) -> Attention | None:
    """Triton's attention where it agrees with torch on the GPU; None for torch's own.

    Raises:
        KernelError: torch sees no GPU, or "triton" is named and cannot be used.
    """
    if not torch.cuda.is_available():
        raise KernelError("engine device: found no CUDA device that torch sees, expected one")
    if config.kernels == "reference":
        return None
    failed = f"found {model.heads // model.kv_heads} heads a key head, expected at most {TILE_ROWS}"
    if model.heads // model.kv_heads <= TILE_ROWS:
        try:
            from enclave_worker.engine.ops.triton_attention import agrees, triton_attention
        except ImportError:
            failed = "found no package triton, expected it installed"
        else:
            if agrees(torch.device(config.device), dtype):
                return triton_attention
            failed = "found attention that disagrees with torch, or does not compile"
    if config.kernels == "triton":
        raise KernelError(f"engine kernels triton: {failed}")
    return None


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
