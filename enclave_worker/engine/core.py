"""What turns sequences into tokens, step by step: the interface below the engine's loop."""

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import Protocol

from .sampling.choice import Choice
from .sequence import GenerationRequest, Sequence

# The tokens a step gave one sequence; None in the place of one that could not be chosen, after
# which the sequence is of no use.
Result = tuple[Sequence, Sequence_[Choice | None]]


@dataclass(frozen=True, slots=True)
class Levels:
    """Counters and levels of a core, free of content.

    Attributes:
        running: sequences with pages.
        waiting: sequences without.
        free_pages: of `total_pages`.
        cached_pages: kept for later requests, without a reader now.
        total_pages: of the KV pool.
        steps: steps run since start.
        computed_tokens: rows computed: prompts, recomputed tokens and decoding.
        preemptions: sequences sent back to the line for want of pages.
        hits: times a sequence took pages from the prefix cache.
        hit_tokens: tokens in them.
        evictions: cached pages given up because somebody needed the room.
        step_errors: steps that failed as a whole.
    """

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    cached_pages: int = 0
    total_pages: int = 0
    steps: int = 0
    computed_tokens: int = 0
    preemptions: int = 0
    hits: int = 0
    hit_tokens: int = 0
    evictions: int = 0
    step_errors: int = 0


class Core(Protocol):
    """Made, used and closed on the engine thread; `levels` may be asked from any."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""

    def check(self, request: GenerationRequest) -> None:
        """Refuse what this core cannot do (RequestInvalid); called on any thread."""

    def add(self, sequence: Sequence) -> None:
        """Take a sequence in; it is run when its turn comes. What raises here ends that one."""

    def remove(self, sequence: Sequence, *, faulty: bool = False) -> None:
        """Take a sequence out, wherever it is; it holds no memory any more. Twice is harmless.

        `faulty`: what it computed is not to be trusted, so nothing of its tenant's stays cached.
        """

    def step(self) -> list[Result]:
        """Run one step. Never raises for what is wrong with a sequence or a step."""

    def levels(self) -> Levels:
        """Counters and levels as of about now."""

    def describe(self) -> dict[str, str]:
        """What computes, for the attested record: engine, dtype, kernels, their digests."""

    def close(self) -> None:
        """Leave nothing behind: cached pages are scrubbed."""
