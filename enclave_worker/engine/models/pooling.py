"""How the vectors of a text's tokens become the text's own: its embedding.

Read from the files of sentence-transformers where a model has them: modules.json names the steps
after the network, 1_Pooling/config.json the kind of the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from enclave_worker.engine.errors import ModelConfigError

from .config_reader import ConfigReader

if TYPE_CHECKING:  # a launcher reads folders and computes nothing
    from collections.abc import Mapping

    import torch

MODULES = "modules.json"
SETTINGS = "1_Pooling/config.json"
TEXTS = "sentence_bert_config.json"
_NAME = "sentence_transformers.models."
_STEPS = [f"{_NAME}Transformer", f"{_NAME}Pooling", f"{_NAME}Normalize"]
_KINDS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "first",
}
_OTHERS = (
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
)
_HARMLESS: Mapping[str, tuple[Any, ...]] = dict.fromkeys(_OTHERS, (False, None))
_SHORTEST = 1e-12  # a vector of zeros has no direction to keep


@dataclass(frozen=True, slots=True)
class Pooling:
    """Which token's vector, or the mean of all; `unit` scales the result to length 1."""

    kind: Literal["mean", "last", "first"]
    unit: bool = True

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 [tokens, hidden] of one text -> [hidden]."""
        rows = {"mean": hidden, "last": hidden[-1:], "first": hidden[:1]}[self.kind]
        pooled = rows.mean(0)
        return pooled / pooled.norm().clamp_min(_SHORTEST) if self.unit else pooled


def read_pooling(modules: Any, settings: Mapping[str, Any], hidden: int) -> Pooling:
    """Read the two files; raises ModelConfigError for what would give other vectors.

    Args:
        modules: modules.json.
        settings: 1_Pooling/config.json.
        hidden: the model's width.
    """
    steps = [step.get("type") for step in modules if isinstance(step, dict)]
    if steps not in (_STEPS[:2], _STEPS):
        raise ModelConfigError(f"{MODULES}: found steps {steps}, expected {_STEPS}")
    config = ConfigReader(settings, SETTINGS)
    config.only((*_KINDS, "word_embedding_dimension", "include_prompt"), _HARMLESS)
    if settings.get("include_prompt") not in (True, None):
        raise config.refuse("include_prompt", "true")
    if config.count("word_embedding_dimension", hidden) != hidden:
        raise config.refuse("word_embedding_dimension", str(hidden))
    chosen: list[Any] = [kind for key, kind in _KINDS.items() if config.flag(key)]
    if len(chosen) != 1:
        raise ModelConfigError(f"{SETTINGS}: found kinds {chosen}, expected one of {[*_KINDS]}")
    return Pooling(chosen[0], unit=len(steps) == len(_STEPS))


def read_longest(texts: Mapping[str, Any], positions: int) -> int:
    """Most tokens of a text by sentence_bert_config.json; raises ModelConfigError.

    Args:
        texts: that file; {} where there is none.
        positions: the model's own most.
    """
    config = ConfigReader(texts, TEXTS)
    config.only(("max_seq_length",), {"do_lower_case": (False, None)})
    return min(config.count("max_seq_length", positions), positions)
