"""GGUF files written the way llama.cpp's converter writes them, from a Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file
from simulators.gguf_blocks import k_quantised

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GLOBAL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(
    folder: Path,
    path: Path,
    kind: str = "F32",
    *,
    architecture: str | None = None,
    pre: str = "gpt-2",
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write the model of a folder; matrices in `kind`, vectors in F32.

    Args:
        folder: Hugging Face folder with a byte-level BPE tokenizer.
        path: file to write.
        kind: the name of a GGUF type.
        architecture: as the file names it; by default the model's own.
        pre: the pre-tokenizer's name.
        extra: further metadata, or other than the model's; None leaves a key out.
    """
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    model_type = config["model_type"]
    if model_type != "llama":
        heads = {}
    writer = gguf.GGUFWriter(path, architecture or model_type)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rope["rope_theta"])
    if model_type == "llama":
        writer.add_rope_dimension_count(config["head_dim"])
    if model_type == "qwen3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text()), pre)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for key, value in (extra or {}).items():
        writer.kv_data[0].pop(key, None)
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_float32(key, value)
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = tensor.astype(np.float32)
        if name in GLOBAL:
            written = GLOBAL[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            module, ending = rest.rsplit(".", 1)
            written = f"blk.{layer}.{NAMES[module]}.{ending}"
            if NAMES[module] in heads:  # llama.cpp's LlamaModel.permute
                n = heads[NAMES[module]]
                split = values.reshape(n, 2, values.shape[0] // n // 2, values.shape[1])
                values = np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
        if values.ndim == 2 and kind != "F32":
            quantised = gguf.GGMLQuantizationType[kind]
            packed = (
                k_quantised(values, kind)[0]
                if kind in ("Q4_K", "Q5_K", "Q6_K")
                else gguf.quants.quantize(values, quantised)
            )
            writer.add_tensor(written, packed, raw_dtype=quantised)
        else:
            writer.add_tensor(written, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, source: dict[str, Any], pre: str) -> None:
    """Add vocabulary, token kinds and merges."""
    vocab = source["model"]["vocab"]
    tokens = sorted(vocab, key=lambda token: vocab[token])
    special = {token["content"] for token in source["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in source["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
