"""What a model computes and sampling chooses from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


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
