"""config.json of a decoder, read strictly: what changes the mathematics is read or refused.

Three architectures, one family: Qwen2 adds biases to the attention's inputs, Qwen3 normalises
queries and keys per head instead. A key this module does not know is refused.
Source of the names: Hugging Face's `LlamaConfig`, `Qwen2Config` and `Qwen3Config`, in their v4 and
v5 spellings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config_reader import ConfigReader
from .quantisation import is_quantised
from .rope import Rope, read_rope

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# fmt: off
# Keys that say nothing about inference arithmetic.
IGNORED = (
    "_name_or_path", "_attn_implementation", "attention_dropout", "architectures",
    "bos_token_id", "dtype", "eos_token_id", "initializer_range", "is_llama_config",
    "model_type", "name_or_path", "pad_token_id", "torch_dtype", "transformers.js_config",
    "transformers_version", "unk_token_id", "use_cache", "chunk_size_feed_forward",
    "id2label", "label2id", "output_attentions", "output_hidden_states", "problem_type",
    "return_dict",
)
# Keys that would change the arithmetic, with the values for which they do not.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "pretraining_tp": (1, None),
    "rope_interleaved": (False, None),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, 1, None),
    "is_encoder_decoder": (False, None),
    "is_decoder": (False, True, None),
    "attention_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "embedding_multiplier": (1.0, None),
    "logits_scaling": (1.0, None),
}
_READ = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps",
    "max_position_embeddings", "tie_word_embeddings", "hidden_act", "rope_theta", "rope_scaling",
    "rope_parameters", "quantization_config", "layer_types", "sliding_window",
)
# What each architecture reads beyond that. Qwen's window has a size even where it is not in use.
_OWN = {
    "llama": ("attention_bias", "mlp_bias"),
    "qwen2": ("max_window_layers",),
    "qwen3": ("max_window_layers", "attention_bias"),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder.

    Attributes:
        architecture: "llama", "qwen2" or "qwen3".
        max_positions: longest sequence the model is made for.
        tied: the output head is the embedding.
        qkv_bias: queries, keys and values have biases.
        output_bias: the attention's output has one.
        mlp_bias: so have the three products of the feed-forward network.
        qk_norm: queries and keys are normalised per head before they are rotated.
        quantised: weights of the layers are int8 (see `quantisation`).
    """

    architecture: str
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
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    quantised: bool
    rope: Rope


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a parsed config.json; raises ModelConfigError naming the key, found and expected."""
    config = ConfigReader(raw)
    if raw.get("architectures") not in [[name] for name in ARCHITECTURES]:
        raise config.refuse("architectures", f"one of {sorted(ARCHITECTURES)} in a list")
    family = ARCHITECTURES[raw["architectures"][0]]
    config.word("model_type", family)
    config.only((*_READ, *IGNORED, *_OWN[family]), _HARMLESS)
    config.word("hidden_act", "silu")
    if family == "llama" and raw.get("sliding_window") is not None:
        raise config.refuse("sliding_window", "None, or no such key")
    llama = family == "llama"  # the defaults of the others differ: they have to say
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    layers = config.count("num_hidden_layers")
    if raw.get("layer_types") not in (None, ["full_attention"] * layers):
        raise config.refuse("layer_types", f"{layers} times 'full_attention'")
    kv_heads = config.count("num_key_value_heads", heads if llama else None)
    if heads % kv_heads:
        raise config.refuse("num_key_value_heads", f"a divisor of {heads}")
    head_dim = config.count("head_dim", hidden // heads if family != "qwen3" else None)
    if head_dim % 2:
        raise config.refuse("head_dim", "an even number")
    rope = read_rope(config)
    positions = config.count("max_position_embeddings", 2048 if llama else None)
    if rope.kind == "yarn":  # names the context before it was stretched
        positions = max(positions, int(rope.original_context * rope.factor))
    biased = config.flag("attention_bias")
    return ModelConfig(
        architecture=family,
        vocab_size=config.count("vocab_size"),
        hidden=hidden,
        intermediate=config.count("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=config.positive("rms_norm_eps", 1e-6),
        max_positions=positions,
        tied=config.flag("tie_word_embeddings"),
        qkv_bias=biased or family == "qwen2",
        output_bias=biased,
        mlp_bias=config.flag("mlp_bias"),
        qk_norm=family == "qwen3",
        quantised=is_quantised(raw.get("quantization_config")),
        rope=rope,
    )
