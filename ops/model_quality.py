"""What quantisation costs: perplexity and agreement with float32 on text that was held out.

Every mode is computed in the arithmetic it is served in. A window of text is read by all modes in
turn, so that only one window's logits are held.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from .model_figures import Figures, Quality
from .model_forward import Forward, Products
from .model_text import Excerpt, origin

#: The mode the others are compared with.
SOURCE = "float32"
#: Perplexity above bfloat16's by more than this is said aloud.
LOSS_MAX = 0.01


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in one arithmetic."""

    model: Forward
    products: Products


@dataclass(slots=True)
class _Sums:
    """Over the tokens read so far."""

    surprise: float = 0.0
    divergence: float = 0.0
    agreed: int = 0
    tokens: int = field(default=0)

    def quality(self) -> Quality:
        """Means, rounded to what the text's length can tell."""
        return Quality(
            perplexity=round(math.exp(self.surprise / self.tokens), 4),
            divergence=round(max(self.divergence, 0.0) / self.tokens, 5),
            agreement=round(self.agreed / self.tokens, 4),
        )


def measure(
    candidates: Mapping[str, Candidate], text: Excerpt, report: Callable[[int, int], None]
) -> Figures:
    """Compare modes.

    Args:
        candidates: by mode; SOURCE is among them.
        text: windows; a window's first token is read only, the others are foretold.
        report: hears how many passes over a window of how many are done.
    """
    order = [SOURCE, *sorted(set(candidates) - {SOURCE})]
    sums = {mode: _Sums() for mode in order}
    passes = len(text.tokens) * len(order)
    done = 0
    for window in text.tokens:
        for mode in order:
            report(done, passes)
            chosen = candidates[mode]
            said = chosen.model.logits(window, chosen.products)[:-1].log_softmax(-1)
            if mode == SOURCE:
                truth = said
            _add(sums[mode], said, truth, window[1:])
            done += 1
    report(done, passes)
    return Figures(
        text=origin(),
        sha256=text.sha256,
        tokens=sums[SOURCE].tokens,
        window=text.tokens.shape[1],
        modes={mode: found.quality() for mode, found in sums.items()},
    )


def _add(sums: _Sums, said: torch.Tensor, truth: torch.Tensor, wanted: torch.Tensor) -> None:
    """Add one window: log-probabilities [n, vocab], the same in float32, the tokens that came."""
    sums.surprise -= float(said.gather(1, wanted[:, None]).double().sum())
    sums.divergence += float((truth.exp() * (truth - said)).sum(-1).double().sum())
    sums.agreed += int((said.argmax(-1) == truth.argmax(-1)).sum())
    sums.tokens += len(wanted)
