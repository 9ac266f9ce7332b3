"""Choosing the next token of every row.

Draws are counter-based: the random number of a row depends on its seed and on the position of the
token, and on nothing else, so neither the batch around it nor a preemption changes it. One uniform
number a token is enough: it is looked up in the cumulative distribution.

Order of the filters: temperature, top_k, top_p, min_p (as in Hugging Face).
"""

import hashlib
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from enclave_worker.engine.models.back_end import Logits
from enclave_worker.engine.params import SamplingParams

# Likeliest tokens looked at first. With the usual settings they hold the kept set; a row for which
# they provably do not is done again over the whole vocabulary. The number is fixed, not chosen from
# the batch, so that a row's arithmetic never depends on its neighbours.
CANDIDATES = 256
# Tokens a block of the two-level cumulative sum: about the square root of common vocabularies.
_BLOCK = 256
_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Draw:
    """What one row needs: its parameters, its seed, and the position of the token to choose."""

    params: SamplingParams
    seed: int
    position: int

    @property
    def uniform(self) -> float:
        """The row's random number in [0, 1): a hash of seed and position."""
        counter = self.seed.to_bytes(8, "little") + self.position.to_bytes(8, "little")
        digest = hashlib.blake2b(counter, digest_size=8, person=b"token draw").digest()
        return (int.from_bytes(digest, "little") >> 11) * _UNIT


def sample(logits: Logits, draws: Sequence_[Draw]) -> list[int | None]:
    """Choose one token a row.

    Args:
        logits: of the rows; their values are there unless every draw is greedy.
        draws: one for each row.

    Returns:
        Token ids; None for a row whose logits hold NaN or +inf, so that only its request fails.
    """
    tokens: list[int | None] = list(logits.best.tolist())
    plain: list[int] = []
    filtered: list[int] = []
    for row, (draw, finite) in enumerate(zip(draws, logits.finite.tolist(), strict=True)):
        if not finite:
            tokens[row] = None
        elif not draw.params.greedy:
            p = draw.params
            unfiltered = p.top_k == 0 and p.top_p >= 1 and p.min_p == 0
            (plain if unfiltered else filtered).append(row)
    for rows, choose in ((plain, _choose_plain), (filtered, _choose_filtered)):
        if rows and logits.values is not None:
            some = [draws[row] for row in rows]
            heat = torch.tensor([draw.params.temperature for draw in some])[:, None]
            chosen = logits.values[rows]
            weights = chosen.sub_(chosen.amax(-1, keepdim=True)).div_(heat).exp_()
            for row, token in zip(rows, choose(weights, some), strict=True):
                tokens[row] = token
    return tokens


def kept(weights: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The filtered distribution of one row.

    Args:
        weights: float32 [vocab], probabilities up to a factor, the largest being 1.
        params: the filters.

    Returns:
        (token ids, float64 weights) of the tokens kept, likeliest first.
    """
    vocab = weights.shape[0]
    top, ids = weights.topk(min(CANDIDATES, vocab))
    found = _filter(top.double(), ids, weights, params)
    if found is None:
        top, ids = weights.sort(descending=True, stable=True)
        found = _filter(top.double(), ids, weights, params)
    if found is None:
        raise RuntimeError("sampler: the whole vocabulary holds no complete kept set")
    return found


def _filter(
    top: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, params: SamplingParams
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Filter candidates given likeliest first; None where tokens beyond them might be kept too."""
    complete = top.shape[0] == weights.shape[0]
    if params.top_k and params.top_k <= top.shape[0]:
        top, ids, complete = top[: params.top_k], ids[: params.top_k], True
    elif params.top_k and not complete:
        return None
    mass = top.cumsum(0)
    total = mass[-1] if complete else weights.sum(dtype=torch.float64)
    if not complete and mass[-1] < params.top_p * total and top[-1] >= params.min_p:
        return None
    # A token stays while the tokens likelier than it hold less than top_p; the first always stays.
    keep = (mass - top < params.top_p * total) & (top >= params.min_p)
    keep[0] = True
    count = int(keep.sum())
    return ids[:count], top[:count]


def _choose_filtered(weights: torch.Tensor, draws: Sequence_[Draw]) -> list[int]:
    """Draw from each row's kept set, likeliest first."""
    tokens = []
    for row, draw in enumerate(draws):
        ids, kept_weights = kept(weights[row], draw.params)
        mass = kept_weights.cumsum(0)
        index = int(torch.searchsorted(mass, draw.uniform * mass[-1], right=True))
        tokens.append(int(ids[min(index, len(ids) - 1)]))
    return tokens


def _choose_plain(weights: torch.Tensor, draws: Sequence_[Draw]) -> list[int]:
    """Draw from the whole vocabulary, in its order: first the block, then the token in it."""
    rows, vocab = weights.shape
    blocks = F.pad(weights, (0, -vocab % _BLOCK)).view(rows, -1, _BLOCK)
    mass = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    uniform = torch.tensor([draw.uniform for draw in draws], dtype=torch.float64)
    target = uniform[:, None] * mass[:, -1:]
    block = _first_above(mass, target)
    before = torch.where(block > 0, mass.gather(1, (block - 1).clamp(min=0)), 0.0)
    inner = blocks[torch.arange(rows), block[:, 0]].double().cumsum(-1)
    token = block * _BLOCK + _first_above(inner, target - before)
    return [int(t) for t in token[:, 0].tolist()]


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Index of the first entry above the target; after rounding, never one of weight zero."""
    last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)
