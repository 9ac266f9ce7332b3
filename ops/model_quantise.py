"""Float weights of a decoder become int8: calibrate, smooth, round, measure.

The result is what vLLM reads too (compressed-tensors, W8A8): int8 `X.weight` with a float32
`X.weight_scale` for every product of a layer, everything else in bfloat16. Smoothing is folded into
the weights, so no name is new to a reader but the scales.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from enclave_worker.engine.models.config import ModelConfig
from enclave_worker.engine.tokenizer import Tokenizer
from wire.errors import ConfigError

from .model_calibration import Activations, calibrate
from .model_figures import Figures
from .model_forward import (
    BFLOAT16,
    FLOAT32,
    INT8,
    KINDS,
    Forward,
    Site,
    float_products,
    prefix,
    sites,
)
from .model_integers import Int8Weight, integer_products, round_together
from .model_manifest import Quantisation
from .model_quality import Candidate, measure
from .model_smoothing import smooth
from .model_text import calibration_text, excerpt, held_out_text
from .progress import Report

#: The one form there is; what it is called wherever it is asked for or shown.
W8A8 = "w8a8"
# Text read: 2048 tokens to calibrate with, 3577 foretold for the figures.
CALIBRATION_WINDOWS = 4
FIGURE_WINDOWS = 7
WINDOW = 512


@dataclass(frozen=True, slots=True)
class Quantised:
    """What an import writes.

    Attributes:
        tensors: by name, as stored.
        quantisation: how they were made.
        figures: what that cost.
    """

    tensors: dict[str, torch.Tensor]
    quantisation: Quantisation
    figures: Figures


def quantise(
    config: ModelConfig,
    tokenizer: Tokenizer,
    tensors: dict[str, torch.Tensor],
    strength: float | None,
    report: Report,
) -> Quantised:
    """Quantise a decoder.

    Args:
        config: its shape.
        tokenizer: its tokenizer.
        tensors: its weights, all in a float format.
        strength: of the smoothing, 0 to 1; None searches one for each product.
        report: hears of progress.

    Raises:
        ConfigError: the weights are not finite floats, or there is no text to read.
    """
    _check(tensors, config)
    length = min(WINDOW, config.max_positions)
    text = excerpt(calibration_text(), tokenizer, CALIBRATION_WINDOWS, length)
    held_out = excerpt(held_out_text(), tokenizer, FIGURE_WINDOWS, length)
    with torch.inference_mode():
        seen = calibrate(config, tensors, text.tokens, _stage("calibrating", report))
        weights: dict[str, Int8Weight] = {}
        stored = {name: tensor.bfloat16() for name, tensor in tensors.items() if _outer(name)}
        for layer in range(config.layers):
            report("smoothing and rounding", layer, config.layers)
            stored |= _layer(config, tensors, layer, seen, strength, weights)
        report("smoothing and rounding", config.layers, config.layers)
        whole = Forward(config, stored, INT8)
        candidates = {
            "float32": Candidate(
                Forward(config, tensors, FLOAT32), float_products(tensors, torch.float32)
            ),
            "bfloat16": Candidate(
                Forward(config, tensors, BFLOAT16), float_products(tensors, torch.bfloat16)
            ),
            "w8a8": Candidate(whole, integer_products(weights, "w8a8")),
            "w8a16": Candidate(whole, integer_products(weights, "w8a16")),
        }
        figures = measure(candidates, held_out, _stage("measuring quality", report))
    for name, weight in weights.items():
        stored[f"{name}.weight"], stored[f"{name}.weight_scale"] = weight.codes, weight.scale
    made = Quantisation(W8A8, strength, text.tokens.numel(), text.sha256)
    return Quantised(stored, made, figures)


def _layer(
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    layer: int,
    seen: dict[Site, Activations],
    strength: float | None,
    weights: dict[str, Int8Weight],
) -> dict[str, torch.Tensor]:
    """Quantise one layer into `weights`; return its other tensors as stored."""
    at = prefix(layer)
    own = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(at)}
    smooth(config, own, layer, seen, strength)
    for kind in KINDS:
        site = Site(layer, kind)
        parts = [own.pop(f"{name}.weight") for name in site.names]
        rounded = round_together(torch.cat(parts), seen.pop(site).rows)
        sizes = [len(part) for part in parts]
        codes, scales = torch.split(rounded.codes, sizes), torch.split(rounded.scale, sizes)
        for name, code, scale in zip(site.names, codes, scales, strict=True):
            bias = own.get(f"{name}.bias")
            kept = None if bias is None else bias.bfloat16().float()
            weights[name] = Int8Weight(code.clone(), scale.clone(), kept)
    return {name: tensor.bfloat16() for name, tensor in own.items()}


def _check(tensors: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """Refuse what cannot be rounded to int8 in earnest."""
    expected = {f"{name}.weight" for site in sites(config) for name in site.names}
    missing = sorted(expected - set(tensors))
    if missing:
        raise ConfigError(f"model weights: found no tensor {missing[0]!r}, expected one")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ConfigError(
                f"model weights {name}: found {str(tensor.dtype).removeprefix('torch.')} numbers, "
                "expected floats: what is rounded twice loses twice",
                hint="quantise from the original, or import this one without --quantise",
            )
        if not tensor.isfinite().all():
            raise ConfigError(
                f"model weights {name}: found numbers that are not finite, expected finite ones",
                hint="fetch the model again: it is damaged, or it was saved after training broke",
            )


def _outer(name: str) -> bool:
    """Whether a tensor belongs to no layer."""
    return not name.startswith("model.layers.")


def _stage(name: str, report: Report) -> Callable[[int, int], None]:
    def heard(done: int, total: int) -> None:
        report(name, done, total)

    return heard
