"""manifest.json of an imported model: what it is, where it came from, a digest of every file."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from attestation.collateral.whole_file import read_whole
from wire.errors import ConfigError
from wire.excerpt import json_value, shown

from .model_figures import Figures, read_figures

#: Code of the error for a folder that is not what its manifest says.
CHANGED = "model_changed"
SCHEMA = "anchorhold-model/2"
FILE = "manifest.json"
# A manifest lists some ten small entries.
MAX_BYTES = 1 << 20
_CHUNK = 1 << 22
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A folder of sentence-transformers has one file in a folder of its own.
_FILE = re.compile(rf"(?:1_Pooling/)?{_NAME.pattern}")
DTYPES = ("bfloat16", "float32")
KINDS = ("decoder", "encoder")


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How weights became int8.

    Attributes:
        mode: "w8a8", the only one there is.
        smoothing: strength that was asked for; None where one was searched for each product.
        tokens: of text, to calibrate with.
        sha256: of that text, in hex.
    """

    mode: str
    smoothing: float | None
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was imported.

    Attributes:
        name: of the model, as clients ask for it.
        licence: SPDX identifier, or "unknown".
        source: what it was made from, with a digest; never a path of the machine.
        kind: "decoder", or "encoder" for a model that makes embeddings only.
        dtype: of the weights; of those that are not int8 in a quantised model.
        quantisation: how the int8 weights were made; None where there are none, or not by us.
        figures: what quantising cost in quality, or None.
        files: file name -> SHA-256 in hex, every file of the folder but the manifest.
    """

    name: str
    licence: str
    source: str
    dtype: str
    files: Mapping[str, str]
    kind: str = "decoder"
    quantisation: Quantisation | None = None
    figures: Figures | None = None

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
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema != SCHEMA:
        found = shown(schema) if isinstance(schema, str) else json_value(schema)
        raise ConfigError(
            f"model folder {str(folder)!r}: {FILE}: found schema {found}, expected {SCHEMA!r}",
            hint="import the model again with --force",
        )
    members = {field.name for field in fields(Manifest)} | {"schema"}
    odd = sorted(members ^ set(document))
    if odd:
        found = "no member" if odd[0] in members else "a member that is not known:"
        raise ConfigError(f"model manifest: found {found} {shown(odd[0])}")
    files = _field(document, "files", dict)
    for name, digest in files.items():
        if not _FILE.fullmatch(name) or not _DIGEST.fullmatch(str(digest)):
            raise ConfigError(
                f"model manifest files: expected names with SHA-256, found {shown(name)}"
            )
    words = {key: _field(document, key, str) for key in ("name", "licence", "source")}
    figures = document["figures"]
    return Manifest(
        **words,
        dtype=_word(document, "dtype", DTYPES),
        files=files,
        kind=_word(document, "kind", KINDS),
        quantisation=_quantisation(document["quantisation"]),
        figures=None if figures is None else read_figures(figures),
    )


def _quantisation(document: Any) -> Quantisation | None:
    """Read how weights became int8."""
    if document is None:
        return None
    names = {field.name for field in fields(Quantisation)}
    if type(document) is not dict or set(document) != names:
        raise ConfigError(f"model manifest quantisation: expected members {sorted(names)}")
    strength = document["smoothing"]
    if strength is not None and (type(strength) not in (int, float) or not 0 <= strength <= 1):
        raise ConfigError("model manifest smoothing: expected a number from 0 to 1, or null")
    return Quantisation(
        _word(document, "mode", ("w8a8",)),
        strength,
        _field(document, "tokens", int),
        _field(document, "sha256", str),
    )


def _word(document: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """Return one of the words a field may hold."""
    value = _field(document, key, str)
    if value not in allowed:
        raise ConfigError(
            f"model manifest {key}: found {shown(value)}, expected {' or '.join(allowed)}"
        )
    return str(value)


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


def files_below(folder: Path) -> list[str]:
    """Names of what a folder holds, sorted; what is in a folder inside it by its path from here."""
    found = []
    for path in folder.iterdir():
        inside = [f"{path.name}/{entry.name}" for entry in path.iterdir()] if path.is_dir() else []
        found += inside or [path.name]
    return sorted(found)


def verify(folder: Path, report: Callable[[int], None] = lambda _: None) -> Manifest:
    """Check every file against the manifest; raises ConfigError naming the first that differs.

    Files the manifest does not list are refused too: the worker would measure and might read them.
    """
    manifest = read(folder)
    found = set(files_below(folder)) - {FILE}
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
