"""Decoders of the Llama family in torch: the reference every other back end is compared with.

Covers Llama, Qwen2 and Qwen3 (see `config`), any dtype torch has, and int8 weights. The residual
stream is float32, everything between is the model dtype; with int8 weights, where only what is
stored is narrow, all of it is float32.
Source: Hugging Face `modeling_llama`, `modeling_qwen2`, `modeling_qwen3`, whose logits the tests
compare with.
"""

import math
from collections.abc import Callable
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import numpy as np
import torch

from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.ops.linear import Linear, QuantisedLinear, packing_works
from enclave_worker.engine.ops.reference import paged_attention, qk_norm, rms_norm, rope, silu_mul
from enclave_worker.engine.ops.rows import lay_out
from enclave_worker.engine.plan import StepPlan

from .adapters import Adapter
from .back_end import Logits
from .config import ModelConfig
from .decoder_weights import DecoderWeights, LayerWeights, LinearWeights
from .key_values import KeyValues
from .rope import rope_tables
from .weights import Weights

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one decoder layer; `qk_norm` is [heads + kv_heads, head_dim] or None."""

    attention_norm: torch.Tensor
    qkv: Product
    qk_norm: torch.Tensor | None
    output: Product
    mlp_norm: torch.Tensor
    gate_up: Product
    down: Product


class Decoder:
    """A decoder that turns one step's rows into logits.

    Attributes:
        config: the model's shape.
        packed: whether the prepacked matrix products are in use (see `linear`).
        adapters: by name, those that chunks of a step may ask for.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        dtype: torch.dtype,
        pages: int,
        max_len: int,
        *,
        bits: int | None = None,
    ) -> None:
        """Take the weights, laid out for the matrix products; raises ModelError.

        Args:
            config: the model's shape.
            weights: opened with `dtype`.
            dtype: of the KV cache and the output head and, without int8 weights, of the rest.
            pages: of the KV cache.
            max_len: longest sequence.
            bits: activations of int8 weights are rounded to, 8 or 16; None without such weights.
        """
        if config.quantised != (bits is not None):
            expected = "w8a8 or w8a16" if config.quantised else "float32 or bfloat16"
            found = "int8" if config.quantised else "float"
            raise ModelError(f"model weights: found {found} weights, expected dtype {expected}")
        self.config = config
        self.adapters: dict[str, Adapter] = {}
        self.dtype = dtype
        self._bits = bits
        self._inner = dtype if bits is None else torch.float32
        self.packed = packing_works(self._inner)
        cos, sin = rope_tables(config.rope, config.head_dim, max_len)
        self._cos = torch.cat((cos, cos), -1).to(self._inner)
        self._sin = torch.cat((-sin, sin), -1).to(self._inner)
        self._scale = 1 / math.sqrt(config.head_dim)
        source = DecoderWeights(config, weights)
        self._embedding = source.embedding()
        self._layers = [self._layer(layer) for layer in source.layers()]
        self._norm, head = source.norm(), source.head()
        head = self._embedding if head is None else head
        self._head = Linear(head.to(self._inner), None, packed=self.packed)
        source.finish()
        self.store = KeyValues(config.layers, pages, config.kv_heads, config.head_dim, dtype)
        self.page_bytes = 2 * self.store.keys[:, 0].nbytes

    def _layer(self, source: LayerWeights) -> Layer:
        """Lay out one layer."""
        c, norm = self.config, None
        if source.query_norm is not None and source.key_norm is not None:
            parts = (source.query_norm.expand(c.heads, -1), source.key_norm.expand(c.kv_heads, -1))
            norm = torch.cat(parts)
        return Layer(
            source.attention_norm,
            self._linear(source.qkv),
            norm,
            self._linear(source.output),
            source.mlp_norm,
            self._linear(source.gate_up),
            self._linear(source.down),
        )

    def _linear(self, source: LinearWeights) -> Product:
        """Lay out one matrix product."""
        if source.scale is not None and self._bits is not None:
            return QuantisedLinear(source.weight, source.scale, source.bias, bits=self._bits)
        bias = None if source.bias is None else source.bias.to(self.dtype)
        return Linear(source.weight, bias, packed=self.packed)

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; see BackEnd."""
        values = self._head(self._hidden(plan)).float()
        if not len(values):
            return Logits(np.zeros(0, np.int32), np.zeros(0, np.bool_), values)
        peak, best = values.max(-1)
        finite = peak.isfinite().numpy()  # NaN is the maximum of whatever it is among
        return Logits(best.int().numpy(), finite, values if whole else None)

    def hidden(self, plan: StepPlan) -> torch.Tensor:
        """Compute one step up to the last norm: float32 [wanted, hidden], for embeddings."""
        return self._hidden(plan).float()

    def scrub(self, pages: Sequence_[int]) -> None:
        """Overwrite pages with zeros."""
        self.store.scrub(pages)

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""
        return self.store.is_clean(page)

    def describe(self) -> dict[str, str]:
        """What computes."""
        dtype = str(self.dtype).removeprefix("torch.")
        kernels = "torch-onednn" if self.packed else "torch"
        return {"dtype": dtype if self._bits is None else f"w8a{self._bits}", "kernels": kernels}

    def _hidden(self, plan: StepPlan) -> torch.Tensor:
        """What the output head reads: [wanted, hidden]."""
        c, inner = self.config, self._inner
        laid = lay_out(plan, c.heads, c.kv_heads)
        rows, turned = plan.tokens.shape[0], c.heads + c.kv_heads
        cos = self._cos.index_select(0, laid.positions)[:, None]
        sin = self._sin.index_select(0, laid.positions)[:, None]
        hidden = self._embedding.index_select(0, laid.tokens).float()
        adapted = self._adapted(plan)

        def add(index: int, part: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            for which, adapter in adapted:
                if (low := adapter[index][part]) is not None:
                    y.index_add_(0, which, low(x.index_select(0, which)).to(y.dtype))
            return y

        for index, layer in enumerate(self._layers):
            x = rms_norm(hidden, layer.attention_norm, c.norm_eps, inner)
            qkv = add(index, 0, x, layer.qkv(x)).view(rows, turned + c.kv_heads, c.head_dim)
            qk = qkv[:, :turned]
            if layer.qk_norm is not None:
                qk = qk_norm(qk, layer.qk_norm, c.norm_eps)
            qk = rope(qk, cos, sin)
            keys, values = self.store.keys[index], self.store.values[index]
            _store(keys, laid.slots, qk[:, c.heads :])
            _store(values, laid.slots, qkv[:, turned:])
            q, scale = qk[:, : c.heads], self._scale
            if inner != self.dtype:  # as narrow as the keys it meets
                q, scale = (q * scale).to(self.dtype).to(inner), 1.0
            x = paged_attention(q, keys, values, laid, scale).reshape(rows, -1)
            hidden += add(index, 1, x, layer.output(x))
            x = rms_norm(hidden, layer.mlp_norm, c.norm_eps, inner)
            x = silu_mul(add(index, 2, x, layer.gate_up(x)))
            hidden += add(index, 3, x, layer.down(x))
        last = rms_norm(hidden.index_select(0, laid.wanted), self._norm, c.norm_eps, inner)
        return last.to(self.dtype).to(inner)

    def _adapted(self, plan: StepPlan) -> list[tuple[torch.Tensor, Adapter]]:
        """Which rows have which adapter."""
        rows: dict[str, list[int]] = {}
        for chunk in plan.chunks:
            if chunk.adapter:
                span = range(chunk.first, chunk.first + chunk.count)
                rows.setdefault(chunk.adapter, []).extend(span)
        return [(torch.tensor(which), self.adapters[name]) for name, which in rows.items()]


def _store(pages: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    """Write [rows, kv_heads, head_dim] into a layer's pages."""
    dim = pages.shape[-1]
    pages.view(-1, dim).index_copy_(0, slots, rows.reshape(-1, dim).to(pages.dtype))
