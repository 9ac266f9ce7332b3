"""config.json read strictly: what changes the mathematics is supported or refused by name.

A key this module does not know is refused. Silently ignoring one (a sliding window, a scaling of
the residual stream) would load, run, and answer wrongly: the worst way to fail.
Source of the names: Hugging Face's `LlamaConfig`, in its v4 and v5 spellings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from enclave_worker.engine.errors import ModelConfigError

# Keys that say nothing about inference arithmetic.
# fmt: off
_IGNORED = frozenset(
    (
        "_name_or_path", "_attn_implementation", "attention_dropout", "architectures",
        "bos_token_id", "dtype", "eos_token_id", "initializer_range", "is_llama_config",
        "model_type", "name_or_path", "pad_token_id", "torch_dtype", "transformers.js_config",
        "transformers_version", "unk_token_id", "use_cache", "chunk_size_feed_forward",
        "id2label", "label2id", "output_attentions", "output_hidden_states", "problem_type",
        "return_dict",
    )
)
# fmt: on
# Keys that would change the arithmetic, with the values for which they do not.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "pretraining_tp": (1, None),
    "rope_interleaved": (False, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, 1, None),
    "quantization_config": (None,),
    "is_encoder_decoder": (False, None),
    "is_decoder": (False, True, None),
    "layer_types": (None,),
    "attention_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "embedding_multiplier": (1.0, None),
    "logits_scaling": (1.0, None),
}
# fmt: off
_READ = frozenset(
    (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps",
        "max_position_embeddings", "tie_word_embeddings", "attention_bias", "mlp_bias",
        "hidden_act", "rope_theta", "rope_scaling", "rope_parameters",
    )
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: base frequency and how it is stretched.

    `factor` divides every frequency in kind "linear"; in kind "llama3" it divides the long waves,
    with a smooth passage between the two wavelengths given by the original context length.
    """

    theta: float
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Llama-family decoder."""

    vocab_size: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    max_positions: int
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    rope: Rope


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a parsed config.json; raises ModelConfigError naming the key, found and expected."""
    architectures = raw.get("architectures")
    if architectures != ["LlamaForCausalLM"]:
        raise ModelConfigError(
            f"config.json architectures: found {architectures!r}, expected ['LlamaForCausalLM']"
        )
    if raw.get("model_type", "llama") != "llama":
        raise ModelConfigError(
            f"config.json model_type: found {raw['model_type']!r}, expected 'llama'"
        )
    for key, value in raw.items():
        if key in _HARMLESS:
            if value not in _HARMLESS[key]:
                raise ModelConfigError(
                    f"config.json {key}: found {value!r}, which is not supported; "
                    f"expected {_HARMLESS[key][0]!r} or no such key"
                )
        elif key not in _READ and key not in _IGNORED:
            raise ModelConfigError(f"config.json: found unknown key {key!r}, which might matter")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelConfigError(
            f"config.json hidden_act: found {raw['hidden_act']!r}, expected 'silu'"
        )
    hidden, heads = _count(raw, "hidden_size"), _count(raw, "num_attention_heads")
    kv_heads = _count(raw, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelConfigError(
            f"config.json num_key_value_heads: found {kv_heads}, expected a divisor of {heads}"
        )
    head_dim = _count(raw, "head_dim", hidden // heads)
    if head_dim % 2:
        raise ModelConfigError(f"config.json head_dim: found {head_dim}, expected an even number")
    return ModelConfig(
        vocab_size=_count(raw, "vocab_size"),
        hidden=hidden,
        intermediate=_count(raw, "intermediate_size"),
        layers=_count(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=_positive(raw, "rms_norm_eps", 1e-6),
        max_positions=_count(raw, "max_position_embeddings", 2048),
        tied=_flag(raw, "tie_word_embeddings"),
        attention_bias=_flag(raw, "attention_bias"),
        mlp_bias=_flag(raw, "mlp_bias"),
        rope=_rope(raw),
    )


def _rope(raw: Mapping[str, Any]) -> Rope:
    """Read rope_theta + rope_scaling (v4 spelling) or rope_parameters (v5 spelling)."""
    theta = _positive(raw, "rope_theta", 10_000.0)
    where, table = "rope_scaling", raw.get("rope_scaling")
    if raw.get("rope_parameters") is not None:
        where, table = "rope_parameters", raw["rope_parameters"]
    if table is None:
        return Rope(theta)
    if not isinstance(table, dict):
        raise ModelConfigError(f"config.json {where}: found {type(table).__name__}, expected {{}}")
    theta = _positive(table, "rope_theta", theta)
    kind = table.get("rope_type", table.get("type", "default"))
    names: set[str] = {"rope_type", "type", "rope_theta"}
    if kind == "linear":
        names |= {"factor"}
    elif kind == "llama3":
        names |= {"factor", "low_freq_factor", "high_freq_factor"}
        names |= {"original_max_position_embeddings"}
    elif kind != "default":
        raise ModelConfigError(
            f"config.json {where}: found type {kind!r}, expected 'default', 'linear' or 'llama3'"
        )
    unknown = sorted(k for k, v in table.items() if k not in names and v is not None)
    if unknown and not (unknown == ["partial_rotary_factor"] and table[unknown[0]] == 1):
        raise ModelConfigError(
            f"config.json {where}: found key {unknown[0]!r}, not known for type {kind!r}"
        )
    if kind == "default":
        return Rope(theta)
    factor = _positive(table, "factor", None)
    if kind == "linear":
        return Rope(theta, "linear", factor)
    low = _positive(table, "low_freq_factor", None)
    high = _positive(table, "high_freq_factor", None)
    if high <= low:
        raise ModelConfigError(
            f"config.json {where} high_freq_factor: found {high}, expected more than {low}"
        )
    original = _count(table, "original_max_position_embeddings")
    return Rope(theta, "llama3", factor, low, high, original)


def _count(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return a positive integer of the table."""
    value = raw.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ModelConfigError(f"config.json {key}: found {value!r}, expected an integer >= 1")
    return value


def _positive(raw: Mapping[str, Any], key: str, default: float | None) -> float:
    """Return a positive finite number of the table."""
    value: Any = raw.get(key)
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ModelConfigError(f"config.json {key}: found {value!r}, expected a positive number")
    return float(value)


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    """Return a boolean of the table; absent means False."""
    value = raw.get(key)
    value = False if value is None else value
    if type(value) is not bool:
        raise ModelConfigError(f"config.json {key}: found {value!r}, expected true or false")
    return value
