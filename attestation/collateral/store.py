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
- What a suspended process or the disk keeps from being written counts for this process, whatever
  else is read and written, and is written once that can be done (`unkept`): with the next write, or
  beside a reading, every `AGAIN_S` seconds.
- While the memory of a number cannot be read, nothing under that key is taken from the folder, and
  nothing written there. What is delivered meanwhile counts for this process if it is no older than
  what this has itself accepted (`accepted`); where it knows of nothing, nothing counts.
- `exclusive` lets one caller at a time fetch a key; the others then find what it stored. Nobody
  waits for ever (`locks`), nor longer the more there is (`room`).

The cache is no trust anchor for what vendors sign: who may write its folder can at most put back
what they did sign, and take the memory away. For key sets of token issuers (`jwks`) it is one:
nobody signs them, so who may write the folder can put keys of their own there, and tokens under
these count. Where tokens count, the folder is to be as hard to write as the policy.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from wire.canonical import encode
from wire.errors import AttestationError, ConfigError, UnavailableError
from wire.limits import CLOCK_SKEW_S

from .accepted import Accepted
from .decoded import Decoded, Stamp
from .entry import MIB, RECORD_MAX, encode_entry
from .folder import ANSWER, MARK, Folder, check_order, name_of, stated_in, unusable
from .locks import AGAIN_S, WAIT_S, Locks
from .room import Room
from .unkept import Cause, Unkept, cause_of
from .whole_file import move_over, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.collateral_key import CollateralKey

    from .entry import Entry

SIZE_MAX: Final = 256 * MIB  # of all entries: a fleet of thousands of chips takes a few MiB
SIZE_MIN: Final = 2 * RECORD_MAX  # below it the entry just written could not stay
ANSWERS_MAX: Final = 32_768  # the certificates of ten thousand GPUs; 128 MiB of small files
BATCH: Final = 16  # of what could not be written, at once: others wait for the lock meanwhile
STRIPES: Final = 64  # lock files; two keys that share one wait for each other, no more


