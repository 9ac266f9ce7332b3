"""Whether a vendor is asked at all: one that does not answer is left alone for a while.

closed → `SILENT_MAX` questions in turn without an answer → open → `OPEN_S` later half open: one
question at a time; an answer closes it, silence opens it again. A refusal (no such piece) is an
answer. What strangers made up counts when it is answered, never when it is not, or whoever knows a
name that makes a vendor stall could cut everybody off from it.
"""

from dataclasses import dataclass

#: Questions in turn, each of which was put three times.
SILENT_MAX = 3
#: Longest time in which a vendor that is back is not noticed, in seconds.
OPEN_S = 30.0


@dataclass(slots=True)
class Breaker:
    """One vendor's. Times are monotonic seconds."""

    _silent: int = 0
    _open_until: float | None = None
    _trying: bool = False

    def begin(self, now: float, *, stranger: bool) -> bool:
        """Whether a question may be put; if so, `end` must follow."""
        if self._open_until is None:
            return True
        if now < self._open_until or (self._trying and not stranger):
            return False
        self._trying = self._trying or not stranger
        return True

    def end(self, now: float, *, answered: bool | None, stranger: bool) -> bool:
        """What came of a question.

        Args:
            now: when it ended.
            answered: None if it was not put after all.
            stranger: as for `begin`.

        Returns:
            Whether the vendor is now regarded otherwise than before.
        """
        was_open = self._open_until is not None
        if not stranger:
            self._trying = False
        if answered:
            self._silent, self._open_until, self._trying = 0, None, False
            return was_open
        if answered is None or stranger:
            return False
        self._silent += 1
        if was_open or self._silent >= SILENT_MAX:
            self._open_until = now + OPEN_S
        return not was_open and self._open_until is not None
