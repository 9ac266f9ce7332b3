"""Quality figures as a manifest keeps them, and as people read them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import ConfigError

#: The mode that quantised ones are compared with, for nobody serves float32.
BASE = "bfloat16"


@dataclass(frozen=True, slots=True)
class Quality:
    """One mode.

    Attributes:
        perplexity: of the text, e to the mean surprise in nats.
        divergence: mean Kullback-Leibler divergence from float32's distribution, nats a token.
        agreement: part of the tokens for which the likeliest next one is float32's.
    """

    perplexity: float
    divergence: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, and on what.

    Attributes:
        text: where it is from.
        sha256: of the text, in hex.
        tokens: foretold.
        window: tokens of a window; nothing before it is known.
        modes: quality by mode.
    """

    text: str
    sha256: str
    tokens: int
    window: int
    modes: Mapping[str, Quality]

    def loss(self, mode: str) -> float:
        """By what part a mode's perplexity is above bfloat16's; below 0 where it is better."""
        return self.modes[mode].perplexity / self.modes[BASE].perplexity - 1

    def table(self) -> Iterator[str]:
        """Lines for people."""
        yield f"quality on {self.tokens} tokens of {self.text}, windows of {self.window}"
        yield f"  {'mode':10} {'perplexity':>10} {'to bf16':>8} {'KL to f32':>10} {'top-1':>7}"
        for mode in sorted(self.modes, key=lambda mode: (mode != "float32", mode)):
            found = self.modes[mode]
            loss = f"{self.loss(mode):+8.2%}" if mode != BASE else f"{'':8}"
            yield (
                f"  {mode:10} {found.perplexity:10.3f} {loss} "
                f"{found.divergence:10.5f} {found.agreement:7.1%}"
            )


def read_figures(document: Mapping[str, Any]) -> Figures:
    """Read a manifest's figures; raises ConfigError naming what is wrong with them."""
    _members(document, "figures", {"text": str, "sha256": str, "tokens": int, "window": int})
    modes = document["modes"]
    if type(modes) is not dict or BASE not in modes:
        raise ConfigError(f"model manifest figures modes: expected {BASE!r} and others")
    for mode, found in modes.items():
        names = {"perplexity": float, "divergence": float, "agreement": float}
        _members(found, f"figures {mode}", names, others=())
    qualities = {mode: Quality(**found) for mode, found in modes.items()}
    return Figures(**{**document, "modes": qualities})


def _members(
    document: Any, where: str, kinds: Mapping[str, type], others: tuple[str, ...] = ("modes",)
) -> None:
    """Refuse an object that has not exactly these members, of these kinds."""
    if type(document) is not dict or set(document) != {*kinds, *others}:
        raise ConfigError(f"model manifest {where}: expected members {sorted({*kinds, *others})}")
    for name, kind in kinds.items():
        value = document[name]
        if kind is float:
            fits = type(value) in (int, float) and math.isfinite(value)
        else:
            fits = type(value) is kind
        if not fits or (kind is not str and value < 0):
            raise ConfigError(f"model manifest {where} {name}: expected {kind.__name__}")
