"""What the worker may say outside the ciphertext: typed, single-line events without content.

A log line is the easiest way for a prompt to leave an enclave, so there is no logger here. `emit`
takes names that exist in this file and integers, nothing else; an exception is reduced to its type
and to the places in our own code it passed. `silence` shuts every other door the interpreter has:
hooks that print exception messages, warnings that quote source lines, loggers of libraries.
"""

import asyncio
import enum
import logging
import os
import sys
import threading
import warnings
from pathlib import PurePath
from types import TracebackType
from typing import Any

# Folders whose file names are ours: only their frames are named, so that a path chosen by somebody
# else (a model folder, a user's home) never reaches the log.
FIRST_PARTY = frozenset({"enclave_worker", "wire", "attestation", "evidence"})
FRAMES_MAX = 6


class Event(enum.Enum):
    """Everything the worker can report."""

    CONFINED_EARLY = "confined_early"
    MODEL_LOADED = "model_loaded"
    WARM = "warm"
    REHEARSED = "rehearsed"
    CONFINED_LATE = "confined_late"
    EPOCH = "epoch"
    EPOCH_DROPPED = "epoch_dropped"
    CONNECTED = "connected"
    ADMITTED = "admitted"
    REFUSED = "refused"
    DISCONNECTED = "disconnected"
    JOB_DONE = "job_done"
    CANCELLED = "cancelled"
    NOTICE = "notice"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXCEPTION = "exception"


def emit(event: Event, **fields: int | enum.Enum) -> None:
    """Write `event key=value …` to stderr in one system call.

    Args:
        event: what happened.
        fields: integers (bool included) or enum members whose value is a string of ours.

    Raises:
        TypeError: a field is a string, bytes or anything else that could carry content.
    """
    parts = [f"worker {event.value}"]
    for name, value in fields.items():
        if isinstance(value, enum.Enum):
            parts.append(f"{name}={value.value}")
        elif type(value) in (int, bool):
            parts.append(f"{name}={int(value)}")
        else:
            raise TypeError(f"journal field {name}: only integers and enum members may be logged")
    _write(" ".join(parts))


def report(error: BaseException) -> None:
    """Write the type of `error` and the first-party lines it passed; never its message."""
    where = " ".join(_places(error.__traceback__)) or "-"
    _write(f"worker {Event.EXCEPTION.value} type={type(error).__name__} at={where}")


def silence() -> None:
    """Route every uncaught exception to `report`, and mute warnings and library loggers."""
    sys.excepthook = _excepthook
    threading.excepthook = _thread_hook
    sys.unraisablehook = _unraisable_hook
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    logging.raiseExceptions = False


def loop_handler(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An asyncio exception handler that names the type only (its `message` may quote reprs)."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        report(error)
    else:
        emit(Event.EXCEPTION)


def _places(traceback: TracebackType | None) -> list[str]:
    """Return `package/module.py:line` of the last first-party frames."""
    places = []
    while traceback is not None:
        path = PurePath(traceback.tb_frame.f_code.co_filename)
        ours = [index for index, part in enumerate(path.parts) if part in FIRST_PARTY]
        if ours:
            places.append(f"{'/'.join(path.parts[ours[-1] :])}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places[-FRAMES_MAX:]


def _excepthook(
    _kind: type[BaseException], error: BaseException, _traceback: TracebackType | None
) -> None:
    report(error)


def _thread_hook(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        report(args.exc_value)


def _unraisable_hook(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        report(args.exc_value)


def _write(line: str) -> None:
    # One write of one short line: lines of several threads do not mix.
    os.write(2, line.encode("ascii", "replace") + b"\n")
