"""What a model's products read while it reads text: the statistics smoothing and rounding go by."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from enclave_worker.engine.models.config import ModelConfig

from .model_forward import FLOAT32, Forward, Site, Tensors, float_products


@dataclass(frozen=True, slots=True)
class Activations:
    """What one site read.

    Attributes:
        peak: float32 [in], largest magnitude of each channel.
        rows: bfloat16 [n, in], all of them: 400 MB for a model of 135 million parameters and
            2048 tokens, growing with the width, not with its square as second moments would.
    """

    peak: torch.Tensor
    rows: torch.Tensor


def calibrate(
    config: ModelConfig,
    tensors: Tensors,
    windows: torch.Tensor,
    report: Callable[[int, int], None],
) -> dict[Site, Activations]:
    """Run the model in float32 over text and watch every site.

    Args:
        config: the model's shape.
        tensors: its weights.
        windows: int64 [windows, length] of tokens.
        report: hears how many windows of how many are done.
    """
    seen: dict[Site, Activations] = {}
    count = len(windows)
    inner = float_products(tensors, torch.float32)

    def watched(site: Site, x: torch.Tensor) -> list[torch.Tensor]:
        found = Activations(x.abs().amax(0), x.bfloat16())
        if site in seen:
            old = seen[site]
            found = Activations(
                torch.maximum(old.peak, found.peak), torch.cat((old.rows, found.rows))
            )
        seen[site] = found
        return inner(site, x)

    model = Forward(config, tensors, FLOAT32)
    for index, window in enumerate(windows):
        report(index, count)
        model.hidden(window, watched)
    report(count, count)
    return seen
