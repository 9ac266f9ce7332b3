"""Low-rank adapters (Hu et al., 2021) from a PEFT folder: y += B (A x) * scale.

Strict as models are: a variant that computes something else (DoRA, trained biases, ranks by
pattern) is refused by name, and so is a tensor nobody asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .adapter_folder import CONFIG, WEIGHTS, list_adapters
from .config import ModelConfig
from .config_reader import ConfigReader
from .folder import read_json
from .weights import Weights

RANK_MAX = 64
_READ = ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "task_type")
# What training was like, and what only chooses how an adapter begins.
# fmt: off
_IGNORED = (
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
    "peft_version", "qalora_group_size", "megatron_core",
)
_OFF = (
    "use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "modules_to_save", "exclude_modules",
    "layers_to_transform", "layers_pattern", "layer_replication", "rank_pattern", "alpha_pattern",
    "megatron_config", "loftq_config", "eva_config", "corda_config", "target_parameters",
    "trainable_token_indices", "arrow_config", "ensure_weight_tying",
)
# fmt: on
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(_OFF, (None, False, {}, [])),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian"),  # others change the model underneath
}


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to one product of a layer; zeros where a stacked part has no adapter.

    Attributes:
        a: float32 [rank, k]: those of the stacked projections follow one another.
        b: float32 [n, rank], the scale in it.
    """

    a: torch.Tensor
    b: torch.Tensor

    def to(self, device: torch.device) -> "LowRank":
        """The same on a device."""
        return LowRank(self.a.to(device), self.b.to(device))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, k] -> float32 [rows, n]."""
        return x.float() @ self.a.T @ self.b.T


#: By layer, what is added to each of its products: qkv, output, gate_up, down.
Adapter = tuple[tuple[LowRank | None, ...], ...]


def read_adapter(folder: Path, model: ModelConfig) -> Adapter:
    """Read an adapter made for a model of this shape; raises ModelError, ModelConfigError."""
    config = ConfigReader(read_json(folder / CONFIG), CONFIG)
    config.only((*_READ, *_IGNORED), _HARMLESS)
    config.word("peft_type", "LORA")
    config.word("task_type", "CAUSAL_LM")
    rank = config.count("r")
    if rank > RANK_MAX:
        raise config.refuse("r", f"at most {RANK_MAX}")
    root = math.sqrt(rank) if config.flag("use_rslora") else rank
    scale = config.positive("lora_alpha") / root
    hidden, wide = model.hidden, model.intermediate
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    products = (  # (rows of each stacked projection, columns)
        ({"self_attn.q_proj": q, "self_attn.k_proj": kv, "self_attn.v_proj": kv}, hidden),
        ({"self_attn.o_proj": hidden}, q),
        ({"mlp.gate_proj": wide, "mlp.up_proj": wide}, hidden),
        ({"mlp.down_proj": hidden}, wide),
    )
    known = {name.partition(".")[2] for rows, _ in products for name in rows}
    targets = config.raw.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(t in known for t in targets):
        raise config.refuse("target_modules", f"a list of some of {sorted(known)}")
    with Weights(folder, torch.float32, WEIGHTS) as weights:

        def low_rank(layer: int, rows: Mapping[str, int], columns: int) -> LowRank | None:
            downs, ups = [], []
            for name, n in rows.items():
                at = f"base_model.model.model.layers.{layer}.{name}.lora_"
                if name.partition(".")[2] in targets:
                    downs.append(weights.take(f"{at}A.weight", rank, columns))
                    ups.append(weights.take(f"{at}B.weight", n, rank) * scale)
                else:
                    ups.append(torch.zeros(n, 0))
            if not downs:
                return None
            return LowRank(torch.cat(downs), torch.block_diag(*ups))  # type: ignore[no-untyped-call]

        adapter = tuple(
            tuple(low_rank(layer, rows, columns) for rows, columns in products)
            for layer in range(model.layers)
        )
        weights.finish()
    return adapter


def read_adapters(folder: Path, model: ModelConfig) -> dict[str, Adapter]:
    """Read all adapters of a model folder, by name; raises ModelError, ModelConfigError."""
    return {name: read_adapter(one.path, model) for name, one in list_adapters(folder).items()}
