"""A GGUF file of Llama, Qwen2 or Qwen3 as a Hugging Face folder: names, shapes, configuration.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from wire.errors import ConfigError
from wire.excerpt import json_value, shown

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
_LAYER_NAME = re.compile(r"blk\.(\d{1,4})\.([a-z_]+)\.(weight|bias)")
# Keys of an architecture this import understands; any other might change the mathematics.
_KEYS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
_DECIMAL = ("rms_norm_eps", "rope_theta")
_CHECKED = ("attention.value_length", "rope.dimension_count")


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What sets an architecture apart: its name in config.json and tensors beyond Llama's.

    llama.cpp turns pairs of neighbours where Hugging Face turns halves, and lays Llama's queries
    and keys out for that. For the others it turns halves too, and leaves them as they are.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    norms: Mapping[str, str] = field(default_factory=dict)
    permuted: tuple[str, ...] = ()


_ARCHITECTURES = {
    "llama": _Architecture(
        "LlamaForCausalLM",
        config={"attention_bias": False, "mlp_bias": False},
        permuted=("attn_q", "attn_k"),
    ),
    "qwen2": _Architecture(
        "Qwen2ForCausalLM",
        config={"use_sliding_window": False},
        biases=("attn_q", "attn_k", "attn_v"),
    ),
    "qwen3": _Architecture(
        "Qwen3ForCausalLM",
        config={"use_sliding_window": False, "attention_bias": False},
        norms={"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    ),
}
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
        name = self.metadata.get("general.architecture")
        if not isinstance(name, str) or name not in _ARCHITECTURES:
            raise ConfigError(
                f"model file {path.name}: found architecture {shown(str(name))}, expected one of "
                f"{', '.join(_ARCHITECTURES)}"
            )
        self._prefix, self._architecture = name, _ARCHITECTURES[name]
        self._names = {t.name: self._hf_name(t.name) for t in self._reader.tensors}
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
            if layer is not None and layer[2] in self._architecture.permuted:
                values = _unpermute(values, heads[layer[2]])
            yield self._names[tensor.name], torch.from_numpy(values)

    def _config(self) -> dict[str, Any]:
        """Translate the metadata into config.json; raises ConfigError for unknown keys."""
        meta, prefix = self.metadata, f"{self._prefix}."
        shape = {k.removeprefix(prefix): v for k, v in meta.items() if k.startswith(prefix)}
        for key in shape:
            if key not in _KEYS and key not in _CHECKED:
                raise ConfigError(
                    f"GGUF metadata: found key {prefix + key!r}, which is not understood"
                )
        config: dict[str, Any] = {
            name: _positive(prefix + key, shape[key], whole=name not in _DECIMAL)
            for key, name in _KEYS.items()
            if key in shape
        }
        missing = sorted({"num_attention_heads", "num_hidden_layers", "hidden_size"} - set(config))
        if missing:
            raise ConfigError(f"GGUF metadata: found no {missing[0]}")
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        config.setdefault("num_key_value_heads", config["num_attention_heads"])
        tokens = meta.get("tokenizer.ggml.tokens")
        config.setdefault("vocab_size", len(tokens) if isinstance(tokens, list) else 0)
        for key in _CHECKED:
            if shape.get(key, config["head_dim"]) != config["head_dim"]:
                raise ConfigError(
                    f"GGUF metadata {prefix}{key}: found {json_value(shape[key])}, expected "
                    f"{config['head_dim']}"
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
            **self._architecture.config,
            "architectures": [self._architecture.name],
            "model_type": self._prefix,
            "hidden_act": "silu",
            "tie_word_embeddings": "output.weight" not in self._names,
        }

    def _hf_name(self, name: str) -> str:
        """Translate a tensor's name; raises ConfigError for those the architecture has not."""
        if name in _GLOBAL:
            return _GLOBAL[name]
        match, own = _LAYER_NAME.fullmatch(name), self._architecture
        if match is not None and (match[3] == "weight" or match[2] in own.biases):
            part = {**_LAYER, **own.norms}.get(match[2])
            if part is not None:
                return f"model.layers.{match[1]}.{part}.{match[3]}"
        raise ConfigError(
            f"GGUF tensors: found {name!r}, which is not understood",
            hint="import the Hugging Face folder of the model instead",
        )


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


def _positive(key: str, value: Any, *, whole: bool) -> int | float:
    """Return a number of the model's shape; the format lets any key hold any type."""
    if type(value) is int or (type(value) is float and not whole and math.isfinite(value)):
        number: int | float = value
        if number > 0:
            return number
    raise ConfigError(
        f"GGUF metadata {key}: found {json_value(value)}, expected "
        f"{'an integer' if whole else 'a number'} above 0"
    )


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
