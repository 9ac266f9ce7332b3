"""Decoders of the Llama family in torch: the reference every other back end is compared with.

Covers Llama, Qwen2 and Qwen3 (see `config`), any dtype torch has, and int8 weights. The residual
stream is float32, everything between is the model dtype; with int8 weights, where only what is
stored is narrow, all of it is float32.
Source: Hugging Face `modeling_llama`, `modeling_qwen2`, `modeling_qwen3`, whose logits the tests
compare with.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import torch

from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.ops.linear import Linear, QuantisedLinear, packing_works
from enclave_worker.engine.ops.reference import paged_attention, qk_norm, rms_norm, rope, silu_mul
from enclave_worker.engine.ops.rows import CPU, Rows, Staging, lay_out
from enclave_worker.engine.plan import StepPlan

from .adapters import Adapter
from .back_end import Logits
from .config import ModelConfig
from .decoder_weights import DecoderWeights, LayerWeights, LinearWeights
from .graphs import Capture, DecodeGraphs, Outcome
from .key_values import KeyValues
from .rope import rope_tables
from .weights import Weights

Product = Callable[[torch.Tensor], torch.Tensor]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Rows, float], torch.Tensor]
# Numbers a step's upload holds before it needs more room.
_ROOM = 1 << 14


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
        device: torch.device = CPU,
        attention: Attention = paged_attention,
        capture: Capture | None = None,
        max_batch: int = 1,
    ) -> None:
        """Take the weights, laid out for the matrix products; raises ModelError.

        Args:
            config: the model's shape.
            weights: opened with `dtype`.
            dtype: of the KV cache and the output head and, without int8 weights, of the rest.
            pages: of the KV cache.
            max_len: longest sequence.
            bits: activations of int8 weights are rounded to, 8 or 16; None without such weights.
            device: that holds weights and pages and computes.
            attention: the reference, or what agrees with it.
            capture: records decode steps to be replayed; needs an attention that reads tiles.
            max_batch: of what is captured.
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
        self.packed = device == CPU and packing_works(self._inner)
        self._attention, self._device = attention, device
        self._staging = Staging(device, _ROOM)
        cos, sin = rope_tables(config.rope, config.head_dim, max_len)
        self._cos = torch.cat((cos, cos), -1).to(device, self._inner)
        self._sin = torch.cat((-sin, sin), -1).to(device, self._inner)
        self._scale = 1 / math.sqrt(config.head_dim)
        source = DecoderWeights(config, weights)
        self._embedding = source.embedding().to(device)
        self._layers = [self._layer(layer) for layer in source.layers()]
        self._norm, head = source.norm().to(device), source.head()
        head = self._embedding if head is None else head
        self._head = Linear(head.to(device, self._inner), None, packed=self.packed)
        source.finish()
        held = pages + (capture is not None)  # one more, for rows that pad a captured step
        shape = (config.layers, held, config.kv_heads, config.head_dim)
        self.store = KeyValues(*shape, dtype, device)
        self.page_bytes = 2 * self.store.keys[:, 0].nbytes
        self._graphs: DecodeGraphs | None = None
        if capture is not None:
            heads = (config.heads, config.kv_heads)
            with torch.inference_mode():
                self._graphs = DecodeGraphs(
                    self._logits, capture, max_batch, max_len, heads, pages, device
                )

    def _layer(self, source: LayerWeights) -> Layer:
        """Lay out one layer."""
        c, norm = self.config, None
        if source.query_norm is not None and source.key_norm is not None:
            parts = (source.query_norm.expand(c.heads, -1), source.key_norm.expand(c.kv_heads, -1))
            norm = torch.cat(parts).to(self._device)
        return Layer(
            source.attention_norm.to(self._device),
            self._linear(source.qkv),
            norm,
            self._linear(source.output),
            source.mlp_norm.to(self._device),
            self._linear(source.gate_up),
            self._linear(source.down),
        )

    def _linear(self, source: LinearWeights) -> Product:
        """Lay out one matrix product."""
        weight, device = source.weight.to(self._device), self._device
        if source.scale is not None and self._bits is not None:
            bias = None if source.bias is None else source.bias.to(device)
            return QuantisedLinear(weight, source.scale.to(device), bias, bits=self._bits)
        bias = None if source.bias is None else source.bias.to(device, self.dtype)
        return Linear(weight, bias, packed=self.packed)

    def adapt(self, adapters: Mapping[str, Adapter]) -> None:
        """Take the adapters that chunks may name."""
        self.adapters = {
            name: tuple(
                tuple(part and part.to(self._device) for part in layer) for layer in adapter
            )
            for name, adapter in adapters.items()
        }

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; see BackEnd. What comes back from the device comes in one copy."""
        size = None if self._graphs is None else self._graphs.size(plan)
        if self._graphs is not None and size is not None:
            values, marks = self._graphs.run(plan, size)
        else:
            values, marks = self._logits(self._lay_out(plan), self._adapted(plan))
        if whole and values.is_cuda:
            found = torch.cat((values, marks.view(torch.float32)), -1).cpu()
            values, marks = found[:, :-2], found[:, -2:].contiguous().view(torch.int32)
        host = marks.cpu().numpy()
        return Logits(host[:, 0].copy(), host[:, 1] != 0, values if whole else None)

    def hidden(self, plan: StepPlan) -> torch.Tensor:
        """Compute one step up to the last norm: float32 [wanted, hidden], for embeddings."""
        return self._hidden(self._lay_out(plan), self._adapted(plan)).float().cpu()

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
        if self._attention is not paged_attention:
            kernels = "triton"
        return {"dtype": dtype if self._bits is None else f"w8a{self._bits}", "kernels": kernels}

    def _lay_out(self, plan: StepPlan) -> Rows:
        """Upload one step."""
        c, by_chunk = self.config, self._attention is paged_attention
        return lay_out(plan, c.heads, c.kv_heads, self._staging, by_chunk=by_chunk)

    def _logits(self, laid: Rows, adapted: Sequence_[tuple[torch.Tensor, Adapter]] = ()) -> Outcome:
        """From rows to logits and what is said of them, all on the device."""
        values = self._head(self._hidden(laid, adapted)).float()
        if not len(values):
            return values, torch.zeros(0, 2, dtype=torch.int32, device=self._device)
        peak, best = values.max(-1)
        # NaN is the maximum of whatever it is among.
        return values, torch.stack((best.int(), peak.isfinite().int()), -1)

    def _hidden(self, laid: Rows, adapted: Sequence_[tuple[torch.Tensor, Adapter]]) -> torch.Tensor:
        """What the output head reads: [wanted, hidden]."""
        c, inner = self.config, self._inner
        rows, turned = laid.tokens.shape[0], c.heads + c.kv_heads
        cos = self._cos.index_select(0, laid.positions)[:, None]
        sin = self._sin.index_select(0, laid.positions)[:, None]
        hidden = self._embedding.index_select(0, laid.tokens).float()

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
            x = self._attention(q, keys, values, laid, scale).reshape(rows, -1)
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
        return [
            (torch.tensor(which, device=self._device), self.adapters[name])
            for name, which in rows.items()
        ]


def _store(pages: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    """Write [rows, kv_heads, head_dim] into a layer's pages."""
    dim = pages.shape[-1]
    pages.view(-1, dim).index_copy_(0, slots, rows.reshape(-1, dim).to(pages.dtype))
