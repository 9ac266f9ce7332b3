"""manifest.json of an imported model: what it is, where it came from, a digest of every file."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError
from wire.excerpt import shown

#: Code of the error for a folder that is not what its manifest says.
CHANGED = "model_changed"
SCHEMA = "anchorhold-model/1"
FILE = "manifest.json"
# A manifest lists some ten small entries.
MAX_BYTES = 1 << 20
_CHUNK = 1 << 22
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was imported.

    Attributes:
        name: of the model, as clients ask for it.
        licence: SPDX identifier, or "unknown".
        source: what it was made from, with a digest; never a path of the machine.
        dtype: of the weights.
        files: file name -> SHA-256 in hex, every file of the folder but the manifest.
    """

    name: str
    licence: str
    source: str
    dtype: str
    files: Mapping[str, str]

    def encode(self) -> bytes:
        """The bytes of manifest.json; equal manifests give equal bytes."""
        document = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def check_name(name: str) -> str:
    """Return a model or file name that can be part of a path, or raise ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"model name: found {shown(name)}, expected letters, digits, '.', '_' or '-'"
        )
    return name


def read(folder: Path) -> Manifest:
    """Read a folder's manifest; raises ConfigError naming what is wrong with it."""
    try:
        raw = read_whole(folder / FILE, MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"model folder {str(folder)!r}: {FILE}: {error.strerror}",
            hint="import the model first: anchorhold model import SOURCE DIR",
        ) from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ConfigError(f"model folder {str(folder)!r}: {FILE}: expected schema {SCHEMA!r}")
    files = _field(document, "files", dict)
    for name, digest in files.items():
        if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(str(digest)):
            raise ConfigError(
                f"model manifest files: expected names with SHA-256, found {shown(name)}"
            )
    names = ("name", "licence", "source", "dtype")
    return Manifest(**{key: _field(document, key, str) for key in names}, files=files)


def _field(document: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return one field of the required type."""
    value = document.get(key)
    if type(value) is not kind:
        raise ConfigError(f"model manifest {key}: expected {kind.__name__}")
    return value


def digest(path: Path, report: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file in hex; `report` hears of each chunk's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            report(len(chunk))
    return state.hexdigest()


def verify(folder: Path, report: Callable[[int], None] = lambda _: None) -> Manifest:
    """Check every file against the manifest; raises ConfigError naming the first that differs.

    Files the manifest does not list are refused too: the worker would measure and might read them.
    """
    manifest = read(folder)
    found = {path.name for path in folder.iterdir()} - {FILE}
    for name in sorted(found ^ set(manifest.files)):
        kind = "no such file" if name not in found else "a file the manifest does not list"
        raise ConfigError(
            f"model folder {str(folder)!r}: {name}: found {kind}, expected what the manifest lists",
            code=CHANGED,
        )
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():  # a pipe would hold whoever opens it
            raise ConfigError(
                f"model folder {str(folder)!r}: {name}: found no plain file, expected one",
                code=CHANGED,
            )
        actual = digest(folder / name, report)
        if actual != expected:
            raise ConfigError(
                f"model folder {str(folder)!r}: {name}: found SHA-256 {actual[:16]}, "
                f"expected {expected[:16]}",
                code=CHANGED,
                hint="the file was changed or damaged: import the model again with --force",
            )
    return manifest
