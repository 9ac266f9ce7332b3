"""What runs a step: the interface between the engine's loop and a model on its kernels."""

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from enclave_worker.engine.plan import StepPlan


@dataclass(frozen=True, slots=True)
class Logits:
    """The outcome of a step, a row for each of the plan's wanted rows.

    Attributes:
        best: int32 [n] likeliest token, the lowest id among equals.
        finite: bool [n] False where a row holds what is not a finite number.
        values: float32 [n, vocab], or None where only `best` was asked for.
    """

    best: npt.NDArray[np.int32]
    finite: npt.NDArray[np.bool_]
    values: torch.Tensor | None


class BackEnd(Protocol):
    """A model with its KV pages. Owned by the engine thread.

    Attributes:
        page_bytes: memory of one page over all layers.
    """

    page_bytes: int

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; keys and values of every row are stored in its sequence's pages.

        Args:
            plan: the step.
            whole: whether `Logits.values` are wanted.
        """

    def scrub(self, pages: Sequence_[int]) -> None:
        """Overwrite pages with zeros, in every layer."""

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""

    def describe(self) -> dict[str, str]:
        """What computes, for the attested record: dtype, kernels, digest of their library."""
