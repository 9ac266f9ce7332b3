"""The highest number a client ever accepted under a name: what an older one must not undo.

Two things are numbered by who signs them, and genuine for ever: a policy its tenant has replaced,
and an evaluation of a platform that Intel has replaced. Whoever hands them over could go back to an
older one. One small file (mode 0600) for each name, in the state folder beside the log heads; a
record that cannot be read stops the client, since forgetting silently is what a rollback needs.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from attestation.collateral.whole_file import read_whole, write_whole
from wire.canonical import encode, parse_evj1
from wire.errors import ConfigError, MalformedError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER: Final = "seen"  # in the state folder
RECORD_MAX: Final = 4096
_HINT: Final = "choose a folder that this user may write with --state-dir"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is remembered under a name.

    Attributes:
        number: the highest accepted.
        digest: of the statement that had it; "" where any with this number will do.
    """

    number: int
    digest: str


class Highest:
    """The memory in one state folder; processes may share it."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / FOLDER

    def admit(self, name: str, number: int, digest: str = "") -> Mark | None:
        """Remember a number; returns what stands against it and leaves that, or None.

        A lower number than the highest is refused, and so is the highest with another digest.

        Raises:
            ConfigError: the memory cannot be read or written.
        """
        path = self.root / f"{sha256(name.encode()).hexdigest()[:32]}.json"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                mark = _read(path, name)
                if mark is not None and number <= mark.number:
                    return None if (number, digest) == (mark.number, mark.digest) else mark
                record = {"v": 1, "name": name, "number": number, "digest": digest}
                write_whole(path, encode(record))
            finally:
                os.close(lock)
        except OSError as cause:
            raise ConfigError(f"client state {path}: {cause.strerror}", hint=_HINT) from cause
        return None


def _read(path: Path, name: str) -> Mark | None:
    try:
        found = parse_evj1(read_whole(path, RECORD_MAX), RECORD_MAX)
    except FileNotFoundError:
        return None
    except MalformedError:
        found = {}
    match found:
        case {"v": 1, "name": str(stated), "number": int(number), "digest": str(digest)}:
            if stated == name:
                return Mark(number, digest)
    raise ConfigError(
        f"client state {path}: found no record of this name, expected one",
        hint="restore the file, or delete it to accept older statements as they are shown now",
    )
