"""tokenizer.json and its companions from the vocabulary a GGUF file carries.

Byte-level BPE only. The result encodes as `transformers` does for the same file, which the tests
hold it to.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from wire.errors import ConfigError
from wire.excerpt import json_value, shown

_CONTROL, _USER_DEFINED = 3, 4
_TOKENS = "tokenizer.ggml.tokens"
_TYPES = "tokenizer.ggml.token_type"
_MERGES = "tokenizer.ggml.merges"
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
}
# How text is cut before merging, by llama.cpp's name for it. None is GPT-2's rule, built into the
# byte-level pre-tokenizer. (llama.cpp also sets digits apart for "smollm"; the vocabulary has no
# token of two digits, so that only moves spaces before digits, and transformers does not do it.)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit by itself
_SPLITS: Mapping[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
}


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of a GGUF file; raises ConfigError for kinds this cannot build.

    Args:
        metadata: GGUF keys and values.
    """
    kind = metadata.get("tokenizer.ggml.model")
    split = str(metadata.get("tokenizer.ggml.pre", "default"))
    if kind != "gpt2" or split not in _SPLITS:
        raise ConfigError(
            f"GGUF tokenizer: found model {kind!r} with pre-tokenizer {split!r}, expected 'gpt2' "
            f"with one of {sorted(_SPLITS)}",
            hint="import the Hugging Face folder of the model instead",
        )
    tokens: Sequence[str] = _listed(metadata, _TOKENS, str)
    types: Sequence[int] = _listed(metadata, _TYPES, int)
    if len(types) != len(tokens):
        raise _malformed(_TYPES, f"{len(types)} types", f"one for each of {len(tokens)} tokens")
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in _listed(metadata, _MERGES, str)]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocab.keys():
            raise _malformed(_MERGES, shown(" ".join(merge)), "two tokens that make a third")
    # Llama 3's vocabulary holds whole words that no chain of merges leads to.
    whole_words = _SPLITS[split] == _LLAMA3
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="",
            fuse_unk=False,
            ignore_merges=whole_words,
        )
    )
    pattern = _SPLITS[split]
    if pattern == _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    for wanted, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        added = [
            AddedToken(token, normalized=False, special=special)
            for token, found in zip(tokens, types, strict=True)
            if found == wanted
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    if metadata.get("tokenizer.ggml.add_bos_token", False):
        bos = _token(metadata, _SPECIAL["bos_token"], tokens)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 $B:1", special_tokens=[(bos, vocab[bos])]
        )
    if tokenizer.get_vocab_size(with_added_tokens=True) != len(tokens):
        raise ConfigError("GGUF tokenizer: found tokens listed twice")
    return tokenizer


def tokenizer_files(metadata: Mapping[str, Any], context: int) -> dict[str, bytes]:
    """Return the tokenizer's files by name."""
    tokenizer = build_tokenizer(metadata)
    tokens: Sequence[str] = _listed(metadata, _TOKENS, str)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    for name, key in _SPECIAL.items():
        if metadata.get(key) is not None:
            config[name] = _token(metadata, key, tokens)
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
    }
    if (template := metadata.get("tokenizer.chat_template")) is not None:
        files["chat_template.jinja"] = str(template).encode()
    return files


def _listed(metadata: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    """Return a list of one kind; raises ConfigError for anything else."""
    found = metadata.get(key)
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise _malformed(
            key, "none" if found is None else "something else", f"a list of {kind.__name__}"
        )
    return found


def _token(metadata: Mapping[str, Any], key: str, tokens: Sequence[str]) -> str:
    """Return the token an id names; raises ConfigError where it names none."""
    found = metadata.get(key)
    if type(found) is not int or not 0 <= found < len(tokens):
        raise _malformed(key, json_value(found), f"a token id below {len(tokens)}")
    return tokens[found]


def _malformed(key: str, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"GGUF metadata {key}: found {found}, expected {expected}",
        hint="fetch the file again, or import the Hugging Face folder of the model instead",
    )
