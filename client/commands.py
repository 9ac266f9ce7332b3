"""What the sans-I/O generators ask their driver to do, and what they hand to the caller.

A generator yields one command and is sent that command's result, or yields `Emit` and is sent None.
Drivers perform commands in order and never decide anything: every check lives in the generators.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from .state import Seen


# A gateway waits half a minute for a worker that it asks; the largest reply, three megabytes, takes
# most of a minute at half a megabit a second.
FETCH_S: Final = 90.0
# What one read may take beyond a request's life: a stream has a frame every 100 ms, but a whole
# answer may wait in line and run as long as the request lives.
MARGIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Fetch:
    """One small request; the result is a `Reply`.

    Attributes:
        path: path and query below the gateway's base URL.
        limit: largest reply body in bytes; a longer one is refused while it is read.
        whole_s: seconds it may take in all: bytes that drip keep each read in time.
    """

    method: Literal["GET", "POST"]
    path: str
    limit: int
    body: bytes = b""
    content_type: str = ""
    whole_s: float = FETCH_S


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole small reply; nothing about it is trusted."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Post sealed bytes and open the reply for reading; the result is an `Opened`.

    Attributes:
        rid: text form of the request id, sent as the idempotency key.
        begins_s: seconds until its reply has begun, header and all: bytes that drip keep each read
            in time, those of a header too.
        whole_s: seconds it and its reply may take in all; None for as long as an answer runs. A
            reply that is none is to end sooner: `Shorten`.
    """

    path: str
    body: bytes
    content_type: str
    rid: str
    begins_s: float
    whole_s: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The reply's status line; the body is read with `Read`."""

    status: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Read:
    """Next piece of the open reply; the result is bytes, empty at its end."""


@dataclass(frozen=True, slots=True)
class Shorten:
    """Give the rest of the open reply no more than this; an earlier end of its own stays.

    Attributes:
        whole_s: seconds from now in all.
    """

    whole_s: float


@dataclass(frozen=True, slots=True)
class Close:
    """Drop the open reply, if any: the gateway reads this as a cancel."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Exclusive:
    """Run `steps` while no other exchange of this client does; the result is theirs.

    What a client remembers (directory, verified workers, log head) changes only inside one.
    """

    steps: Generator[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Recall:
    """Read the stored head of a log; the result is a `Seen` or None."""

    origin: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Compare and swap the stored head of a log; the result is whether it was swapped."""

    origin: str
    expected: Seen | None
    new: Seen


@dataclass(frozen=True, slots=True)
class Emit:
    """Something for the caller."""

    event: Any


Command: TypeAlias = Fetch | Send | Read | Shorten | Close | Pause | Exclusive | Recall | Remember
Result = TypeVar("Result")
Steps: TypeAlias = Generator[Command | Emit, Any, Result]


def fetch(command: Fetch) -> Steps[Reply]:
    """Perform one `Fetch`, typed."""
    reply = yield command
    assert isinstance(reply, Reply)
    return reply


def exclusive(steps: Steps[Result]) -> Steps[Result]:
    """Perform one `Exclusive`, typed."""
    result: Result = yield Exclusive(steps)
    return result
