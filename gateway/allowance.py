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
        at: when `left` and `spent` were right.
        spent: what was had by link and by process, not yet forgotten.
    """

    left: float
    at: float
    spent: dict[tuple[str, int], float] = field(default_factory=dict)


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
        grown = max(0.0, now - bucket.at) * self.per_minute / 60
        bucket.left, bucket.at = min(most, bucket.left + grown), now
        # As many names stay as pieces were spent, which the bucket bounds.
        bucket.spent = {name: n - grown for name, n in bucket.spent.items() if n > grown}
        left = bucket.left - 1
        shares = {("link", asker.link): left, ("peer", asker.peer): left * PEER_SHARE}
        if left < 0 or any(bucket.spent.get(name, 0.0) > most for name, most in shares.items()):
            return False
        bucket.left = left
        for name in shares:
            bucket.spent[name] = bucket.spent.get(name, 0.0) + 1
        return True
