"""A model folder on disk: JSON and safetensors, nothing else is ever read from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enclave_worker.engine.errors import ModelConfigError, ModelError

from .config import ModelConfig, parse_config

# config files are a few kB; a tokenizer with a 256k vocabulary and its merges is some 35 MB.
JSON_MAX_BYTES = 1 << 20
TOKENIZER_MAX_BYTES = 64 << 20
INDEX_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What the JSON files of a model folder say.

    Attributes:
        path: the folder.
        config: shape of the model.
        eos: token ids that end an answer.
        template: chat template source, or None where the model has none.
        special: text of the special tokens templates may name (bos_token, eos_token, ...).
        tokenizer_json: source of the tokenizer.
    """

    path: Path
    config: ModelConfig
    eos: frozenset[int]
    template: str | None
    special: Mapping[str, str]
    tokenizer_json: str

    @classmethod
    def read(cls, path: Path) -> "ModelFolder":
        """Read the JSON files; raises ModelError naming the file, found and expected."""
        if not path.is_dir():
            raise ModelError(f"model folder: found no folder at {str(path)!r}, expected one")
        if not (path / "config.json").is_file():
            raise ModelError(
                f"model folder {str(path)!r}: found no config.json, expected a Hugging Face folder "
                "(config.json, *.safetensors, tokenizer.json)"
            )
        raw = read_json(path / "config.json")
        config = parse_config(raw)
        tokenizer = read_optional(path / "tokenizer_config.json")
        generation = read_optional(path / "generation_config.json")
        eos = generation.get("eos_token_id")
        return cls(
            path=path,
            config=config,
            eos=_token_ids(raw.get("eos_token_id") if eos is None else eos, config.vocab_size),
            template=_template(path, tokenizer),
            special=_special(tokenizer),
            tokenizer_json=read_text(path / "tokenizer.json", TOKENIZER_MAX_BYTES),
        )


def read_text(path: Path, limit: int) -> str:
    """Read one UTF-8 file of at most `limit` bytes; raises ModelError."""
    if path.exists() and not path.is_file():  # a pipe would hold whoever opens it
        raise ModelError(f"model file {path.name}: found no plain file, expected one")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ModelError(f"model file {path.name}: {error.strerror}, expected a file") from None
    if len(data) > limit:
        raise ModelError(f"model file {path.name}: found over {limit} bytes, expected fewer")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelError(f"model file {path.name}: found bytes that are not UTF-8") from None


def read_json(path: Path, limit: int = JSON_MAX_BYTES) -> dict[str, Any]:
    """Read one JSON object; raises ModelError."""
    try:
        value = json.loads(read_text(path, limit))
    except (ValueError, RecursionError):
        raise ModelError(f"model file {path.name}: found no valid JSON") from None
    if not isinstance(value, dict):
        raise ModelError(f"model file {path.name}: found {type(value).__name__}, expected {{}}")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """Read one JSON object, or {} where the file is absent."""
    return read_json(path) if path.exists() else {}


def _token_ids(value: Any, vocab_size: int) -> frozenset[int]:
    """Return eos_token_id, an id or a list of them, as a set."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise ModelConfigError(
                f"eos_token_id: found {token!r}, expected token ids below {vocab_size}"
            )
    return frozenset(ids)


def _template(path: Path, tokenizer: Mapping[str, Any]) -> str | None:
    """Return the chat template: its own file first, else the tokenizer's configuration."""
    if (path / "chat_template.jinja").exists():
        return read_text(path / "chat_template.jinja", JSON_MAX_BYTES)
    value = tokenizer.get("chat_template")
    if isinstance(value, list):
        named = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise ModelError("tokenizer_config.json chat_template: expected a string")
    return value


def _special(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens' text, given as a string or as {"content": string}."""
    special = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = tokenizer.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            special[name] = value
    return special
