"""What a client remembers between runs: the highest log head it has verified, per log.

Without this memory a gateway could show each run an older log and an older list of workers. The
record is compared and swapped under a file lock, so two processes sharing the folder can never
overwrite each other's newer head. A record that cannot be read stops the client: forgetting
silently is exactly what a rollback needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from attestation.collateral.whole_file import read_whole, write_whole
from wire.canonical import encode, parse_strict
from wire.errors import ConfigError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD_MAX = 128 * 1024  # a signed note is at most 64 KiB
_HINT = "choose a folder that this user may write with --state-dir"
_NAME_LEN = 32  # hex digits of SHA-256(origin): an origin holds slashes and is not a file name


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest verified head of one log.

    Attributes:
        checkpoint: the signed note as received.
        snapshot_leaf: highest log index of a directory snapshot accepted so far. The log only
            grows, so a snapshot at a lower index is an older list, whatever it says of itself.
    """

    checkpoint: str
    snapshot_leaf: int


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/anchorhold`, or `~/.local/state/anchorhold`."""
    root = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".local" / "state") / "anchorhold"
    except RuntimeError as cause:
        raise ConfigError(
            "client state: found no home folder, expected one", hint="set $HOME or $XDG_STATE_HOME"
        ) from cause


class TrustState:
    """A folder (mode 0700) of one small file (mode 0600) per log origin."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, origin: str) -> Seen | None:
        """The record for `origin`, or None if there never was one.

        Raises:
            ConfigError: the record exists and is not readable as one.
        """
        path = self._path(origin)
        try:
            raw = read_whole(path, RECORD_MAX)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise ConfigError(f"client state {path}: {cause.strerror}", hint=_HINT) from cause
        try:
            record = parse_strict(raw, max_bytes=RECORD_MAX)
        except MalformedError as cause:
            raise self._broken(path) from cause
        match record:
            case {"v": 1, "origin": str(found), "checkpoint": str(note), "leaf": int(leaf)}:
                if found == origin:
                    return Seen(note, leaf)
        raise self._broken(path)

    def advance(self, origin: str, expected: Seen | None, new: Seen) -> bool:
        """Replace `expected` by `new`; False if another process wrote something else meanwhile.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(origin):
                if self.read(origin) != expected:
                    return False
                if new != expected:
                    self._write(origin, new)
                return True
        except OSError as cause:
            message = f"client state folder {self.root}: {cause.strerror}"
            raise ConfigError(message, hint=_HINT) from cause

    def _path(self, origin: str) -> Path:
        return self.root / f"{sha256(origin.encode()).hexdigest()[:_NAME_LEN]}.json"

    @contextlib.contextmanager
    def _locked(self, origin: str) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self._path(origin).with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, origin: str, seen: Seen) -> None:
        record = {"v": 1, "origin": origin, "checkpoint": seen.checkpoint}
        data = encode(record | {"leaf": seen.snapshot_leaf})
        write_whole(self._path(origin), data)

    @staticmethod
    def _broken(path: Path) -> ConfigError:
        return ConfigError(
            f"client state {path}: found something that is not a state record of this log",
            hint="restore the file, or delete it to accept the log as it is shown now",
        )
