"""A random LoRA adapter in PEFT's folder layout, and the same merged into the model."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "some/model",
    "r": 4,
    "lora_alpha": 6,
    "lora_dropout": 0.05,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "revision": None,
}


def write_adapter(
    folder: Path, model: PreTrainedModel, targets: Sequence[str], seed: int = 1, **changes: object
) -> PreTrainedModel:
    """Write an adapter for some of a model's projections; return the model with it merged in."""
    config = {**CONFIG, "target_modules": list(targets), **changes}
    rank, alpha = int(str(config["r"])), float(str(config["lora_alpha"]))
    scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
    generator = torch.Generator().manual_seed(seed)
    merged, tensors = copy.deepcopy(model), {}
    for name, parameter in merged.named_parameters():
        parts = name.split(".")
        if parts[-1] != "weight" or parts[-2] not in targets:
            continue
        rows, columns = parameter.shape
        a = torch.randn(rank, columns, generator=generator) * 0.2
        b = torch.randn(rows, rank, generator=generator) * 0.2
        at = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        tensors[f"{at}A.weight"], tensors[f"{at}B.weight"] = a, b
        parameter.data += scale * b @ a
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged
