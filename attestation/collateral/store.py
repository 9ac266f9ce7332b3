"""The disk cache: one file an entry, shared by processes, safe against kill -9 and mix-ups.

- A file is named by the SHA-256 of its key, states the key inside, and carries a digest over all of
  it. One that is damaged, or that states another key, is a miss, and the next fetch replaces it.
- Files are 0600 in folders of 0700, written in `begun` and moved: a reader sees the old or the new.
  An entry is whole there before its number is remembered, and moved after that. Whoever is killed,
  or finds no room on the disk, before that has done nothing; once the number is remembered, readers
  find the newer entry in `begun`, and the next writer moves it.
- For statements in order (TCB evaluation numbers; the dates of CRLs and OCSP answers) the highest
  ever accepted is remembered apart from the entries and survives their eviction. A lower one is
  refused with `collateral_rollback`: it is genuine and in force, yet hides what has come to light
  since. Strangers can name certificates without end, so of OCSP answers the last `ANSWERS_MAX` are
  remembered.
- Where a suspended process keeps an entry from being written, it counts for this process alone,
  until it ends or its file changes.
- `exclusive` lets one caller at a time fetch a key; the others then find what it stored. Nobody
  waits for ever (`locks`), nor longer the more there is (`room`).

The cache is no trust anchor for what vendors sign: who may write its folder can at most put back
what they did sign, and take the memory away. For key sets of token issuers (`jwks`) it is one:
nobody signs them, so who may write the folder can put keys of their own there, and tokens under
these count. Where tokens count, the folder is to be as hard to write as the policy.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attestation.collateral_key import KEY_MAX, parse_key
from wire.canonical import encode, parse_evj1
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError
from wire.limits import CLOCK_SKEW_S

from .decoded import Decoded, Stamp, stamp_of
from .entry import MIB, RECORD_MAX, decode_entry, encode_entry
from .locks import WAIT_S, Locks
from .room import Room
from .whole_file import move_over, read_whole, sync_folder, write_new

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
_FOLDERS: Final = ("entries", "seen", "locks", "begun")
_MARK: Final = ".mark"  # numbers half written, beside entries half written
_HINT: Final = "choose a folder that this user may write"


class Store:
    """A folder of entries.

    Args:
        root: made on the first write.
        size_max: bytes after which entries are deleted: first what has ended, then what ends next.
        lock_wait_s: seconds to wait for another process.
    """

    def __init__(
        self, root: Path, size_max: int = SIZE_MAX, *, lock_wait_s: float = WAIT_S
    ) -> None:
        if size_max < SIZE_MIN:
            raise ConfigError(f"collateral cache: expected a size of at least {SIZE_MIN} bytes")
        self.root = root
        self._room = Room(root, size_max, ANSWERS_MAX, ANSWER)
        self._locks = Locks(root / "locks", lock_wait_s)
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
            entry = self._find(key, now)
            if entry is None:
                return None
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
            UnavailableError: another process, or a slow thread, keeps it from being written. It
                was in order, and `get` gives it to this process.
        """
        if entry.passing and not self.holds(entry.key):
            return
        try:
            for folder in (self.root, *(self.root / name for name in _FOLDERS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locks.held("store") as alone:
                if not alone:
                    raise UnavailableError(
                        f"collateral cache {self.root}: another process is writing, and was not "
                        "done in time",
                        hint="find a process that was suspended while it used this folder",
                    )
                self._finish(now)
                self._write(entry, now, answered=answered)
        except UnavailableError:
            stamp = self.stamp(entry.key)
            self._decoded.keep(entry.key, stamp, self._in_order(entry, answered=answered))
            raise
        except OSError as cause:
            raise _unusable(self.root, cause) from cause

    def keeps(self, entry: Entry, now: int) -> bool:
        """Whether the folder has this entry, or a newer one: `get` also gives what it has not.

        Raises:
            as for `get`.
        """
        found = self._find(entry.key, now)
        return found is not None and found.fetched_at >= entry.fetched_at

    def entries(self, now: int) -> Iterator[Entry]:
        """Every usable entry, ordered by key; damaged, overtaken and foreign files are passed over.

        Raises:
            ConfigError: the folder or the memory of numbers cannot be read.
        """
        found = []
        for path in sorted((self.root / "entries").glob("*.json")):
            key = _stated(_read(path, RECORD_MAX) or b"")
            if key is None or path != self._entry(key):
                continue
            with contextlib.suppress(AttestationError):
                entry = self._find(key, now)
                found.extend([] if entry is None else [entry])
        yield from sorted(found, key=lambda entry: entry.key)

    @contextlib.contextmanager
    def exclusive(self, key: CollateralKey) -> Iterator[None]:
        """While one holder of a key's lock is inside, others wait, in all processes.

        Taking turns saves questions and is not what keeps the cache whole. So a process that does
        not let go in time is waited for no longer: no vendor's word may be missing because of it.

        Raises:
            ConfigError: the folder cannot be written.
            UnavailableError: a thread of this process was not done in time.
        """
        stripe = int.from_bytes(sha256(str(key).encode()).digest()[:2], "big") % STRIPES
        with contextlib.ExitStack() as stack:
            try:
                (self.root / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(self._locks.held(f"{stripe:02}"))
            except OSError as cause:
                raise _unusable(self.root, cause) from cause
            yield

    def _find(self, key: CollateralKey, now: int) -> Entry | None:
        """The entry as the files have it; raises like `get`."""
        # Before the entry: one that is moved into its place meanwhile has this number or a higher.
        try:
            seen = self._seen(key)
        except ConfigError:
            if _read(self._entry(key), RECORD_MAX) is None:
                return None  # nothing that this memory speaks of
            raise
        begun, overtaken = self._begun(key), None
        # While it is moved the newer one is in the second place, and after that in the first.
        for path in (self._entry(key), begun, self._entry(key)):
            raw = _read(path, RECORD_MAX)
            if raw is None:
                continue
            try:
                entry = decode_entry(raw, key, now)
                _check_order(entry, seen)
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

    def _write(self, entry: Entry, now: int, *, answered: bool) -> None:
        mark, key = self._seen(entry.key), entry.key
        entry = self._in_order(entry, answered=answered)
        rises = entry.sequence is not None and entry.sequence != mark
        data, begun = encode_entry(entry), self._begun(key)
        begun_mark = begun.with_suffix(_MARK)
        count = self._room.counted(now)
        answer = rises and mark is None and key.kind == "ocsp"
        count = replace(count, size=count.size + len(data), answers=count.answers + answer)
        self._room.note(count)
        try:
            write_new(begun, data, changed=entry.expires)
            if rises:
                record = {"v": 1, "key": str(key), "sequence": entry.sequence}
                write_new(begun_mark, encode(record))
                sync_folder(begun.parent)
        except BaseException:
            for path in (begun, begun_mark):
                path.unlink(missing_ok=True)
            raise
        if rises:
            # Before the entry: killed in between, the cache knows too much, not too little.
            move_over(begun_mark, self._mark(key))
        move_over(begun, self._entry(key))
        freed = self._room.freed(count, _name(key), now)
        if freed != count:
            self._room.note(freed)

    def _in_order(self, entry: Entry, *, answered: bool) -> Entry:
        """The entry, no older than what was remembered or could not be written; raises if it is."""
        held = self._decoded.get(entry.key, self.stamp(entry.key))
        numbers = (self._seen(entry.key), None if held is None else held.sequence)
        newest = max((number for number in numbers if number is not None), default=None)
        if answered and newest is not None:
            entry = replace(entry, sequence=max(entry.sequence or 0, newest))
        _check_order(entry, newest)
        return entry

    def _finish(self, now: int) -> None:
        """What a writer that is gone had begun: moved if its number is remembered, or deleted."""
        for path in (self.root / "begun").iterdir():
            key = None if path.suffix == _MARK else _stated(_read(path, RECORD_MAX) or b"")
            if key is not None and path == self._begun(key) and self._counts(key, now):
                move_over(path, self._entry(key))
            else:
                path.unlink(missing_ok=True)

    def _counts(self, key: CollateralKey, now: int) -> bool:
        """Whether what was begun under a key is what was remembered of it."""
        try:
            entry = decode_entry(_read(self._begun(key), RECORD_MAX) or b"", key, now)
            return entry.sequence is not None and entry.sequence == self._seen(key)
        except (MalformedError, ConfigError):
            return False

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

    def _entry(self, key: CollateralKey) -> Path:
        return self.root / "entries" / _name(key)

    def _begun(self, key: CollateralKey) -> Path:
        return self.root / "begun" / _name(key)

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


def _stated(raw: bytes) -> CollateralKey | None:
    """The key that a file states."""
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
        raise _unusable(path, cause) from cause


def _unusable(path: Path, cause: OSError) -> ConfigError:
    return ConfigError(f"collateral cache {path}: {cause.strerror}", hint=_HINT)
