"""Links that are not admitted: what all of them together may hold, shared out by process.

Whoever may connect costs the gateway an open file, and memory for what it sends, before anything is
known about it. Both are bounded for all strangers together. Where a bound is met, the process that
holds most gives way: of its links the oldest that has not said all of its HELLO, else the oldest.
So whoever takes all it can get, with however many processes, keeps nobody out that holds less.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .asker import Asker
from .turns import Turns

#: Bytes of HELLOs, whole or not, of all that are not admitted: a fleet of a hundred that comes at
#: once, each with evidence of sixteen GPUs.
BYTES_MAX = 64 * 1024 * 1024
#: HELLOs read at once, each for milliseconds; one process has all of these but one at most.
READERS = 2


@dataclass(slots=True, eq=False)
class Stranger:
    """One link that is not admitted.

    Attributes:
        asker: whose it is.
        end: ends the link, with a cause.
        held: bytes it has sent that are kept.
        said: whether all of its HELLO is here.
    """

    asker: Asker
    end: Callable[[str], None]
    held: int = 0
    said: bool = False


@dataclass(slots=True)
class Strangers:
    """All of them, in the order in which they came.

    Args:
        bytes_max: what they may hold.

    Attributes:
        reading: places in which their HELLOs are parsed.
    """

    bytes_max: int = BYTES_MAX
    reading: Turns = field(default_factory=lambda: Turns(READERS))
    _here: dict[Stranger, None] = field(default_factory=dict)
    _held: int = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._here)

    @property
    def held(self) -> int:
        """Bytes that are kept for all of them."""
        return self._held

    def has_room(self, peer: int, free: int) -> bool:
        """Whether a process may have one more link; another may lose one for it.

        Args:
            peer: the process.
            free: links that nobody has. None takes more of them than it leaves.
        """
        links = Counter(one.asker.peer for one in self._here)
        if links[peer] < free:
            return True
        most = max(links, key=lambda other: links[other], default=peer)
        if links[most] <= links[peer] + 1:
            return False
        self._give_way([one for one in self._here if one.asker.peer == most])
        return True

    def enter(self, stranger: Stranger) -> None:
        """A link was accepted."""
        self._here[stranger] = None

    def leave(self, stranger: Stranger) -> None:
        """A link was admitted, or ended; harmless when repeated."""
        if stranger in self._here:
            del self._here[stranger]
            self._held -= stranger.held

    def holds(self, stranger: Stranger, size: int) -> None:
        """Note what is kept for a link; some link is ended where it is too much in all."""
        if stranger not in self._here:
            return
        self._held += size - stranger.held
        stranger.held = size
        while self._held > self.bytes_max:
            sizes = Counter[int]()
            for one in self._here:
                sizes[one.asker.peer] += one.held
            most = max(sizes, key=lambda peer: sizes[peer])
            self._give_way([one for one in self._here if one.asker.peer == most and one.held])

    def _give_way(self, links: list[Stranger]) -> None:
        """End one of a process's links."""
        loser = min(links, key=lambda one: one.said)  # the first such: the oldest
        self.leave(loser)
        loser.end("overflow")
