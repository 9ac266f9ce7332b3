"""A decoder's weights, layer by layer, so that a back end can lay out each and drop it.

Names are Hugging Face's for Llama, Qwen2 and Qwen3. Projections that read the same input come
stacked.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from enclave_worker.engine.errors import ModelError

from .config import ModelConfig
from .weights import Weights


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """Weights of y = x @ weight.T (* scale) + bias.

    Attributes:
        weight: [n, k] in the dtype `Weights` was opened with, or int8.
        scale: float32 [n] of int8 weights, else None.
        bias: float32 [n], or None.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; norms are float32.

    Attributes:
        attention_norm: [hidden].
        qkv: [(heads + 2 * kv_heads) * head_dim, hidden], in this order.
        output: [hidden, heads * head_dim].
        mlp_norm: [hidden].
        gate_up: [2 * intermediate, hidden], the gate first.
        down: [hidden, intermediate].
        query_norm: [head_dim], or None.
        key_norm: [head_dim], or None.
    """

    attention_norm: torch.Tensor
    qkv: LinearWeights
    output: LinearWeights
    mlp_norm: torch.Tensor
    gate_up: LinearWeights
    down: LinearWeights
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


class DecoderWeights:
    """Reads a decoder's tensors; each method raises ModelError for what is missing or misshapen."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """Read from open files."""
        self._config = config
        self._weights = weights

    def embedding(self) -> torch.Tensor:
        """[vocab, hidden]."""
        c = self._config
        return self._weights.take("model.embed_tokens.weight", c.vocab_size, c.hidden)

    def layers(self) -> Iterator[LayerWeights]:
        """Yield the layers in order."""
        return (self._layer(f"model.layers.{i}.") for i in range(self._config.layers))

    def norm(self) -> torch.Tensor:
        """The last norm, float32 [hidden]."""
        return self._norm("model.norm", self._config.hidden)

    def head(self) -> torch.Tensor | None:
        """The output head, [vocab, hidden] and never int8; None where it is the embedding."""
        c = self._config
        if c.tied:
            self._weights.skip("lm_head.weight")
            return None
        return self._weights.take("lm_head.weight", c.vocab_size, c.hidden)

    def finish(self) -> None:
        """Refuse tensors nobody took: a bias would otherwise be dropped in silence."""
        self._weights.finish()

    def _layer(self, prefix: str) -> LayerWeights:
        """Take one layer."""
        c = self._config
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        q, kv, wide = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.intermediate
        qkv = {"q_proj": q, "k_proj": kv, "v_proj": kv}
        return LayerWeights(
            self._norm(f"{prefix}input_layernorm", c.hidden),
            self._linear(attention, qkv, c.hidden, bias=c.qkv_bias),
            self._linear(attention, {"o_proj": c.hidden}, q, bias=c.output_bias),
            self._norm(f"{prefix}post_attention_layernorm", c.hidden),
            self._linear(mlp, {"gate_proj": wide, "up_proj": wide}, c.hidden, bias=c.mlp_bias),
            self._linear(mlp, {"down_proj": c.hidden}, wide, bias=c.mlp_bias),
            self._norm(f"{attention}q_norm", c.head_dim) if c.qk_norm else None,
            self._norm(f"{attention}k_norm", c.head_dim) if c.qk_norm else None,
        )

    def _norm(self, name: str, size: int) -> torch.Tensor:
        """Take the weights of a norm."""
        return self._weights.take(f"{name}.weight", size, dtype=torch.float32)

    def _linear(
        self, prefix: str, rows: dict[str, int], columns: int, *, bias: bool
    ) -> LinearWeights:
        """Take the named projections, stacked."""

        def stack(kind: str, *shape: int, dtype: torch.dtype | None) -> torch.Tensor:
            named = {f"{prefix}{name}.{kind}": n for name, n in rows.items()}
            return self._weights.stack(named, *shape, dtype=dtype)

        quantised = self._config.quantised
        weight = stack("weight", columns, dtype=torch.int8 if quantised else None)
        scale = stack("weight_scale", 1, dtype=torch.float32).view(-1) if quantised else None
        if scale is not None and not bool((scale.isfinite() & (scale >= 0)).all()):
            raise ModelError(f"model weights {prefix}: found a scale that is no positive number")
        return LinearWeights(weight, scale, stack("bias", dtype=torch.float32) if bias else None)