class Store:
    """A folder of entries.

    Args:
        root: made on the first write.
        size_max: bytes after which entries are deleted: first what has ended, then what ends next.
        lock_wait_s: seconds to wait for another process.
        unkept: remembers what cannot be written, and says so; of this store alone.
    """

    def __init__(
        self,
        root: Path,
        size_max: int = SIZE_MAX,
        *,
        lock_wait_s: float = WAIT_S,
        unkept: Unkept | None = None,
    ) -> None:
        if size_max < SIZE_MIN:
            raise ConfigError(f"collateral cache: expected a size of at least {SIZE_MIN} bytes")
        self.root = root
        self._folder = Folder(root)
        self._room = Room(root, size_max, ANSWERS_MAX, ANSWER)
        self._locks = Locks(root / "locks", lock_wait_s)
        self._decoded = Decoded()
        self._unkept = Unkept() if unkept is None else unkept
        self._accepted = Accepted()
        self._tried = 0

    def get(self, key: CollateralKey, now: int) -> Entry | None:
        """The entry of this key, expired or not; None if there is none that can be used.

        Raises:
            AttestationError: `collateral_rollback`: an older one than was seen before.
            ConfigError: the folder or the memory of numbers cannot be read, and this process has
                nothing newer than all it knows of.
        """
        self.settle(now)
        stamp = self.stamp(key)
        entry = self._decoded.get(key, stamp)
        if entry is None:
            entry = self._newest(key, now)
            if entry is None:
                return None
            self._decoded.keep(key, stamp, entry)
            self._accepted.note(key, entry.sequence)
        # By now the clock may have been set back.
        return entry if entry.fetched_at <= now + CLOCK_SKEW_S else None

    def stamp(self, key: CollateralKey) -> Stamp:
        """What differs once the entry of this key, or the number remembered of it, is another."""
        found, held = self._folder.stamp(key), self._unkept.get(key)
        return found if held is None else (*found, (held.mark,))

    def holds(self, key: CollateralKey) -> bool:
        """Whether something is kept under this key, in force or not: a vendor once answered it.

        Raises:
            ConfigError: the folder cannot be read.
        """
        try:
            return self._unkept.get(key) is not None or self._folder.entry(key).is_file()
        except OSError as cause:
            if self._accepted.number(key) is not None:
                return True
            raise unusable(self.root, cause) from cause

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
            UnavailableError: another process, a slow thread, the disk or the folder's owner keeps
                it from being written. It was in order, `get` gives it to this process, and it is
                written later.
            ConfigError: nobody can tell whether it is in order; it counts for nothing until that
                can be told. Or too much is waiting to be written, and this is not kept.
        """
        if entry.passing and not self.holds(entry.key):
            return
        try:
            self._folder.make()
            with self._locks.held("store") as alone:
                if not alone:
                    raise UnavailableError(
                        f"collateral cache {self.root}: another process is writing, and was not "
                        "done in time",
                        hint="find a process that was suspended while it used this folder",
                    )
                self._folder.finish(now)
                self._write(entry, now, answered=answered)
                self._write_waiting(now)
        except UnavailableError:
            self._hold(entry, Cause.LOCKED, now, answered=answered)
            raise
        except (ConfigError, OSError) as error:
            cause = cause_of(error)
            self._hold(entry, cause, now, answered=answered)
            refusal = unusable(self.root, error) if isinstance(error, OSError) else error
            raise UnavailableError(refusal.message, hint=cause.words) from error

    def settle(self, now: int) -> None:
        """Write what could not be written, if that can be done now; waits for nobody."""
        if not self._unkept.waits or abs(now - self._tried) < AGAIN_S:
            return
        self._tried = now
        with contextlib.suppress(OSError, ConfigError, UnavailableError):
            self._folder.make()
            with self._locks.held("store", wait=False) as alone:
                if alone:
                    self._folder.finish(now)
                    self._write_waiting(now)

    def unwritten(self, key: CollateralKey) -> Cause | None:
        """Why what counts under a key is not in the folder; None where it is."""
        held = self._unkept.get(key)
        return None if held is None else held.cause

    def keeps(self, entry: Entry, now: int) -> bool:
        """Whether the folder has this entry, or a newer one: `get` also gives what it has not.

        Raises:
            as for `get`.
        """
        found = self._folder.find(entry.key, now)
        return found is not None and found.fetched_at >= entry.fetched_at

    def entries(self, now: int) -> Iterator[Entry]:
        """Every usable entry, ordered by key; damaged, overtaken and foreign files are passed over.

        Raises:
            ConfigError: the folder or the memory of numbers cannot be read.
        """
        found = []
        for path in sorted((self.root / "entries").glob("*.json")):
            key = stated_in(path)
            if key is None or path != self._folder.entry(key):
                continue
            with contextlib.suppress(AttestationError):
                entry = self._folder.find(key, now)
                found.extend([] if entry is None else [entry])
        yield from sorted(found, key=lambda entry: entry.key)

    @contextlib.contextmanager
    def exclusive(self, key: CollateralKey) -> Iterator[None]:
        """While one holder of a key's lock is inside, others wait, in all processes.

        Taking turns saves questions and is not what keeps the cache whole. So a process that does
        not let go in time is waited for no longer, and a folder without locks does without: no
        vendor's word may be missing because of it.

        Raises:
            ConfigError: nobody could tell whether what is fetched is older than what was seen
                before: it is not to be asked for.
            UnavailableError: a thread of this process was not done in time.
        """
        self._seen(key)
        stripe = int.from_bytes(sha256(str(key).encode()).digest()[:2], "big") % STRIPES
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                (self.root / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(self._locks.held(f"{stripe:02}"))
            yield

    def _newest(self, key: CollateralKey, now: int) -> Entry | None:
        """The entry of the files, or the one that could not be written; raises like `get`."""
        held = self._unkept.get(key)
        if held is None:
            return self._folder.find(key, now)
        seen = self._seen(key)
        if seen is not None and (held.number is None or held.number < seen):
            self._unkept.forget(key, held)
            return self._folder.find(key, now)
        found = None
        with contextlib.suppress(AttestationError, ConfigError):
            found = self._folder.find(key, now)
        if found is not None and held.overtaken(found):
            self._unkept.forget(key, held)
            return found
        if held.entry is None:
            raise AttestationError(
                f"collateral {key.kind}: what came last could not be kept, and counts",
                reasons=("collateral_rollback",),
                hint=held.cause.words,
            )
        return held.entry

    def _write(self, entry: Entry, now: int, *, answered: bool) -> None:
        mark, key = self._folder.seen(entry.key), entry.key
        entry = self._in_order(entry, answered=answered)
        rises = entry.sequence is not None and entry.sequence != mark
        data, begun = encode_entry(entry), self._folder.begun(key)
        begun_mark = begun.with_suffix(MARK)
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
            move_over(begun_mark, self._folder.mark(key))
        move_over(begun, self._folder.entry(key))
        # What was just written counts, though a disk that takes it may not give it back.
        self._decoded.keep(key, self._folder.stamp(key), replace(entry, passing=False))
        self._unkept.written(entry)
        freed = self._room.freed(count, name_of(key), now)
        if freed != count:
            self._room.note(freed)

    def _in_order(self, entry: Entry, *, answered: bool) -> Entry:
        """The entry, no older than what was remembered or could not be written; raises if it is."""
        held = self._unkept.get(entry.key)
        numbers = (self._seen(entry.key), None if held is None else held.number)
        newest = max((number for number in numbers if number is not None), default=None)
        if answered and newest is not None:
            entry = replace(entry, sequence=max(entry.sequence or 0, newest))
        check_order(entry, newest)
        self._accepted.note(entry.key, entry.sequence)
        return entry

    def _seen(self, key: CollateralKey) -> int | None:
        """The highest number accepted under a key: as remembered, or what this process knows.

        Raises:
            ConfigError: the memory cannot be read, and this process knows nothing.
        """
        try:
            return self._folder.seen(key)
        except ConfigError:
            if not self._accepted.has(key):
                raise
            return self._accepted.number(key)

    def _hold(self, entry: Entry, cause: Cause, now: int, *, answered: bool) -> None:
        """Remember what could not be written; raises as `put` for one that is not in order."""
        self._tried, untold = now, None
        try:
            entry = self._in_order(entry, answered=answered)
        except ConfigError as refusal:
            untold = refusal  # what cannot be read now is compared with it when that can be
        if not self._unkept.keep(entry, cause):
            raise ConfigError(
                f"collateral cache {self.root}: cannot be written, and too much is waiting to be",
                hint=cause.words,
            )
        if untold is not None:
            raise untold

    def _write_waiting(self, now: int) -> None:
        """Some of what could not be written; for whoever holds the store's lock."""
        left = BATCH
        for entry in self._unkept.waiting():
            try:
                # Another process may have written a newer one.
                if self._newest(entry.key, now) is entry:
                    self._write(entry, now, answered=False)
                    left -= 1
            except OSError:
                return
            except (AttestationError, ConfigError):
                continue
            if left == 0:
                return
