"""Entries and checkpoints on SQLite: one connection, one thread, WAL, full synchronous commits.

The store keeps leaves and signed heads and nothing derived: the tree is rebuilt from the leaf bytes
at every start, so index and content cannot disagree. The connection takes the file's exclusive
lock: two sequencers on one file would be two futures of one log.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw

from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# 3.7.0 to 3.51.2 can corrupt a WAL that is reset while another connection writes
SQLITE_MIN = (3, 51, 3)
SCHEMA_VERSION = 1
_APPLICATION_ID = 0x45564C31  # "EVL1": refuse somebody else's database before touching it
_PRAGMAS = (
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=2000",
    "PRAGMA mmap_size=0",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
)
_SCHEMA = f"""
CREATE TABLE entry (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT;
CREATE TABLE ckpt (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id={_APPLICATION_ID};
PRAGMA user_version={SCHEMA_VERSION};
"""


class SqliteStore:
    """The log's file. Every method must be called from the one thread that made it."""

    __slots__ = ("_db", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        check_sqlite_version(apsw.sqlite_lib_version())
        try:
            self._db = apsw.Connection(str(path))
        except apsw.Error as error:
            raise ConfigError(
                f"evidence log: a writable file expected at {path}",
                hint="create the folder and give this process write access to it",
            ) from error
        try:
            self._set_up()
        except apsw.BusyError as error:
            self._db.close()
            raise ConfigError(
                f"evidence log: {path} is open in another process",
                hint="one process writes a log: stop the other one, or use another file",
            ) from error
        except apsw.Error as error:
            self._db.close()
            raise ConfigError(
                f"evidence log: an SQLite database expected at {path}, found: {error}"
            ) from error
        except ConfigError:
            self._db.close()
            raise

    def meta(self, name: str) -> str | None:
        """A stored setting of this log."""
        rows = list(self._db.execute("SELECT value FROM meta WHERE name=?", (name,)))
        return str(rows[0][0]) if rows else None

    def set_meta(self, name: str, value: str) -> None:
        """Store a setting; committed at once."""
        self._db.execute("INSERT INTO meta(name, value) VALUES (?, ?)", (name, value))

    def last_checkpoint(self) -> str | None:
        """The note of the largest size ever committed."""
        rows = list(self._db.execute("SELECT note FROM ckpt ORDER BY size DESC LIMIT 1"))
        return str(rows[0][0]) if rows else None

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        """All (index, leaf) in order."""
        for index, leaf in self._db.execute("SELECT idx, leaf FROM entry ORDER BY idx"):
            yield int(index), bytes(leaf)

    def leaf(self, index: int) -> bytes | None:
        """One leaf."""
        rows = list(self._db.execute("SELECT leaf FROM entry WHERE idx=?", (index,)))
        return bytes(rows[0][0]) if rows else None

    def commit(self, first: int, leaves: Sequence[bytes], size: int, note: str) -> None:
        """Write a batch and its checkpoint in one durable transaction.

        Returning means fsync returned. Any failure means the page cache can no longer be trusted:
        the caller must stop the log, not retry. Raises `UnavailableError`.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO entry(idx, leaf) VALUES (?, ?)",
                [(first + at, leaf) for at, leaf in enumerate(leaves)],
            )
            self._db.execute("INSERT INTO ckpt(size, note) VALUES (?, ?)", (size, note))
            self._db.execute("COMMIT")
        except apsw.Error as error:
            message = f"evidence log: commit failed ({type(error).__name__})"
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Close the file, folding the WAL in where that still works (it is replayed if not)."""
        with contextlib.suppress(apsw.Error):
            self._db.close()

    def _set_up(self) -> None:
        for pragma in _PRAGMAS:
            self._db.execute(pragma).fetchall()
        found = self._pragma("application_id"), self._pragma("user_version")
        if found == (0, 0) and not list(self._db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")):
            with self._db:
                self._db.execute(_SCHEMA)
        elif found != (_APPLICATION_ID, SCHEMA_VERSION):
            raise ConfigError(
                f"evidence log: a log of schema {SCHEMA_VERSION} expected at {self._path}, "
                f"found application {found[0]:#x} schema {found[1]}"
            )
        # take the exclusive lock now, not at the first entry
        self._db.execute("BEGIN IMMEDIATE; COMMIT")

    def _pragma(self, name: str) -> int:
        return int(str(self._db.execute(f"PRAGMA {name}").fetchall()[0][0]))


def check_sqlite_version(version: str) -> None:
    """Refuse an SQLite with the WAL-reset bug; `version` like "3.51.3"."""
    if tuple(int(part) for part in version.split(".")) < SQLITE_MIN:
        raise ConfigError(
            f"SQLite of at least {'.'.join(map(str, SQLITE_MIN))} expected, found {version}",
            hint="install apsw from PyPI: it brings its own SQLite",
        )
