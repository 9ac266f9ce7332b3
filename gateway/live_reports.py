"""What one of several workers attests to over a caller's nonce, whoever of them answers.

The caller named no worker. One that is silent, or shows nothing that can be used, may be admitted
all the same: it must not stand for the others. So each question begins with another worker, and
goes on to the next, while all of it ends in the time that one worker has for one challenge.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from wire.errors import AnchorholdError, AttestationError, MalformedError, UnavailableError
from wire.ids import b64u

from .appraiser import Presented
from .session import Epoch
from .workers import CHALLENGE_TIMEOUT_S, Workers

#: Workers asked for one answer: each attests, which costs it time, and has its part of the whole.
TRIES_MAX = 3


@dataclass(slots=True)
class LiveReports:
    """Asks workers in turn.

    Args:
        workers: relays questions.
        within_s: for one answer, whoever gives it.
    """

    workers: Workers
    within_s: float = CHALLENGE_TIMEOUT_S
    _turns: Iterator[int] = field(default_factory=itertools.count)

    async def ask(
        self,
        offered: Sequence[Epoch],
        nonce: bytes,
        report: Callable[[Presented], dict[str, Any]],
    ) -> dict[str, Any]:
        """The first answer of which a report can be made.

        Args:
            offered: keys of the workers that may answer, in any order; at least one.
            nonce: 32 bytes.
            report: makes it of what a worker showed.

        Raises:
            UnavailableError, MalformedError, AttestationError: no answer in time, or none of the
                workers asked gave one; the last one's.
        """
        first = next(self._turns) % len(offered)
        asked = (*offered[first:], *offered[:first])[:TRIES_MAX]
        end = monotonic() + self.within_s
        error: AnchorholdError = UnavailableError("no worker was asked")
        for left, epoch in zip(range(len(asked), 0, -1), asked, strict=True):
            wid, within_s = epoch.appraised.binding.wid, (end - monotonic()) / left
            try:
                shown = await self.workers.challenge(wid, epoch.bh, b64u(nonce), None, within_s)
                return report(shown.presented)
            except (UnavailableError, MalformedError, AttestationError) as found:
                error = found
        raise error
