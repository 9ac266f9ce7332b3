"""Replacing a file whole: whoever reads it finds the old content or the new one, never a part.

Written beside, made durable, renamed over. Here because nothing below this package touches the
disk; whatever stands above and keeps state in a file uses it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

NEW: Final = ".new-"  # names of files half written begin with it


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, replacing one that is there; durable when this returns.

    A failure leaves the file that was there, or the new one, and nothing beside it.

    Raises:
        OSError: the folder is not there, cannot be written, or has no room.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=NEW)  # makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # The new name is as durable as the folder that holds it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
