"""The Llama family of decoders, driven by config.json.

Covers grouped-query attention, tied or separate output head, optional biases, and the rotary
embeddings of Llama 2 and 3. The residual stream is float32, everything between is the model dtype.
Source: Hugging Face `modeling_llama`, whose logits the tests compare with.
"""

import math
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import numpy as np
import torch

from enclave_worker.engine.models.back_end import Logits
from enclave_worker.engine.models.config import ModelConfig, Rope
from enclave_worker.engine.models.key_values import KeyValues
from enclave_worker.engine.models.weights import Weights
from enclave_worker.engine.ops.linear import Linear, packing_works
from enclave_worker.engine.ops.reference import paged_attention, rms_norm, rope, silu_mul
from enclave_worker.engine.ops.rows import lay_out
from enclave_worker.engine.plan import StepPlan


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one decoder layer."""

    attention_norm: torch.Tensor
    qkv: Linear
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class Decoder:
    """A decoder that turns one step's rows into logits.

    Attributes:
        config: the model's shape.
        packed: whether the prepacked matrix products are in use (see `linear`).
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, dtype: torch.dtype, pages: int, max_len: int
    ) -> None:
        """Take the weights, laid out for the matrix products; raises ModelError."""
        self.config = config
        self.dtype = dtype
        self.packed = packing_works(dtype)
        self._cos, self._sin = rope_tables(config.rope, config.head_dim, max_len, dtype)
        self._scale = 1 / math.sqrt(config.head_dim)
        self._embedding = weights.take("model.embed_tokens.weight", *self._vocab_shape)
        self._layers = [self._layer(weights, f"model.layers.{i}.") for i in range(config.layers)]
        self._norm = weights.take("model.norm.weight", config.hidden).float()
        if config.tied:
            weights.skip("lm_head.weight")
            head = self._embedding
        else:
            head = weights.take("lm_head.weight", *self._vocab_shape)
        self._head = Linear(head, None, packed=self.packed)
        weights.finish()
        self.store = KeyValues(config.layers, pages, config.kv_heads, config.head_dim, dtype)
        self.page_bytes = 2 * self.store.keys[:, 0].nbytes

    @property
    def _vocab_shape(self) -> tuple[int, int]:
        """Shape of the embedding and of the output head."""
        return self.config.vocab_size, self.config.hidden

    def _layer(self, weights: Weights, prefix: str) -> Layer:
        """Take one layer's weights; products that read the same input become one."""
        c = self.config
        rows = {
            "q_proj": c.heads * c.head_dim,
            "k_proj": c.kv_heads * c.head_dim,
            "v_proj": c.kv_heads * c.head_dim,
        }
        wide = c.intermediate
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        return Layer(
            weights.take(f"{prefix}input_layernorm.weight", c.hidden).float(),
            self._linear(weights, attention, rows, c.hidden, bias=c.attention_bias),
            self._linear(
                weights, attention, {"o_proj": c.hidden}, rows["q_proj"], bias=c.attention_bias
            ),
            weights.take(f"{prefix}post_attention_layernorm.weight", c.hidden).float(),
            self._linear(
                weights, mlp, {"gate_proj": wide, "up_proj": wide}, c.hidden, bias=c.mlp_bias
            ),
            self._linear(weights, mlp, {"down_proj": c.hidden}, wide, bias=c.mlp_bias),
        )

    def _linear(
        self, weights: Weights, prefix: str, rows: dict[str, int], columns: int, *, bias: bool
    ) -> Linear:
        """Take the named projections, stacked."""
        weight = torch.cat(
            [weights.take(f"{prefix}{name}.weight", n, columns) for name, n in rows.items()]
        )
        stacked = (
            torch.cat([weights.take(f"{prefix}{name}.bias", n) for name, n in rows.items()])
            if bias
            else None
        )
        return Linear(weight, stacked, packed=self.packed)

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; see BackEnd."""
        values = self._logits(plan)
        if not len(values):
            return Logits(np.zeros(0, np.int32), np.zeros(0, np.bool_), values)
        peak, best = values.max(-1)
        finite = peak.isfinite().numpy()  # NaN is the maximum of whatever it is among
        return Logits(best.int().numpy(), finite, values if whole else None)

    def scrub(self, pages: Sequence_[int]) -> None:
        """Overwrite pages with zeros."""
        self.store.scrub(pages)

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""
        return self.store.is_clean(page)

    def describe(self) -> dict[str, str]:
        """What computes."""
        kernels = "torch-onednn" if self.packed else "torch"
        return {"dtype": str(self.dtype).removeprefix("torch."), "kernels": kernels}

    def _logits(self, plan: StepPlan) -> torch.Tensor:
        """Compute one step: float32 [wanted, vocab]."""
        c = self.config
        laid = lay_out(plan, c.heads, c.kv_heads)
        rows, turned = plan.tokens.shape[0], c.heads + c.kv_heads
        cos = self._cos.index_select(0, laid.positions)[:, None]
        sin = self._sin.index_select(0, laid.positions)[:, None]
        hidden = self._embedding.index_select(0, laid.tokens).float()
        for index, layer in enumerate(self._layers):
            x = rms_norm(hidden, layer.attention_norm, c.norm_eps, self.dtype)
            qkv = layer.qkv(x).view(rows, turned + c.kv_heads, c.head_dim)
            qk = rope(qkv[:, :turned], cos, sin)
            keys, values = self.store.keys[index], self.store.values[index]
            _store(keys, laid.slots, qk[:, c.heads :])
            _store(values, laid.slots, qkv[:, turned:])
            attended = paged_attention(qk[:, : c.heads], keys, values, laid, self._scale)
            hidden += layer.output(attended.reshape(rows, -1))
            x = rms_norm(hidden, layer.mlp_norm, c.norm_eps, self.dtype)
            hidden += layer.down(silu_mul(layer.gate_up(x)))
        wanted = hidden.index_select(0, laid.wanted)
        return self._head(rms_norm(wanted, self._norm, c.norm_eps, self.dtype)).float()


def _store(pages: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    """Write [rows, kv_heads, head_dim] into a layer's pages."""
    dim = pages.shape[-1]
    pages.view(-1, dim).index_copy_(0, slots, rows.reshape(-1, dim))


def rope_tables(
    settings: Rope, head_dim: int, length: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines by position, [length, head_dim]; the sines' first half is negated."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequency = 1.0 / settings.theta**exponent
    if settings.kind == "linear":
        frequency = frequency / settings.factor
    elif settings.kind == "llama3":
        frequency = _llama3(frequency, settings)
    angle = torch.arange(length).float()[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def _llama3(frequency: torch.Tensor, settings: Rope) -> torch.Tensor:
    """Stretch the long waves by `factor`, leave the short ones, blend in between."""
    turns = settings.original_context * frequency / (2 * math.pi)
    low, high = settings.low_freq_factor, settings.high_freq_factor
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return frequency * (smooth + (1 - smooth) / settings.factor)
