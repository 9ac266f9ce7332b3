"""SmoothQuant (Xiao et al., 2022): outliers of activations moved into the weights, offline.

A channel of a product's input is divided by s and the weight's column multiplied by it. The
division is folded into what made the channel: the norm before it, or the rows of the projection
before it (`v_proj` for the attention's output, `up_proj` for the feed-forward's). The function
stays what it was; only the rounding that follows loses less.
"""

import torch

from enclave_worker.engine.models.config import ModelConfig

from .model_calibration import Activations
from .model_forward import KINDS, Site, prefix
from .model_integers import product, round_nearest

# Strengths tried for a site: how much of the difficulty moves from activations to weights. The
# best one differs by kind of product and by layer.
STRENGTHS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Strengths are ranked by every so-many-th row that a site read.
_ROW_STEP = 8
# Channels nearly silent in the calibration text are not scaled up without bound.
_QUIET = 1e-5
_NORMS = {"qkv": "input_layernorm", "gate_up": "post_attention_layernorm"}
_MAKERS = {"output": "self_attn.v_proj", "down": "mlp.up_proj"}


def smooth(
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    layer: int,
    seen: dict[Site, Activations],
    strength: float | None,
) -> None:
    """Fold a smoothing into one layer's weights, and into what its sites read, in place.

    Args:
        config: the model's shape.
        tensors: float32 weights of the layer by name.
        layer: which.
        seen: what each site reads; the layer's entries become what they read from now on.
        strength: 0 (none) to 1 (all of it into the weights); None searches one for each site.
    """
    # What folds into rows goes first: it changes the weights the other sites are searched with.
    for kind in sorted(KINDS, key=lambda kind: kind in _NORMS):
        site = Site(layer, kind)
        read = seen[site]
        stack = torch.cat([tensors[f"{name}.weight"] for name in site.names])
        scale = _search(config, site, stack, read, strength)
        scale = _fold(config, tensors, site, scale)
        for name in site.names:
            tensors[f"{name}.weight"] = tensors[f"{name}.weight"] * scale
        seen[site] = Activations(read.peak / scale, (read.rows / scale).bfloat16())


def _search(
    config: ModelConfig, site: Site, stack: torch.Tensor, read: Activations, strength: float | None
) -> torch.Tensor:
    """Return the scale [in] of the given strength, or of the one whose product loses least."""
    if strength is not None:
        return _scale(config, site, stack, read, strength)
    rows = read.rows[::_ROW_STEP].float()
    exact = rows @ stack.t()
    best, least = torch.ones_like(read.peak), torch.inf
    for tried in STRENGTHS:
        scale = _scale(config, site, stack, read, tried)
        found = product(rows / scale, round_nearest(stack * scale), "w8a8")
        error = float((found - exact).square_().mean())
        if error < least:
            best, least = scale, error
    return best


def _scale(
    config: ModelConfig, site: Site, stack: torch.Tensor, read: Activations, strength: float
) -> torch.Tensor:
    """Return s of the paper's equation 4, its geometric mean 1; shared where channels share."""
    if strength == 0:
        return torch.ones_like(read.peak)
    peak, weight = read.peak, stack.abs().amax(0)
    if site.kind == "output":  # heads that share a value head share its rows
        peak, weight = _shared(config, peak), _shared(config, weight)
    if not (peak.any() and weight.any()):  # a product that is nothing, whatever it reads
        return torch.ones_like(peak)
    peak, weight = (part.clamp_min(_QUIET * float(part.max())) for part in (peak, weight))
    scale = peak.pow(strength) / weight.pow(1 - strength)
    return scale / scale.log().mean().exp()


def _shared(config: ModelConfig, values: torch.Tensor) -> torch.Tensor:
    """Largest of each channel over the heads of a group, for every head: [in] -> [in]."""
    groups = values.view(config.kv_heads, -1, config.head_dim)
    return groups.amax(1, keepdim=True).expand_as(groups).reshape(-1)


def _fold(
    config: ModelConfig, tensors: dict[str, torch.Tensor], site: Site, scale: torch.Tensor
) -> torch.Tensor:
    """Divide what makes the site's input by `scale`; return the scale as it came out."""
    at = prefix(site.layer)
    if site.kind in _NORMS:
        name = f"{at}{_NORMS[site.kind]}.weight"
        norm = tensors[name]
        # Stored in bfloat16: rounded here, so that the weights make up for the rounding too.
        tensors[name] = (norm / scale).bfloat16().float()
        return torch.where(tensors[name] != 0, norm / tensors[name], 1.0)
    name, rows = f"{at}{_MAKERS[site.kind]}", scale
    if site.kind == "output":
        rows = scale.view(config.kv_heads, -1, config.head_dim)[:, 0].reshape(-1)
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"] / rows[:, None]
    if f"{name}.bias" in tensors:
        tensors[f"{name}.bias"] = tensors[f"{name}.bias"] / rows
    return scale
