"""The model folder as the launcher sees it: is it one, and what are the digests of its parts.

Runs outside the sandbox, before anything is started, so that a wrong path is one clear sentence
instead of a worker that dies while loading.
"""

import json
from pathlib import Path

from attestation.collateral.whole_file import read_whole
from attestation.collect.tree import file_digests
from attestation.measurement import tree_digest
from wire.errors import ConfigError
from wire.ids import sha256_tag

from .engine.models.adapter_folder import CONFIG, FOLDER, WEIGHTS
from .engine.models.folder import JSON_MAX_BYTES

REQUIRED = ("config.json", "tokenizer.json")
HINT = (
    "Make one with `anchorhold model import SOURCE DIR`, or name a local Hugging Face folder that "
    "holds config.json, tokenizer.json and *.safetensors."
)


def check_model(folder: Path) -> None:
    """Refuse a path that is not a model folder.

    Raises:
        ConfigError: says what was found and what was expected, with a hint.
    """
    if not folder.exists():
        raise ConfigError(f"model folder: found nothing at {folder}, expected a folder", hint=HINT)
    if not folder.is_dir():
        raise ConfigError(f"model folder: found a file at {folder}, expected a folder", hint=HINT)
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        present = sorted(path.name for path in folder.iterdir())[:8]
        found = ", ".join(present) or "nothing"
        raise ConfigError(
            f"model folder {folder}: found {found}, expected {', '.join(missing)} as well",
            hint=HINT,
        )


def model_digests(folder: Path, tree: str) -> dict[str, str]:
    """Return the digests receipts name: tree, weights, tokenizer, template and adapters.

    The last two where there are any. An adapter's is the tree digest of its two PEFT files;
    `weights` are the model's own.

    Args:
        folder: a checked model folder.
        tree: digest of the whole folder as measured.
    """
    files = file_digests(folder)
    weights = {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
    adapters: dict[str, dict[str, bytes]] = {}
    for path in [path for path in files if path.startswith(f"{FOLDER}/")]:
        weights.pop(path, None)
        _, name, *rest = path.split("/")
        if rest in ([CONFIG], [WEIGHTS]):
            adapters.setdefault(name, {})[rest[0]] = files[path]
    digests = {
        "tree": tree,
        "weights": tree_digest(weights.items()),
        "tokenizer": "sha256:" + files["tokenizer.json"].hex(),
    }
    digests |= {f"{FOLDER}/{name}": tree_digest(its.items()) for name, its in adapters.items()}
    template = _template(folder)
    if template is not None:
        digests["template"] = sha256_tag(template)
    return digests


def _template(folder: Path) -> bytes | None:
    """Return the chat template's source, from its own file or the tokenizer's configuration."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return _json_bytes(own)
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    try:
        document = json.loads(_json_bytes(settings))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(
            f"model folder {folder}: {settings.name}: found no JSON object, expected one", hint=HINT
        )
    template = document.get("chat_template")
    return template.encode() if isinstance(template, str) else None


def _json_bytes(path: Path) -> bytes:
    try:
        return read_whole(path, JSON_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"model file {path}: {error.strerror}", hint=HINT) from error
