"""A decoder over whole windows of text, for calibration and for quality figures.

The worker's decoder steps through pages of many sequences. Here a window is one matrix a layer, and
every product of a layer is the caller's: to be watched (calibration) or computed in another
arithmetic (figures). Covers what the worker covers: Llama, Qwen2 and Qwen3, by the tensors there
are. A test holds it to transformers, and its integer modes to the worker's decoder.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from enclave_worker.engine.models.config import ModelConfig
from enclave_worker.engine.models.rope import rope_tables

Kind = Literal["qkv", "output", "gate_up", "down"]
KINDS: tuple[Kind, ...] = ("qkv", "output", "gate_up", "down")
_PROJECTIONS: Mapping[Kind, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Site:
    """One input of a layer, and the products that read it."""

    layer: int
    kind: Kind

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the products, without `.weight`."""
        return tuple(f"{prefix(self.layer)}{name}" for name in _PROJECTIONS[self.kind])


#: What computes a site's products: [rows, in] -> one [rows, out] for each of `Site.names`.
Products = Callable[[Site, torch.Tensor], list[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats outside of the products.

    Attributes:
        rows: of what the products read and give.
        cache: of keys and values.
        head: of the output head.
    """

    rows: torch.dtype
    cache: torch.dtype
    head: torch.dtype


FLOAT32 = Precision(torch.float32, torch.float32, torch.float32)
BFLOAT16 = Precision(torch.bfloat16, torch.bfloat16, torch.bfloat16)
INT8 = Precision(torch.float32, torch.bfloat16, torch.bfloat16)


def prefix(layer: int) -> str:
    """What the names of a layer's tensors begin with."""
    return f"model.layers.{layer}."


def sites(config: ModelConfig) -> Iterator[Site]:
    """Every site, in the order they are computed."""
    for layer in range(config.layers):
        for kind in KINDS:
            yield Site(layer, kind)


def float_products(tensors: Tensors, dtype: torch.dtype) -> Products:
    """Products in a float format; weights in another one are converted as they are needed."""

    def products(site: Site, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for name in site.names:
            bias = tensors.get(f"{name}.bias")
            weight = tensors[f"{name}.weight"].to(dtype)
            found.append(F.linear(x, weight, None if bias is None else bias.to(dtype)))
        return found

    return products


class Forward:
    """A decoder with its weights; `logits` runs it over one window."""

    def __init__(self, config: ModelConfig, tensors: Tensors, precision: Precision) -> None:
        """Keep references: nothing is copied."""
        self._config = config
        self._tensors = tensors
        self._precision = precision

    def logits(self, tokens: torch.Tensor, products: Products) -> torch.Tensor:
        """Logits after every token: int64 [n] -> float32 [n, vocab]."""
        c, dtype = self._config, self._precision.head
        hidden = self.hidden(tokens, products)
        head = self._tensors[EMBEDDING if c.tied else HEAD]
        x = _rms_norm(hidden, self._tensors[FINAL_NORM], c.norm_eps)
        return F.linear(x.to(dtype).float(), head.to(dtype).float())  # sums are float32

    def hidden(self, tokens: torch.Tensor, products: Products) -> torch.Tensor:
        """The residual stream after the last layer: int64 [n] -> float32 [n, hidden]."""
        c, dtype = self._config, self._precision.rows
        tables = rope_tables(c.rope, c.head_dim, tokens.shape[0])
        cos, sin = (table[:, None].to(dtype) for table in tables)
        hidden = self._tensors[EMBEDDING].index_select(0, tokens).to(self._precision.head).float()
        for layer in range(c.layers):
            x = self._norm(hidden, layer, "input_layernorm")
            q, k, v = products(Site(layer, "qkv"), x)
            q = _rope(self._heads(q, layer, "q_norm"), cos, sin)
            k = _rope(self._heads(k, layer, "k_norm"), cos, sin)
            attended = self._attend(q, k, v.view(v.shape[0], -1, c.head_dim))
            (y,) = products(Site(layer, "output"), attended)
            hidden = hidden + y
            gate, up = products(
                Site(layer, "gate_up"), self._norm(hidden, layer, "post_attention_layernorm")
            )
            (y,) = products(Site(layer, "down"), F.silu(gate).mul_(up))
            hidden = hidden + y
        return hidden

    def _norm(self, hidden: torch.Tensor, layer: int, name: str) -> torch.Tensor:
        weight = self._tensors[f"{prefix(layer)}{name}.weight"]
        return _rms_norm(hidden, weight, self._config.norm_eps).to(self._precision.rows)

    def _heads(self, x: torch.Tensor, layer: int, name: str) -> torch.Tensor:
        """[n, heads * dim] -> [n, heads, dim], each head normalised where the model does that."""
        apart = x.view(x.shape[0], -1, self._config.head_dim)
        weight = self._tensors.get(f"{prefix(layer)}self_attn.{name}.weight")
        if weight is None:
            return apart
        return _rms_norm(apart.float(), weight, self._config.norm_eps).to(apart.dtype)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Causal attention: [n, heads, dim] each -> [n, heads * dim]."""
        cache = self._precision.cache
        rows, scale = self._precision.rows, 1 / math.sqrt(self._config.head_dim)
        if cache != rows:  # queries become as narrow as the keys they meet
            q, scale = q * scale, 1.0
        q, k, v = (part.to(cache).to(rows).transpose(0, 1)[None] for part in (q, k, v))
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out[0].transpose(0, 1).flatten(1)


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation over the last axis, in float32."""
    return F.rms_norm(x, weight.shape, weight.float(), eps)


def _rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate [n, heads, dim] by position; cos and sin are [n, 1, dim / 2]."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
