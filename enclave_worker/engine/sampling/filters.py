"""Which tokens may be drawn: top_k, then top_p, then min_p, as in Hugging Face's generate.

The likeliest tokens are looked at first: finding them takes one pass over the vocabulary, sorting
it would take a hundred. Where they provably do not hold the whole kept set, more are looked at.
"""

import numpy as np
import numpy.typing as npt

from enclave_worker.engine.params import SamplingParams

Row = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Masses = npt.NDArray[np.float64]

# Likeliest tokens looked at first, and how many more when they are too few. Fixed, not chosen from
# the batch, so that a row's arithmetic never depends on its neighbours.
CANDIDATES = 256
_MORE = 16
# Tokens a block of the sums: about the square root of common vocabularies.
BLOCK = 256


def likeliest(row: Row, count: int) -> tuple[Ids, bool]:
    """The likeliest tokens.

    The vocabulary is folded into some four times `count` columns; the count-th largest of their
    maxima is below at least `count` logits, and seldom below many more.

    Args:
        row: float32 [vocab] logits; -inf is a token that must not be chosen.
        count: how many are wanted, at least 1.

    Returns:
        (ids, complete): at least `count` ids if there are as many, likeliest first, the lower id
        first among equals; complete: all that may be chosen are among them.
    """
    ids = None
    if count < len(row):
        fold = max(1, len(row) // (4 * count))
        columns = len(row) // fold
        maxima = row[: fold * columns].reshape(fold, columns).max(0)
        threshold = np.partition(maxima, columns - count)[columns - count]
        if threshold > -np.inf:
            ids = np.flatnonzero(row >= threshold)
    complete = ids is None
    if ids is None:
        ids = np.flatnonzero(row > -np.inf)
    return ids[np.argsort(-row[ids], kind="stable")], complete


def weigh(row: Row, temperature: float = 1.0) -> tuple[Row, Masses]:
    """Probabilities up to a factor, the largest being 1, and their sums.

    Returns:
        (float32 [vocab] weights, float64 [ceil(vocab / BLOCK)] running sums by block).
    """
    weights = row - row.max()
    if temperature != 1:
        weights /= np.float32(temperature)
    np.exp(weights, out=weights)
    blocks = np.add.reduceat(weights, np.arange(0, len(row), BLOCK))
    return weights, blocks.cumsum(dtype=np.float64)


def kept(row: Row, params: SamplingParams) -> tuple[Ids, Masses]:
    """The filtered distribution of one row.

    Args:
        row: float32 [vocab] logits, at least one above -inf.
        params: the filters and the temperature.

    Returns:
        (token ids, float64 weights) of the tokens kept, likeliest first.
    """
    total = 0.0
    for count in (CANDIDATES, CANDIDATES * _MORE, len(row)):
        ids, complete = likeliest(row, count)
        top = row[ids].astype(np.float64)
        top = np.exp((top - top[0]) / params.temperature)
        if params.top_k and (complete or params.top_k <= len(ids)):
            ids, top, complete = ids[: params.top_k], top[: params.top_k], True
        mass = top.cumsum()
        # Below min_p, or beyond top_p, nothing is kept: then it matters no more what comes.
        enough = complete or (not params.top_k and top[-1] < params.min_p)
        if params.top_p < 1 and not params.top_k and not complete:
            total = total or float(weigh(row, params.temperature)[1][-1])
            enough = enough or mass[-1] >= params.top_p * total
        if enough:
            break
    keep = top >= params.min_p
    if params.top_p < 1:
        # A token stays while the tokens likelier than it hold less than top_p.
        keep &= mass - top < params.top_p * (mass[-1] if complete else total)
    size = max(1, int(keep.sum()))
    return ids[:size], top[:size]
