"""Choosing the next token of every row.

Order of operations: logit bias, repetition, frequency and presence penalties, as in vLLM, and the
grammar's mask (which commutes with them); greedy rows take the arg-max of that; the others go
through temperature, top_k, top_p and min_p, as in Hugging Face's generate, and are drawn.

Draws are counter-based: the random number of a row depends on its seed and on the position of the
token, and on nothing else, so neither the batch around it nor a preemption nor a draft changes it.
One uniform number a token is enough: it is looked up in the cumulative distribution. Every row is
worked on by itself, so its bits never depend on its neighbours.
"""

from collections.abc import Sequence as Sequence_

import numpy as np

from enclave_worker.engine.logits import Logits

from .choice import Choice
from .filters import BLOCK, Masses, Row, kept, weigh
from .logprobs import with_logprobs
from .state import SamplerState


def choose(
    logits: Logits, rows: Sequence_[int], states: Sequence_[SamplerState]
) -> list[Choice | None]:
    """Choose one token for each state; logits and states stay as they are.

    Args:
        logits: of a step; their values are there if any of the states needs them.
        rows: which row each state chooses from.
        states: of the sequences, before the token.

    Returns:
        Choices; None where the row holds NaN or +inf, or the grammar hit a limit, so that only this
        request fails.
    """
    choices: list[Choice | None] = []
    for row, state in zip(rows, states, strict=True):
        if not logits.finite[row]:
            choices.append(None)
        elif not state.needs_values:
            choices.append(Choice(int(logits.best[row])))
        elif logits.values is None:
            raise ValueError("sampler: found no logits, expected those of a row that needs them")
        else:
            choices.append(_choose(logits.values[row].cpu().numpy(), state))
    return choices


def verify(
    logits: Logits, drafts: Sequence_[tuple[int, SamplerState, Sequence_[int]]]
) -> list[list[Choice | None]]:
    """Choose the next tokens of every sequence, as far as its draft turns out right.

    Exactly what choosing them in single steps would give: the row after a guess counts only if the
    token chosen before it is that guess.

    Args:
        logits: of the step.
        drafts: first row, state and draft of each sequence; the rows of a draft follow the first.
            The states move on by the tokens chosen.

    Returns:
        For each, one token more than were guessed right; None as `choose` has it.
    """
    chosen: list[list[Choice | None]] = [[] for _ in drafts]
    going = list(range(len(drafts)))
    depth = 0
    while going:
        rows = [drafts[i][0] + depth for i in going]
        right = []
        for i, choice in zip(
            going, choose(logits, rows, [drafts[i][1] for i in going]), strict=True
        ):
            chosen[i].append(choice)
            if choice is not None:
                _, state, draft = drafts[i]
                state.accept(choice.token)
                if depth < len(draft) and choice.token == draft[depth]:
                    right.append(i)
        going, depth = right, depth + 1
    return chosen


def _choose(raw: Row, state: SamplerState) -> Choice | None:
    """Choose from one row; None where nothing may be chosen."""
    row, params = raw, state.params
    if state.adjusts:
        row = raw.copy()
        if not state.adjust(row):
            return None
        if row.max() == -np.inf:
            return None
    if params.greedy:
        token = int(row.argmax())
    else:
        plain = params.top_k == 0 and params.top_p >= 1 and params.min_p == 0
        token = (_draw if plain else _draw_filtered)(row, state)
    if params.logprobs is None:
        return Choice(token)
    return with_logprobs(token, raw, params.logprobs)


def _draw(row: Row, state: SamplerState) -> int:
    """Draw from the whole vocabulary, in its order: first the block, then the token in it."""
    weights, mass = weigh(row, state.params.temperature)
    target = state.uniform * mass[-1]
    block = _first_above(mass, target)
    before = mass[block - 1] if block else 0.0
    first = block * BLOCK
    inner = weights[first : first + BLOCK].cumsum(dtype=np.float64)
    return first + _first_above(inner, target - before)


def _draw_filtered(row: Row, state: SamplerState) -> int:
    """Draw from the kept set, likeliest first."""
    ids, weights = kept(row, state.params)
    mass = weights.cumsum()
    return int(ids[_first_above(mass, state.uniform * mass[-1])])


def _first_above(running: Masses, target: float) -> int:
    """Index of the first sum above the target; after rounding, never one that adds nothing."""
    last = int(running.searchsorted(running[-1]))
    return min(int(running.searchsorted(target, side="right")), last)
