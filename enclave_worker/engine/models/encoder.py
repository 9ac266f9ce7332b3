"""A BERT-class encoder (MiniLM and its kind) in torch: texts as vectors.

Absolute positions, post-layer norms, exact GELU (Devlin et al., 2018). Source: Hugging Face
`modeling_bert`, whose hidden states the tests compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from enclave_worker.engine.errors import RequestInvalid, RequestTooLong
from enclave_worker.engine.ops.linear import Linear, packing_works

from .encoder_config import EncoderConfig
from .pooling import Pooling
from .weights import Weights


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation (Ba et al., 2016)."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer."""

    qkv: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    mlp_norm: Norm


class Encoder:
    """An encoder with its pooling.

    Attributes:
        config: the model's shape.
        pooling: how a text's tokens become one vector.
    """

    def __init__(self, config: EncoderConfig, weights: Weights, pooling: Pooling) -> None:
        """Take the weights, opened in float32; raises ModelError."""
        self.config = config
        self.pooling = pooling
        self._weights = weights
        self._packed = packing_works(torch.float32)
        c, at = config, "embeddings."
        self._words = weights.take(f"{at}word_embeddings.weight", c.vocab_size, c.hidden)
        places = weights.take(f"{at}position_embeddings.weight", c.max_positions, c.hidden)
        types = weights.take(f"{at}token_type_embeddings.weight", c.types, c.hidden)
        self._places = places + types[0]  # a text by itself is all of the first type
        self._norm = self._take_norm(f"{at}LayerNorm")
        self._layers = [self._layer(f"encoder.layer.{i}.") for i in range(c.layers)]
        for unused in ("pooler.dense.weight", "pooler.dense.bias", f"{at}position_ids"):
            weights.skip(unused)
        weights.finish()

    def embed(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Turn texts into vectors, float32 [texts, hidden].

        Args:
            texts: token ids of each, with the special tokens its tokenizer adds.

        Raises:
            RequestInvalid: an empty text, or a token the model does not have.
            RequestTooLong: a text longer than the model's positions.
        """
        hidden = self.hidden(texts)
        return torch.stack([self.pooling(h[: len(t)]) for h, t in zip(hidden, texts, strict=True)])

    def hidden(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors of every token, float32 [texts, longest, hidden]; padding behind each text."""
        c = self.config
        lengths = torch.tensor([len(text) for text in texts])
        if not len(texts) or int(lengths.min()) < 1:
            raise RequestInvalid("embedding: found an empty text, expected at least one token")
        longest = int(lengths.max())
        if longest > c.max_positions:
            raise RequestTooLong(
                f"embedding: found {longest} tokens, expected <= {c.max_positions}"
            )
        if not all(0 <= token < c.vocab_size for text in texts for token in text):
            raise RequestInvalid(f"embedding: found a token id, expected ids below {c.vocab_size}")
        tokens = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        seen = (torch.arange(longest) < lengths[:, None])[:, None, None]  # no query sees padding
        x = self._norm(F.embedding(tokens, self._words) + self._places[:longest])
        for layer in self._layers:
            q, k, v = (
                part.view(len(texts), longest, c.heads, -1).transpose(1, 2)
                for part in self._apply(layer.qkv, x).chunk(3, -1)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            mixed = mixed.transpose(1, 2).reshape(x.shape)
            x = layer.attention_norm(x + self._apply(layer.output, mixed))
            x = layer.mlp_norm(x + self._apply(layer.down, F.gelu(self._apply(layer.up, x))))
        return x

    @staticmethod
    def _apply(linear: Linear, x: torch.Tensor) -> torch.Tensor:
        """Apply a matrix product to the last dimension."""
        return linear(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    def _layer(self, at: str) -> Layer:
        """Take one layer; queries, keys and values become one product."""
        c, attention = self.config, f"{at}attention."
        parts = [f"{attention}self.{name}" for name in ("query", "key", "value")]
        return Layer(
            self._linear(parts, c.hidden, c.hidden),
            self._linear([f"{attention}output.dense"], c.hidden, c.hidden),
            self._take_norm(f"{attention}output.LayerNorm"),
            self._linear([f"{at}intermediate.dense"], c.intermediate, c.hidden),
            self._linear([f"{at}output.dense"], c.hidden, c.intermediate),
            self._take_norm(f"{at}output.LayerNorm"),
        )

    def _linear(self, names: Sequence[str], rows: int, columns: int) -> Linear:
        """Take projections of the same input, stacked."""
        weight = self._weights.stack({f"{name}.weight": rows for name in names}, columns)
        bias = self._weights.stack({f"{name}.bias": rows for name in names})
        return Linear(weight, bias, packed=self._packed)

    def _take_norm(self, name: str) -> Norm:
        """Take a norm."""
        weight = self._weights.take(f"{name}.weight", self.config.hidden)
        bias = self._weights.take(f"{name}.bias", self.config.hidden)
        return Norm(weight, bias, self.config.norm_eps)
