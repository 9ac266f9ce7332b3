"""The tensors a decoder's config.json promises, compared with the headers of its weight files.

Only headers are read: safetensors begins with a JSON table of names, kinds of numbers, shapes and
places, which the library checks against the file's length before it gives anything out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from enclave_worker.engine.models.config import ModelConfig
from wire.errors import ConfigError

_INT8, _FLOATS = ("I8",), ("F32", "BF16", "F16")
_DAMAGED = "fetch the file again: it is cut short, damaged or of another format"
# Recomputed from config.json; older checkpoints carry it.
_DERIVED = "rotary_emb.inv_freq"
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a header describes it: `kind` is the format's word, such as "BF16" or "I8"."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.count * _BYTES.get(self.kind, 1)


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Tensors of one file; raises ConfigError where it is no whole safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            found = []
            for name in file.keys():  # noqa: SIM118 - not a mapping
                cells = file.get_slice(name)
                found.append(StoredTensor(name, cells.get_dtype(), tuple(cells.get_shape())))
            return found
    except OSError as error:
        raise ConfigError(
            f"model weights {path}: {error.strerror or 'No such file'}, "
            "expected every file the index names",
            hint="fetch the model folder again",
        ) from None
    except SafetensorError as error:
        raise ConfigError(
            f"model weights {path}: found {path.stat().st_size} bytes that are not whole "
            f"safetensors ({str(error)[:80]})",
            hint=_DAMAGED,
        ) from None


def check_tensors(config: ModelConfig, tensors: list[StoredTensor]) -> None:
    """Refuse tensors that are not those of the shape; raises ConfigError naming the first.

    The worker would refuse them too, when it is started.
    """
    expected = dict(_expected(config))
    found = {tensor.name: tensor for tensor in tensors if not tensor.name.endswith(_DERIVED)}
    if config.tied:
        found.pop("lm_head.weight", None)
    for name in sorted(set(expected) - set(found)):
        raise ConfigError(
            f"model weights {name}: found no such tensor, expected {list(expected[name][0])}"
        )
    for name in sorted(set(found) - set(expected)):
        raise ConfigError(f"model weights {name}: found a tensor config.json does not account for")
    for name, (shape, kinds) in expected.items():
        if found[name].shape != shape or found[name].kind not in kinds:
            raise ConfigError(
                f"model weights {name}: found {found[name].kind} {list(found[name].shape)}, "
                f"expected {' or '.join(kinds)} {list(shape)}"
            )


def _expected(config: ModelConfig) -> Iterator[tuple[str, tuple[tuple[int, ...], tuple[str, ...]]]]:
    """Yield (name, (shape, kinds of numbers)) of every tensor."""
    c, q, kv = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
    yield "model.embed_tokens.weight", ((c.vocab_size, c.hidden), _FLOATS)
    yield "model.norm.weight", ((c.hidden,), _FLOATS)
    if not c.tied:
        yield "lm_head.weight", ((c.vocab_size, c.hidden), _FLOATS)
    products = {
        "self_attn.q_proj": (q, c.hidden, c.qkv_bias),
        "self_attn.k_proj": (kv, c.hidden, c.qkv_bias),
        "self_attn.v_proj": (kv, c.hidden, c.qkv_bias),
        "self_attn.o_proj": (c.hidden, q, c.output_bias),
        "mlp.gate_proj": (c.intermediate, c.hidden, c.mlp_bias),
        "mlp.up_proj": (c.intermediate, c.hidden, c.mlp_bias),
        "mlp.down_proj": (c.hidden, c.intermediate, c.mlp_bias),
    }
    norms = {"input_layernorm": c.hidden, "post_attention_layernorm": c.hidden}
    if c.qk_norm:
        norms |= {"self_attn.q_norm": c.head_dim, "self_attn.k_norm": c.head_dim}
    for layer in range(c.layers):
        at = f"model.layers.{layer}."
        for name, size in norms.items():
            yield f"{at}{name}.weight", ((size,), _FLOATS)
        for name, (rows, columns, biased) in products.items():
            yield f"{at}{name}.weight", ((rows, columns), _INT8 if c.quantised else _FLOATS)
            if c.quantised:
                yield f"{at}{name}.weight_scale", ((rows, 1), _FLOATS)
            if biased:
                yield f"{at}{name}.bias", ((rows,), _FLOATS)
