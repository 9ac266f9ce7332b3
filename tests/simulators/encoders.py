"""A random BERT made by transformers, in the folder layout of sentence-transformers."""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from simulators.models import tiny_llama
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

_TYPE = "sentence_transformers.models."
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": f"{_TYPE}Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_TYPE}Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_TYPE}Normalize"},
]
POOLING = {
    "word_embedding_dimension": 48,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


def random_bert(folder: Path, seed: int = 3, **changes: object) -> BertModel:
    """Write a random encoder with a tokenizer; return transformers' own."""
    tiny_llama(folder)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    settings = {
        "vocab_size": vocab,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(**settings)).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                value.data.add_(torch.randn_like(value) * 0.2)
    for name in ("generation_config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    return model


def add_pooling(folder: Path, modules: object = MODULES, **settings: object) -> None:
    """Write the files that say how embeddings are made."""
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(POOLING | settings))


def random_minilm(folder: Path, longest: int = 40) -> BertModel:
    """Write a random encoder as MiniLM's folder is.

    Its tokenizer pads and truncates and puts special tokens around a text; texts have a limit below
    the model's positions.
    """
    model = random_bert(folder)
    add_pooling(folder)
    limit = {"max_seq_length": longest, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limit))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first, last = "<|im_start|>", "<|im_end|>"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (first, last)],
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model
