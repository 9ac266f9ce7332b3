"""config.json of a BERT-class encoder, read strictly.

Source of the names: Hugging Face's `BertConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import IGNORED
from .config_reader import ConfigReader

ARCHITECTURE = "BertModel"
# fmt: off
_READ = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act",
)
# Dropout and classifiers are for training; nothing is generated, so nothing is cached or tied.
_UNUSED = (
    "attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout",
    "gradient_checkpointing", "tie_word_embeddings",
)
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The shape of an encoder."""

    vocab_size: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    max_positions: int
    types: int
    norm_eps: float


def parse_encoder_config(raw: Mapping[str, Any]) -> EncoderConfig:
    """Read a parsed config.json; raises ModelConfigError naming the key, found and expected."""
    config = ConfigReader(raw)
    if raw.get("architectures") != [ARCHITECTURE]:
        raise config.refuse("architectures", f"['{ARCHITECTURE}']")
    config.word("model_type", "bert")
    config.only((*_READ, *IGNORED, *_UNUSED), _HARMLESS)
    config.word("hidden_act", "gelu")
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    if hidden % heads:
        raise config.refuse("num_attention_heads", f"a divisor of {hidden}")
    return EncoderConfig(
        vocab_size=config.count("vocab_size"),
        hidden=hidden,
        intermediate=config.count("intermediate_size"),
        layers=config.count("num_hidden_layers"),
        heads=heads,
        max_positions=config.count("max_position_embeddings", 512),
        types=config.count("type_vocab_size", 2),
        norm_eps=config.positive("layer_norm_eps", 1e-12),
    )
