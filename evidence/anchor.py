"""The rollback anchor: the log's last signed head, kept in a second place.

A database restored from yesterday's backup is consistent with itself. What gives it away is a head
outside it that is further along. Put the anchor on another volume than the log; it is written after
the commit it names, so it can lag the log but never lead it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.collateral.whole_file import read_whole, write_whole
from wire.errors import ConfigError, RollbackError

from .note import NOTE_MAX

if TYPE_CHECKING:
    from pathlib import Path


class Anchor:
    """A file with one checkpoint note, replaced atomically and durably."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, log_size: int) -> str | None:
        """The anchored note; None only for a log that is itself empty.

        A missing anchor beside a log with entries is refused: otherwise deleting two files instead
        of one would undo it.
        """
        try:
            note = read_whole(self._path, NOTE_MAX)
        except FileNotFoundError:
            if log_size == 0:
                return None
            raise RollbackError(
                f"evidence log: an anchor for {log_size} entries expected at {self._path}",
                hint="restore the anchor file, or, if you moved the log on purpose, put its last "
                "checkpoint note there",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"evidence log: a readable anchor expected at {self._path}: {error.strerror}",
                hint="restore the anchor file",
            ) from error
        return note.decode("utf-8", "replace")

    def write(self, note: str) -> None:
        """Replace the note; durable when this returns."""
        write_whole(self._path, note.encode())
