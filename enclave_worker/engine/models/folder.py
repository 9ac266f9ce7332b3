"""A model folder on disk: JSON and safetensors, nothing else is ever read from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from enclave_worker.engine.errors import ModelConfigError, ModelError

from .config import ModelConfig, parse_config
from .encoder_config import ARCHITECTURE as ENCODER
from .encoder_config import EncoderConfig, parse_encoder_config
from .pooling import MODULES, SETTINGS, TEXTS, Pooling, read_longest, read_pooling

Serves = Literal["text", "embeddings"]

# config files are a few kB; a tokenizer with a 256k vocabulary and its merges is some 35 MB.
JSON_MAX_BYTES = 1 << 20
TOKENIZER_MAX_BYTES = 64 << 20
INDEX_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What the JSON files of a model folder say.

    Attributes:
        path: the folder.
        config: shape of the model: of a decoder or of an encoder.
        serves: what a worker makes with it: "embeddings" with an encoder, and with a decoder that
            sentence-transformers has described as making them.
        pooling: how it makes embeddings.
        longest: most tokens of one text.
        eos: token ids that end an answer.
        template: chat template source, or None where the model has none.
        special: text of the special tokens templates may name (bos_token, eos_token, ...).
        tokenizer_json: source of the tokenizer.
    """

    path: Path
    config: ModelConfig | EncoderConfig
    serves: Serves
    pooling: Pooling
    longest: int
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
        encoder = is_encoder(raw)
        embeds = encoder or (path / MODULES).exists() or (path / SETTINGS).exists()
        config = parse_encoder_config(raw) if encoder else parse_config(raw)
        tokenizer = read_optional(path / "tokenizer_config.json")
        generation = read_optional(path / "generation_config.json")
        eos = generation.get("eos_token_id")
        return cls(
            path=path,
            config=config,
            serves="embeddings" if embeds else "text",
            pooling=_pooling(path, config),
            longest=read_longest(
                read_optional(path / TEXTS) if embeds else {}, config.max_positions
            ),
            eos=_token_ids(raw.get("eos_token_id") if eos is None else eos, config.vocab_size),
            template=_template(path, tokenizer),
            special=_special(tokenizer),
            tokenizer_json=read_text(path / "tokenizer.json", TOKENIZER_MAX_BYTES),
        )

    @property
    def decoder(self) -> ModelConfig:
        """Shape of a model that generates text; raises ModelError for an encoder."""
        if not isinstance(self.config, ModelConfig):
            raise ModelError("model folder: found an encoder, expected a model that generates text")
        return self.config

    @property
    def encoder(self) -> EncoderConfig:
        """Shape of a model that only makes embeddings; raises ModelError for a decoder."""
        if not isinstance(self.config, EncoderConfig):
            raise ModelError("model folder: found a decoder, expected an encoder")
        return self.config


def is_encoder(raw: Mapping[str, Any]) -> bool:
    """Whether a parsed config.json is an encoder's."""
    return raw.get("architectures") == [ENCODER]


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
    value = _parse(path, limit)
    if not isinstance(value, dict):
        raise ModelError(f"model file {path.name}: found {type(value).__name__}, expected {{}}")
    return value


def _parse(path: Path, limit: int) -> Any:
    """Read one JSON document; raises ModelError."""
    try:
        return json.loads(read_text(path, limit))
    except (ValueError, RecursionError):
        raise ModelError(f"model file {path.name}: found no valid JSON") from None


def read_optional(path: Path) -> dict[str, Any]:
    """Read one JSON object, or {} where the file is absent."""
    return read_json(path) if path.exists() else {}


def _pooling(path: Path, config: ModelConfig | EncoderConfig) -> Pooling:
    """Return how embeddings are made; where the folder does not say, as is usual for its kind."""
    if not (path / MODULES).exists() and not (path / SETTINGS).exists():
        return Pooling("last" if isinstance(config, ModelConfig) else "mean")
    modules = _parse(path / MODULES, JSON_MAX_BYTES)
    if not isinstance(modules, list):
        raise ModelError(f"model file {MODULES}: found {type(modules).__name__}, expected []")
    return read_pooling(modules, read_json(path / SETTINGS), config.hidden)


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
