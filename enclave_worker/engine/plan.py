"""One step laid out: which token sits in which row, and which pages each row may read.

Computed once a step, the same for every back end. Rows with a single new token (every decoding
sequence, and the last token of a prompt cut at the budget) come first, then the longer chunks.
"""

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .sequence import Sequence

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence does in a step.

    Attributes:
        sequence: whose.
        count: tokens of `sequence.tokens`, from the first one not yet computed.
        draft: guessed tokens after those, to be verified in the same step.
        wanted: rows, counted from the last, whose next token is wanted: none while a prompt is
            being read, one while decoding, one more for each draft token.
    """

    sequence: Sequence
    count: int
    draft: tuple[int, ...] = ()
    wanted: int = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one sequence.

    Attributes:
        first: row of the step.
        count: rows.
        start: position of the first one in its sequence.
        pages: page ids of the sequence, in order; may hold more than are read.
        adapter: name of its adapter; empty for none.
    """

    first: int
    count: int
    start: int
    pages: Sequence_[int]
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything a model needs for one step.

    Attributes:
        tokens: int32 [rows] token ids.
        positions: int32 [rows] position of each in its sequence.
        chunks: which sequence the rows belong to; those of one row come first.
        wanted: int32 [n] rows whose logits are wanted, in the order of `work`.
        work: what was planned, in the order of `chunks`.
    """

    tokens: Ints
    positions: Ints
    chunks: tuple[Chunk, ...]
    wanted: Ints
    work: tuple[Work, ...]


def plan_step(work: Sequence_[Work]) -> StepPlan:
    """Lay out the work of one step."""
    ordered = sorted(work, key=lambda item: item.count + len(item.draft) > 1)
    tokens: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    chunks: list[Chunk] = []
    for item in ordered:
        sequence, start = item.sequence, item.sequence.computed
        count, first = item.count + len(item.draft), len(tokens)
        chunks.append(Chunk(first, count, start, sequence.pages, sequence.request.adapter))
        tokens.extend(sequence.tokens[start : start + item.count])
        tokens.extend(item.draft)
        positions.extend(range(start, start + count))
        wanted.extend(range(first + count - item.wanted, first + count))
    return StepPlan(
        tokens=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        chunks=tuple(chunks),
        wanted=np.array(wanted, np.int32),
        work=tuple(ordered),
    )
