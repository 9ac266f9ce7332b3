"""The disk cache: one file an entry, shared by processes, safe against kill -9 and mix-ups.

- A file is named by the SHA-256 of its key, states the key inside, and carries a digest over all of
  it. One that is damaged, or that states another key, is a miss, and the next fetch replaces it.
- Files are 0600 in folders of 0700, written beside and renamed: a reader sees the old or the new.
- For statements in order (TCB evaluation numbers; the dates of CRLs and OCSP answers) the highest
  ever accepted is remembered apart from the entries and survives their eviction. A lower one is
  refused with `collateral_rollback`: it is genuine and in force, yet hides what has come to light
  since. Strangers can name certificates without end, so of OCSP answers the last `ANSWERS_MAX` are
  remembered.
- `exclusive` lets one caller at a time fetch a key; the others then find what it stored.

The cache is no trust anchor for what vendors sign: who may write its folder can at most put back
what they did sign, and take the memory away. For key sets of token issuers (`jwks`) it is one:
nobody signs them, so who may write the folder can put keys of their own there, and tokens under
these count. Where tokens count, the folder is to be as hard to write as the policy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attestation.collateral_key import KEY_MAX, parse_key
from wire.canonical import encode, parse_evj1
from wire.errors import AttestationError, ConfigError, MalformedError
from wire.limits import CLOCK_SKEW_S

from .decoded import Decoded, Stamp, stamp_of
from .entry import MIB, RECORD_MAX, decode_entry, encode_entry
from .whole_file import NEW, read_whole, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.collateral_key import CollateralKey

    from .entry import Entry

SIZE_MAX: Final = 256 * MIB  # of all entries: a fleet of thousands of chips takes a few MiB
SIZE_MIN: Final = 2 * RECORD_MAX  # below it the entry just written could not stay
MARK_MAX: Final = 1024
ANSWER: Final = "ocsp-"  # what the memory of OCSP answers is named by
ANSWERS_MAX: Final = 32_768  # the certificates of ten thousand GPUs; 128 MiB of small files
STRIPES: Final = 64  # lock files; two keys that share one wait for each other, no more
ABANDONED_S: Final = 600  # a half-written file that old belongs to a process that is gone
_HINT: Final = "choose a folder that this user may write"


class Store:
    """A folder of entries.

    Args:
        root: made on the first write.
        size_max: bytes after which the oldest entries are deleted.
    """

    def __init__(self, root: Path, size_max: int = SIZE_MAX) -> None:
        if size_max < SIZE_MIN:
            raise ConfigError(f"collateral cache: expected a size of at least {SIZE_MIN} bytes")
        self.root = root
        self._size_max = size_max
        self._decoded = Decoded()

    def get(self, key: CollateralKey, now: int) -> Entry | None:
        """The entry of this key, expired or not; None if there is none that can be used.

        Raises:
            AttestationError: `collateral_rollback`: an older one than was seen before.
            ConfigError: the folder or the memory of numbers cannot be read.
        """
        stamp = self.stamp(key)
        entry = self._decoded.get(key, stamp)
        if entry is None:
            raw = _read(self._entry(key), RECORD_MAX)
            if raw is None:
                return None
            try:
                entry = decode_entry(raw, key, now)
            except MalformedError:
                return None
            _check_order(entry, self._seen(key))
            self._decoded.keep(key, stamp, entry)
        # By now the clock may have been set back.
        return entry if entry.fetched_at <= now + CLOCK_SKEW_S else None

    def stamp(self, key: CollateralKey) -> Stamp:
        """What differs once the entry of this key, or the number remembered of it, is another."""
        name = _name(key)
        return stamp_of((f"{self.root}/entries/{name}", f"{self.root}/seen/{_memory(key)}{name}"))

    def holds(self, key: CollateralKey) -> bool:
        """Whether something is kept under this key, in force or not: a vendor once answered it.

        Raises:
            ConfigError: the folder cannot be read.
        """
        try:
            return self._entry(key).is_file()
        except OSError as cause:
            raise _unusable(self.root, cause) from cause

    def put(self, entry: Entry, now: int, *, answered: bool = False) -> None:
        """Keep an entry that was admitted, and remember its number.

        Args:
            entry: what to keep.
            now: Unix seconds.
            answered: it answers a question of our own, whose nonce it echoes: it is newer than all
                that was seen, even where another of the vendor's servers dates it earlier, or where
                a forged answer, which no verifier took, was dated ahead.

        Raises:
            AttestationError: `collateral_rollback`: nothing is kept.
            ConfigError: the folder cannot be written.
        """
        try:
            for folder in (self.root, *(self.root / name for name in ("entries", "seen", "locks"))):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked("store"):
                mark = self._seen(entry.key)
                if answered and mark is not None:
                    entry = replace(entry, sequence=max(entry.sequence or 0, mark))
                _check_order(entry, mark)
                if entry.sequence is not None and entry.sequence != mark:
                    record = {"v": 1, "key": str(entry.key), "sequence": entry.sequence}
                    # Before the entry: killed in between, the cache knows too much, not too little.
                    write_whole(self._mark(entry.key), encode(record))
                    self._forget()
                write_whole(self._entry(entry.key), encode_entry(entry))
                self._evict(self._entry(entry.key), now)
        except OSError as cause:
            raise _unusable(self.root, cause) from cause

    def entries(self, now: int) -> Iterator[Entry]:
        """Every usable entry, ordered by key; damaged and foreign files are passed over."""
        found = []
        for path in sorted((self.root / "entries").glob("*.json")):
            raw = _read(path, RECORD_MAX)
            try:
                stated = parse_evj1(raw or b"", RECORD_MAX).get("key")
                if not isinstance(stated, str) or len(stated) > KEY_MAX:
                    continue
                key = parse_key(stated)
                if path == self._entry(key):
                    found.append(decode_entry(raw or b"", key, now))
            except MalformedError:
                continue
        yield from sorted(found, key=lambda entry: entry.key)

    @contextlib.contextmanager
    def exclusive(self, key: CollateralKey) -> Iterator[None]:
        """While one holder of a key's lock is inside, others wait, in all processes.

        Raises:
            ConfigError: the folder cannot be written.
        """
        stripe = int.from_bytes(sha256(str(key).encode()).digest()[:2], "big") % STRIPES
        with contextlib.ExitStack() as stack:
            try:
                (self.root / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(self._locked(f"{stripe:02}"))
            except OSError as cause:
                raise _unusable(self.root, cause) from cause
            yield

    def _seen(self, key: CollateralKey) -> int | None:
        """The highest number accepted under a key."""
        raw = _read(self._mark(key), MARK_MAX)
        if raw is None:
            return None
        match _object(raw):
            case {"v": 1, "key": str(stated), "sequence": int(seen)} if stated == str(key):
                return seen
        # Forgetting silently is exactly what a rollback needs.
        raise ConfigError(
            f"collateral cache {self._mark(key)}: found no record of this key",
            hint="restore the file, or delete it to accept collateral as it is shown now",
        )

    def _forget(self) -> None:
        """Of too many answers about certificates, the oldest quarter."""
        names = [path for path in (self.root / "seen").iterdir() if path.name.startswith(ANSWER)]
        if len(names) > ANSWERS_MAX:
            names.sort(key=lambda path: path.stat().st_mtime)
            for path in names[: ANSWERS_MAX // 4]:
                path.unlink(missing_ok=True)

    def _evict(self, keep: Path, now: int) -> None:
        files = []
        for path in (self.root / "entries").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if path.name.startswith(NEW):
                    if found.st_mtime < now - ABANDONED_S:
                        path.unlink()
                elif path != keep:
                    files.append((found.st_mtime, found.st_size, path))
        total = keep.stat().st_size + sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._size_max:
                return
            path.unlink(missing_ok=True)
            total -= size

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self.root / "locks" / f"{name}.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _entry(self, key: CollateralKey) -> Path:
        return self.root / "entries" / _name(key)

    def _mark(self, key: CollateralKey) -> Path:
        return self.root / "seen" / f"{_memory(key)}{_name(key)}"


def _name(key: CollateralKey) -> str:
    return f"{sha256(str(key).encode()).hexdigest()}.json"


def _memory(key: CollateralKey) -> str:
    return ANSWER if key.kind == "ocsp" else ""


def _check_order(entry: Entry, seen: int | None) -> None:
    if seen is not None and (entry.sequence is None or entry.sequence < seen):
        raise AttestationError(
            f"collateral {entry.key.kind}: found number {entry.sequence}, "
            f"expected at least {seen}, which was seen before",
            reasons=("collateral_rollback",),
            hint="the service, or the bundle, gives out old collateral: use a newer",
        )


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
        raise _unusable(path, cause) from cause


def _unusable(path: Path, cause: OSError) -> ConfigError:
    return ConfigError(f"collateral cache {path}: {cause.strerror}", hint=_HINT)
