"""A whole Hugging Face model folder in a second: tiny random Llama, real tokenizer, chat template.

Weights are random, so answers are noise; every file, name and shape is what a real folder has.
The demo model with int8 weights is made once a machine.
"""

import getpass
import hashlib
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ops.model_cache import ensure

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CORPUS = (
    "the quick brown fox jumps over the lazy dog and asks a model for an answer in plain words",
    "a sealed prompt travels to a measured worker and a sealed answer comes back with a receipt",
    "numbers 0 1 2 3 4 5 6 7 8 9 and punctuation . , : ; ! ? ( ) [ ] { } - _ / + * = < >",
)


OPS = Path(__file__).parents[2] / "ops"


def smollm2_w8a8() -> Path:
    """The demo model with int8 weights, made once a machine and version of the importer.

    A minute or two of computing the first time; others that ask meanwhile wait for it. Afterwards
    as quick as hashing 165 MB.
    """
    made_by = hashlib.sha256()
    for path in sorted(OPS.glob("model_*.py")):  # where any of it changes, made anew
        made_by.update(path.read_bytes())
    name = f"anchorhold-test-models-{getpass.getuser()}-{made_by.hexdigest()[:12]}"
    return ensure("smollm2", Path(tempfile.gettempdir()) / name, quantise="w8a8")


def tiny_llama(
    folder: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    vocab: int = 384,
    context: int = 2048,
    seed: int = 7,
) -> Path:
    """Write the folder and return it.

    Args:
        folder: created; must not hold another model.
        hidden: model width; 4 heads, 2 key/value heads.
        layers: decoder layers.
        vocab: size of the trained byte-level BPE vocabulary.
        context: longest sequence.
        seed: of the random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = _tokenizer(folder, vocab)
    heads, kv_heads, ffn = 4, 2, hidden * 2
    head = hidden // heads
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    tensors = {
        "model.embed_tokens.weight": random(size, hidden),
        "model.norm.weight": torch.ones(hidden),
    }
    for index in range(layers):
        at = f"model.layers.{index}."
        tensors |= {
            f"{at}input_layernorm.weight": torch.ones(hidden),
            f"{at}post_attention_layernorm.weight": torch.ones(hidden),
            f"{at}self_attn.q_proj.weight": random(heads * head, hidden),
            f"{at}self_attn.k_proj.weight": random(kv_heads * head, hidden),
            f"{at}self_attn.v_proj.weight": random(kv_heads * head, hidden),
            f"{at}self_attn.o_proj.weight": random(hidden, heads * head),
            f"{at}mlp.gate_proj.weight": random(ffn, hidden),
            f"{at}mlp.up_proj.weight": random(ffn, hidden),
            f"{at}mlp.down_proj.weight": random(hidden, ffn),
        }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def _tokenizer(folder: Path, vocab: int) -> int:
    """Train and write the tokenizer; returns the vocabulary size it reached."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "chat_template": CHAT_TEMPLATE,
            "model_max_length": 2048,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return int(tokenizer.get_vocab_size())


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2))
