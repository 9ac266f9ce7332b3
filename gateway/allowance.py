"""What strangers may make this gateway do that others pay for: buckets, each shared fairly.

Vendors limit questions by address. Evidence names pieces that nobody has seen before (the chip it
says it comes from), and whoever may connect can make up such names: without a bound, one stranger
spends what the fleet needs to stay admitted. The evidence log is kept for ever, and whoever may
connect can be refused as often as it likes.

One link takes no more than what would then be left, and all links of one process no more than
`PEER_SHARE` times that: whoever takes all it can get leaves a part for the next. What was spent is
forgotten at the rate at which the bucket fills.
"""

from dataclasses import dataclass, field

from .asker import Asker

#: Minutes of the rate that may be spent at once. A node of eight GPUs asks for about eighty pieces.
BURST_MINUTES = 3
#: What a process may have spent, over what is left: three quarters, if it is alone.
PEER_SHARE = 3


@dataclass(slots=True)
class _Bucket:
    """Of one source.

    Attributes:
        left: what may be had now.
        at: when `left` and `filled` were right.
        filled: what has come into it so far, and would have where it was full.
        spent: by link and by process: what `filled` must reach until what they had is forgotten.
        swept: what `filled` was when names were last dropped.
    """

    left: float
    at: float
    filled: float = 0.0
    spent: dict[tuple[str, int], float] = field(default_factory=dict)
    swept: float = 0.0

    def fill(self, now: float, per_minute: int, most: float) -> None:
        """Let come in what came since."""
        grown = max(0.0, now - self.at) * per_minute / 60
        self.left, self.at = min(most, self.left + grown), now
        self.filled += grown
        if self.filled >= self.swept + 1:
            # As many names stay as pieces were spent, which the bucket bounds.
            self.spent = {name: until for name, until in self.spent.items() if until > self.filled}
            self.swept = self.filled


@dataclass(slots=True)
class Allowance:
    """What strangers may have: pieces of vendors' collateral, entries of the log.

    Args:
        per_minute: of each source.
    """

    per_minute: int
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, asker: Asker, source: str, now: float) -> bool:
        """Whether one more of this source may be had on this link; if so it is spent.

        Args:
            asker: for whom.
            source: a vendor, one of `attestation.collateral_key.SOURCES`, or what else is shared.
            now: monotonic seconds.
        """
        most = float(self.per_minute * BURST_MINUTES)
        bucket = self._buckets.setdefault(source, _Bucket(most, now))
        bucket.fill(now, self.per_minute, most)
        left = bucket.left - 1
        shares = {("link", asker.link): left, ("peer", asker.peer): left * PEER_SHARE}
        until = {name: max(bucket.filled, bucket.spent.get(name, 0.0)) for name in shares}
        if left < 0 or any(until[name] - bucket.filled > most for name, most in shares.items()):
            return False
        bucket.left = left
        for name in shares:
            bucket.spent[name] = until[name] + 1
        return True
