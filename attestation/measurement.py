"""Measurements: one digest for a folder tree, one digest for the parts of a worker.

A tree digest covers sorted relative paths and the SHA-256 of each file, so a third party recomputes
it from the same packages without our tools. Only names and contents count: no times, owners, modes.

    tree    = SHA-256("anchorhold/1 tree\\0" ‖ u32 count ‖ for each file, sorted by path bytes:
                      u32 len(path) ‖ path ‖ sha256(file)[32])
    combine = SHA-256("anchorhold/1 measurement\\0" ‖ u32 count ‖ for each part, sorted by name:
                      u32 len(name) ‖ name ‖ digest[32])

Spec: docs/spec/evidence.md §2. Reading files is `attestation.collect.tree`'s work.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError
from wire.ids import is_sha256_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What installers write beside the same files, in their own ways. Bytecode is never measured because
# it is never read: the worker runs with -B and an unusable bytecode prefix.
SKIP_DIRS: Final = frozenset({"__pycache__"})
SKIP_SUFFIXES: Final = (".pyc",)
SKIP_DIST_INFO: Final = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
)
PATH_MAX: Final = 4096
PARTS_MAX: Final = 32

_TREE = b"anchorhold/1 tree\0"
_PARTS = b"anchorhold/1 measurement\0"
_PART_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DIGEST_LEN = 32


def measured(relpath: str) -> bool:
    """Whether the file at `relpath` (with "/") counts; installers' droppings do not."""
    *folders, name = relpath.split("/")
    if any(folder in SKIP_DIRS for folder in folders) or name.endswith(SKIP_SUFFIXES):
        return False
    in_dist_info = bool(folders) and folders[-1].endswith(".dist-info")
    return not (in_dist_info and name in SKIP_DIST_INFO)


def tree_digest(entries: Iterable[tuple[str, bytes]]) -> str:
    """The digest of a tree.

    Args:
        entries: (path relative to the root with "/", SHA-256 of the file, 32 bytes), in any order.
            Paths that `measured` refuses must already be left out.

    Returns:
        A "sha256:" tag. The order of `entries` does not matter.

    Raises:
        MalformedError: no entry, a path twice, absolute, with "." or ".." or an empty component,
            or a digest that is not 32 bytes. An empty tree has no digest: a missing folder must
            not measure like a present one.
    """
    listed: dict[bytes, bytes] = {}
    for path, digest in entries:
        name = _path_bytes(path)
        if len(digest) != _DIGEST_LEN:
            raise MalformedError(f"tree: expected {_DIGEST_LEN}-byte digests, found {len(digest)}")
        if name in listed:
            raise MalformedError("tree: found a path twice, expected distinct paths")
        listed[name] = digest
    if not listed:
        raise MalformedError("tree: found no file, expected at least one")
    return _digest(_TREE, listed)


def combine(parts: Mapping[str, str]) -> str:
    """The measurement of a worker from its named parts.

    Args:
        parts: part name (interpreter, stdlib, site, first_party, model, args, config, …) to
            "sha256:" tag.

    Returns:
        A "sha256:" tag.

    Raises:
        MalformedError: no part, too many, a bad name or a value that is no tag.
    """
    checked = parts_of(dict(parts))
    return _digest(_PARTS, {name.encode(): digest_bytes(tag) for name, tag in checked.items()})


def parts_of(obj: object) -> dict[str, str]:
    """The parts in a received JSON value: 1 to PARTS_MAX names, each with a "sha256:" tag.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(obj, dict) or not 1 <= len(obj) <= PARTS_MAX:
        raise MalformedError(f"measurement: expected an object of 1 to {PARTS_MAX} parts")
    for name, tag in obj.items():
        if not isinstance(name, str) or _PART_NAME.fullmatch(name) is None:
            raise MalformedError("measurement: a part's name is not [a-z][a-z0-9_]{0,31}")
        digest_bytes(tag)
    return dict(obj)


def digest_bytes(tag: str) -> bytes:
    """The 32 bytes behind a "sha256:" tag.

    Raises:
        MalformedError: not such a tag.
    """
    if not is_sha256_tag(tag):
        raise MalformedError('measurement: expected "sha256:" and 64 lower-case hex digits')
    return bytes.fromhex(tag.removeprefix("sha256:"))


def _digest(domain: bytes, listed: Mapping[bytes, bytes]) -> str:
    state = hashlib.sha256(domain + len(listed).to_bytes(4, "big"))
    for name in sorted(listed):
        state.update(len(name).to_bytes(4, "big") + name + listed[name])
    return "sha256:" + state.hexdigest()


def _path_bytes(path: str) -> bytes:
    try:
        name = path.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("tree: a path is not valid UTF-8") from None
    if not 1 <= len(name) <= PATH_MAX or b"\0" in name:
        raise MalformedError(f"tree: expected paths of 1 to {PATH_MAX} bytes without NUL")
    if any(component in ("", ".", "..") for component in path.split("/")):
        raise MalformedError("tree: expected relative paths without empty, . or .. components")
    return name
