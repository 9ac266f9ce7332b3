"""The three ways a control can end, as constructors; the data type itself belongs to the record."""

import os

from attestation.posture import Control

__all__ = ("applied", "refused", "unavailable")


def applied(detail: str = "") -> Control:
    """The control is in force in this process; `detail` names the variant (an ABI, a digest)."""
    return Control(state="applied", errno=0, detail=detail)


def unavailable(errno: int = 0, detail: str = "") -> Control:
    """The kernel or the host does not offer the control."""
    return Control(state="unavailable", errno=errno, detail=detail or _words(errno))


def refused(errno: int, detail: str = "") -> Control:
    """The kernel offers it, but this attempt failed with `errno`, or it was left off (errno 0)."""
    return Control(state="refused", errno=errno, detail=detail or _words(errno))


def _words(errno: int) -> str:
    return os.strerror(errno) if errno else ""
