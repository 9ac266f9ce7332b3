"""Random Llamas made by transformers, the oracle the engine is compared with."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from simulators.models import tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gqa-tied": {"tie_word_embeddings": True},
    "gqa-untied": {"tie_word_embeddings": False},
    "mha": {"num_key_value_heads": 4},
    "mqa-wide-heads": {"num_key_value_heads": 1, "head_dim": 24},
    "llama3-rope": {"rope_parameters": LLAMA3_ROPE, "max_position_embeddings": 512},
    "linear-rope": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    "biases": {"attention_bias": True, "mlp_bias": True},
}


def random_llama(folder: Path, shape: str = "gqa-tied", seed: int = 11) -> LlamaForCausalLM:
    """Write a random model of one of SHAPES with a real tokenizer; return transformers' own."""
    tiny_llama(folder)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    settings = {
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
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # left at 0 and 1, they would test nothing
                value.data.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    return model


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder all processes of one test run share: the demo model is imported once."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def oracle_logits(model: LlamaForCausalLM, tokens: list[int]) -> torch.Tensor:
    """Logits of every position, float32 [len(tokens), vocab]."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float()
