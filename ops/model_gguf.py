"""A GGUF file of the Llama family as a Hugging Face folder: names, shapes, configuration.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from wire.errors import ConfigError
from wire.excerpt import json_value

_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d{1,4})\.([a-z_]+)\.weight")
# Keys of the "llama" architecture this import understands; any other might change the mathematics.
_KEYS = {
    "llama.attention.head_count": "num_attention_heads",
    "llama.attention.head_count_kv": "num_key_value_heads",
    "llama.attention.key_length": "head_dim",
    "llama.attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "llama.block_count": "num_hidden_layers",
    "llama.context_length": "max_position_embeddings",
    "llama.embedding_length": "hidden_size",
    "llama.feed_forward_length": "intermediate_size",
    "llama.rope.freq_base": "rope_theta",
    "llama.vocab_size": "vocab_size",
}
_DECIMAL = ("rms_norm_eps", "rope_theta")
_CHECKED = ("llama.attention.value_length", "llama.rope.dimension_count")
_MAGIC = b"GGUF"
# What gguf can undo; everything a Llama file on PyPI or the Hub commonly uses.
_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")


class GgufModel:
    """An open GGUF file.

    Attributes:
        metadata: keys and values.
        config: the equivalent config.json.
        generation: the equivalent generation_config.json.
    """

    def __init__(self, path: Path) -> None:
        """Read the header; raises ConfigError naming what is not understood."""
        try:
            self._reader = gguf.GGUFReader(path)
            self.metadata: Mapping[str, Any] = {
                name: field.contents() for name, field in self._reader.fields.items()
            }
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ConfigError(
                f"model file {path}: found {_begins(path)}, expected a whole GGUF file",
                hint="fetch the file again: it is cut short, damaged or of another format",
            ) from error
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ConfigError(
                f"model file {path.name}: found architecture {architecture!r}, expected 'llama'"
            )
        self._names = {t.name: _hf_name(t.name) for t in self._reader.tensors}
        self.config = self._config()
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        self.generation = {key: self.config[key] for key in special if key in self.config}

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(int(t.n_elements) for t in self._reader.tensors)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (Hugging Face name, float32 tensor) of every tensor."""
        heads = {
            "attn_q": self.config["num_attention_heads"],
            "attn_k": self.config["num_key_value_heads"],
        }
        for tensor in self._reader.tensors:
            if tensor.tensor_type.name not in _TYPES:
                raise ConfigError(
                    f"GGUF tensor {tensor.name}: found type {tensor.tensor_type.name}, "
                    f"expected one of {', '.join(_TYPES)}"
                )
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            values = np.array(values, dtype=np.float32).reshape(tensor.shape[::-1].tolist())
            layer = _LAYER_NAME.fullmatch(tensor.name)
            if layer is not None and layer[2] in heads:
                values = _unpermute(values, heads[layer[2]])
            yield self._names[tensor.name], torch.from_numpy(values)

    def _config(self) -> dict[str, Any]:
        """Translate the metadata into config.json; raises ConfigError for unknown keys."""
        meta = self.metadata
        for key in meta:
            if key.startswith("llama.") and key not in _KEYS and key not in _CHECKED:
                raise ConfigError(f"GGUF metadata: found key {key!r}, which is not understood")
        config = {name: _positive(key, meta[key]) for key, name in _KEYS.items() if key in meta}
        missing = sorted({"num_attention_heads", "num_hidden_layers", "hidden_size"} - set(config))
        if missing:
            raise ConfigError(f"GGUF metadata: found no {missing[0]}")
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        config.setdefault("num_key_value_heads", config["num_attention_heads"])
        tokens = meta.get("tokenizer.ggml.tokens")
        config.setdefault("vocab_size", len(tokens) if isinstance(tokens, list) else 0)
        for key in _CHECKED:
            if meta.get(key, config["head_dim"]) != config["head_dim"]:
                raise ConfigError(
                    f"GGUF metadata {key}: found {meta[key]}, expected {config['head_dim']}"
                )
        for key in _DECIMAL:
            # Stored as float32: the shortest decimal that reads back the same is what was meant.
            if key in config:
                config[key] = float(str(np.float32(config[key])))
        for name in ("bos", "eos", "padding"):
            token = meta.get(f"tokenizer.ggml.{name}_token_id")
            if type(token) is int:  # the tokenizer's files refuse any other
                config[f"{name.replace('padding', 'pad')}_token_id"] = int(token)
        return config | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": "output.weight" not in self._names,
        }


def _begins(path: Path) -> str:
    """How a file that is no GGUF begins, and its size."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
        size = f"{path.stat().st_size} bytes"
    except OSError as error:
        return f"nothing readable ({error.strerror})"
    if magic == _MAGIC:
        return f"{size} that begin like GGUF and cannot be read to their end"
    return f"{size} that begin with {magic.hex() or 'nothing'} instead of {_MAGIC.hex()} (GGUF)"


def _positive(key: str, value: Any) -> int | float:
    """Return a number of the model's shape; the format lets any key hold any type."""
    whole = _KEYS[key] not in _DECIMAL
    if type(value) is int or (type(value) is float and not whole and math.isfinite(value)):
        number: int | float = value
        if number > 0:
            return number
    raise ConfigError(
        f"GGUF metadata {key}: found {json_value(value)}, expected "
        f"{'an integer' if whole else 'a number'} above 0"
    )


def _hf_name(name: str) -> str:
    """Translate a tensor's name."""
    if name in _GLOBAL:
        return _GLOBAL[name]
    match = _LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in _LAYER:
        raise ConfigError(
            f"GGUF tensors: found {name!r}, which is not understood",
            hint="import the Hugging Face folder of the model instead",
        )
    return f"model.layers.{match[1]}.{_LAYER[match[2]]}.weight"


def _unpermute(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's interleaving of each head's two rotary halves."""
    if weight.ndim != 2 or weight.shape[0] % (2 * heads):
        raise ConfigError(
            f"GGUF tensors: found attention weights of shape {weight.shape}, expected rows for "
            f"{heads} heads of two halves"
        )
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)
