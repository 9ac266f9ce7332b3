"""Random decoders made by transformers, the oracle the engine is compared with."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.models import tiny_llama
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from enclave_worker.engine.models.quantisation import W8A8

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
QWEN2 = {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": None}
QWEN3 = {"model_type": "qwen3", "head_dim": 32}
SHAPES: dict[str, dict[str, Any]] = {
    "gqa-tied": {"tie_word_embeddings": True},
    "gqa-untied": {"tie_word_embeddings": False},
    "mha": {"num_key_value_heads": 4},
    "mqa-wide-heads": {"num_key_value_heads": 1, "head_dim": 24},
    "llama3-rope": {"rope_parameters": LLAMA3_ROPE, "max_position_embeddings": 512},
    "linear-rope": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {**QWEN2, "tie_word_embeddings": True},
    "qwen2-untied-yarn": {**QWEN2, "rope_parameters": YARN_ROPE, "tie_word_embeddings": False},
    "qwen3": {**QWEN3, "tie_word_embeddings": True},
    "qwen3-untied-biases": {**QWEN3, "attention_bias": True, "tie_word_embeddings": False},
}


def random_llama(
    folder: Path, shape: str = "gqa-tied", seed: int = 11, **changes: Any
) -> PreTrainedModel:
    """Write a random model of one of SHAPES with a real tokenizer; return transformers' own."""
    tiny_llama(folder)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    settings = {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        **SHAPES[shape],
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**settings)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # left at 0 and 1, they would test nothing
                value.data.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    return model


def quantise_folder(source: Path, target: Path) -> dict[str, torch.Tensor]:
    """Copy a folder with the layers' matrices as int8; return what its numbers stand for."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = meant[name] = weight.bfloat16()
            continue
        scale = weight.abs().amax(1, keepdim=True) / 127
        stored[name] = (weight / scale).round().to(torch.int8)
        stored[f"{name}_scale"] = scale
        meant[name] = stored[name].float() * scale
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": dict(W8A8)}))
    return {name: tensor.float() for name, tensor in meant.items()}


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder all processes of one test run share: the demo model is imported once."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def oracle_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Logits of every position, float32 [len(tokens), vocab]."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits
