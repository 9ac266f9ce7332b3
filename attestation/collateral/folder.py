"""The files of a cache folder: what they are named by, and what they say.

An entry's file is named by the SHA-256 of its key, and so are the memory of its highest number
(`seen`), an entry that is half written (`begun`), and a number that is (`.mark`, beside it). Each
states its key inside, so that a file put in another's place says nothing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attestation.collateral_key import KEY_MAX, parse_key
from wire.canonical import parse_evj1
from wire.errors import AttestationError, ConfigError, MalformedError

from .decoded import Stamp, stamp_of
from .entry import RECORD_MAX, decode_entry
from .whole_file import move_over, read_whole

if TYPE_CHECKING:
    from pathlib import Path

    from attestation.collateral_key import CollateralKey

    from .entry import Entry

MARK_MAX: Final = 1024
MARK: Final = ".mark"  # numbers half written, beside entries half written
ANSWER: Final = "ocsp-"  # what the memory of OCSP answers is named by
_FOLDERS: Final = ("entries", "seen", "locks", "begun")
_HINT: Final = "choose a folder that this user may write"


@dataclass(frozen=True, slots=True)
class Folder:
    """One cache's folder.

    Attributes:
        root: its name.
    """

    root: Path

    def make(self) -> None:
        """Make it and those in it, for their owner only; raises OSError."""
        for folder in (self.root, *(self.root / name for name in _FOLDERS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def stamp(self, key: CollateralKey) -> Stamp:
        """What differs once a file that speaks of this key is another."""
        name = name_of(key)
        return stamp_of((f"{self.root}/entries/{name}", f"{self.root}/seen/{_memory(key)}{name}"))

    def find(self, key: CollateralKey, now: int) -> Entry | None:
        """The entry of this key, expired or not; None if there is none that can be used.

        Raises:
            AttestationError: `collateral_rollback`: an older one than was seen before.
            ConfigError: the folder or the memory of numbers cannot be read.
        """
        # Before the entry: one that is moved into its place meanwhile has this number or a higher.
        try:
            seen = self.seen(key)
        except ConfigError:
            if _read(self.entry(key), RECORD_MAX) is None:
                return None  # nothing that this memory speaks of
            raise
        begun, overtaken = self.begun(key), None
        # While it is moved the newer one is in the second place, and after that in the first.
        for path in (self.entry(key), begun, self.entry(key)):
            raw = _read(path, RECORD_MAX)
            if raw is None:
                continue
            try:
                entry = decode_entry(raw, key, now)
                check_order(entry, seen)
            except MalformedError:
                continue
            except AttestationError as refusal:
                overtaken = refusal
                continue
            if path is not begun or (seen is not None and entry.sequence == seen):
                return entry
        if overtaken is not None:
            raise overtaken
        return None

    def finish(self, now: int) -> None:
        """What a writer that is gone had begun: moved if its number is remembered, or deleted.

        For whoever holds the store's lock; raises OSError and ConfigError.
        """
        for path in (self.root / "begun").iterdir():
            key = None if path.suffix == MARK else stated_in(path)
            if key is not None and path == self.begun(key) and self._counts(key, now):
                move_over(path, self.entry(key))
            else:
                path.unlink(missing_ok=True)

    def seen(self, key: CollateralKey) -> int | None:
        """The highest number accepted under a key.

        Raises:
            ConfigError: that cannot be told.
        """
        raw = _read(self.mark(key), MARK_MAX)
        if raw is None:
            return None
        match _object(raw):
            case {"v": 1, "key": str(stated), "sequence": int(seen)} if stated == str(key):
                return seen
        # Forgetting silently is exactly what a rollback needs.
        raise ConfigError(
            f"collateral cache {self.mark(key)}: found no record of this key",
            hint="restore the file, or delete it to accept collateral as it is shown now",
        )

    def entry(self, key: CollateralKey) -> Path:
        """The file of an entry."""
        return self.root / "entries" / name_of(key)

    def begun(self, key: CollateralKey) -> Path:
        """The file of one that is half written."""
        return self.root / "begun" / name_of(key)

    def mark(self, key: CollateralKey) -> Path:
        """The file of the highest number."""
        return self.root / "seen" / f"{_memory(key)}{name_of(key)}"

    def _counts(self, key: CollateralKey, now: int) -> bool:
        """Whether what was begun under a key is what was remembered of it."""
        try:
            entry = decode_entry(_read(self.begun(key), RECORD_MAX) or b"", key, now)
            return entry.sequence is not None and entry.sequence == self.seen(key)
        except (MalformedError, ConfigError):
            return False


def name_of(key: CollateralKey) -> str:
    """What the files of a key are named by."""
    return f"{sha256(str(key).encode()).hexdigest()}.json"


def _memory(key: CollateralKey) -> str:
    return ANSWER if key.kind == "ocsp" else ""


def check_order(entry: Entry, seen: int | None) -> None:
    """Whether an entry is no older than what was seen.

    Raises:
        AttestationError: `collateral_rollback`.
    """
    if seen is not None and (entry.sequence is None or entry.sequence < seen):
        raise AttestationError(
            f"collateral {entry.key.kind}: found number {entry.sequence}, "
            f"expected at least {seen}, which was seen before",
            reasons=("collateral_rollback",),
            hint="the service, or the bundle, gives out old collateral: use a newer",
        )


def stated_in(path: Path) -> CollateralKey | None:
    """The key that the file of an entry states; raises ConfigError where it cannot be read."""
    raw = _read(path, RECORD_MAX) or b""
    try:
        stated = parse_evj1(raw, RECORD_MAX).get("key")
        if isinstance(stated, str) and len(stated) <= KEY_MAX:
            return parse_key(stated)
    except MalformedError:
        pass
    return None


def _object(raw: bytes) -> object:
    try:
        return parse_evj1(raw, MARK_MAX)
    except MalformedError:
        return None


def _read(path: Path, limit: int) -> bytes | None:
    try:
        return read_whole(path, limit)
    except FileNotFoundError:
        return None
    except OSError as cause:
        if cause.errno == errno.EFBIG:  # damaged, as any other that is no entry
            return b""
        raise unusable(path, cause) from cause


def unusable(path: Path, cause: OSError) -> ConfigError:
    """What to raise where the system refuses."""
    return ConfigError(f"collateral cache {path}: {cause.strerror}", hint=_HINT)
