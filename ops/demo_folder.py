"""Where a demo keeps its keys, sockets and log; gone when the demo is, however it ended.

The folder holds a file that its demo keeps locked. The kernel drops the lock with the process, so
an unlocked one is a dead demo's, whatever its process number means by now.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "anchorhold-demo-"
LOCK = "owner.lock"


@contextmanager
def demo_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new private folder, deleted at the end; first deletes those of dead demos.

    Args:
        parent: where demos keep their folders; the system's temporary folder when None.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        # Locked before it has its name: a demo that starts now must not take this for a dead one.
        with (folder / f".{LOCK}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"{os.getpid()}\n")  # for people; the lock decides
            lock.flush()
            (folder / f".{LOCK}").rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> list[Path]:
    """Delete the folders of demos that were killed; returns them.

    Only folders of this user, that hold a demo's lock file, that nobody holds locked.
    """
    swept = []
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
            continue
        try:
            # Not through a link: the temporary folder is everybody's.
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder)
        finally:
            os.close(lock)
    return swept
