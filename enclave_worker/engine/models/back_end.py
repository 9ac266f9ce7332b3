"""What runs a step: the interface between the engine's loop and a model on its kernels."""

from collections.abc import Mapping
from collections.abc import Sequence as Sequence_
from typing import Protocol

import torch

from enclave_worker.engine.logits import Logits as Logits
from enclave_worker.engine.plan import StepPlan

from .adapters import Adapter


class BackEnd(Protocol):
    """A model with its KV pages. Owned by the engine thread.

    Attributes:
        page_bytes: memory of one page over all layers.
    """

    page_bytes: int

    def adapt(self, adapters: Mapping[str, Adapter]) -> None:
        """Take the adapters that chunks may name; those of before are forgotten."""

    def forward(self, plan: StepPlan, *, whole: bool) -> Logits:
        """Compute one step; keys and values of every row are stored in its sequence's pages.

        Args:
            plan: the step.
            whole: whether `Logits.values` are wanted.
        """

    def hidden(self, plan: StepPlan) -> torch.Tensor:
        """Compute one step up to the last norm: float32 [wanted, hidden], for embeddings."""

    def scrub(self, pages: Sequence_[int]) -> None:
        """Overwrite pages with zeros, in every layer."""

    def is_clean(self, page: int) -> bool:
        """Whether a page holds nothing but zeros."""

    def describe(self) -> dict[str, str]:
        """What computes, for the attested record: dtype, kernels, digest of their library."""
