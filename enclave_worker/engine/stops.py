"""Stop strings, found across token borders and never shown, not even in part."""

from collections.abc import Sequence as Sequence_


class StopFilter:
    """Passes text through until a stop string appears.

    The text that comes out does not depend on how the text is cut into pieces: the stop string that
    is complete first ends it (of two complete at once, the longer).
    """

    def __init__(self, stops: Sequence_[str]) -> None:
        """Watch for any of these strings."""
        self._stops = tuple(stops)
        self._held = ""
        self.which: int | None = None

    @property
    def hit(self) -> bool:
        """Whether a stop string ended the text; `which` says which."""
        return self.which is not None

    def push(self, text: str) -> str:
        """Return the text that is certain not to belong to a stop string; sets `hit`."""
        if self.hit:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        found = [
            (at + len(s), at, n) for n, s in enumerate(self._stops) if (at := held.find(s)) >= 0
        ]
        if found:
            _, at, self.which = min(found)
            self._held = ""
            return held[:at]
        keep = max(_overlap(held, s) for s in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return the text held back, when nothing more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`, `stop` itself excluded."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
