"""Rotary position embedding (Su et al., 2021) and the ways it is stretched to longer contexts.

Sources: Hugging Face `modeling_rope_utils`; for "yarn", Peng et al., 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from enclave_worker.engine.errors import ModelConfigError

from .config_reader import ConfigReader

if TYPE_CHECKING:  # a launcher reads folders and computes nothing
    import torch

_NAMES = ("rope_type", "type", "rope_theta")
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_YARN = ("factor", "original_max_position_embeddings")
_KNOWN = {"default": (), "linear": ("factor",), "llama3": _LLAMA3, "yarn": _YARN}
_HARMLESS: dict[str, tuple[Any, ...]] = {"partial_rotary_factor": (1.0, 1, None)}
# The ends of yarn's passage between waves left alone and waves stretched, in turns over the
# original context.
_YARN_FAST, _YARN_SLOW = 32.0, 1.0


@dataclass(frozen=True, slots=True)
class Rope:
    """Base frequency and how it is stretched.

    `factor` divides every frequency in kind "linear"; in the kinds "llama3" and "yarn" it divides
    the long waves, with a passage from those left alone. "yarn" also sharpens attention.
    """

    theta: float
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


def read_rope(config: ConfigReader) -> Rope:
    """Read rope_theta + rope_scaling (v4 spelling) or rope_parameters (v5 spelling)."""
    theta = config.positive("rope_theta", 10_000.0)
    key = "rope_scaling" if config.raw.get("rope_parameters") is None else "rope_parameters"
    raw = config.raw.get(key)
    if raw is None:
        return Rope(theta)
    if not isinstance(raw, dict):
        raise ModelConfigError(f"config.json {key}: found {type(raw).__name__}, expected {{}}")
    table = ConfigReader({k: v for k, v in raw.items() if v is not None}, f"config.json {key}")
    theta = table.positive("rope_theta", theta)
    kind: Any = table.word("type" if "rope_type" not in table.raw else "rope_type", *_KNOWN)
    table.only((*_NAMES, *_KNOWN[kind]), _HARMLESS)
    if kind == "default":
        return Rope(theta)
    factor = table.positive("factor")
    if kind == "linear":
        return Rope(theta, kind, factor)
    original = table.count("original_max_position_embeddings")
    if kind == "yarn":
        return Rope(theta, kind, factor, original_context=original)
    low, high = table.positive("low_freq_factor"), table.positive("high_freq_factor")
    if high <= low:
        raise table.refuse("high_freq_factor", f"more than {low}")
    return Rope(theta, kind, factor, low, high, original)


def rope_tables(rope: Rope, head_dim: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines by position, float32 [length, head_dim / 2]."""
    import torch

    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequency = 1.0 / rope.theta**exponent
    gain = 1.0
    if rope.kind == "linear":
        frequency = frequency / rope.factor
    elif rope.kind == "llama3":
        frequency = _llama3(frequency, rope)
    elif rope.kind == "yarn":
        frequency = _yarn(frequency, rope, head_dim)
        gain = 0.1 * math.log(max(rope.factor, 1.0)) + 1.0
    angle = torch.arange(length).float()[:, None] * frequency
    return angle.cos() * gain, angle.sin() * gain


def _llama3(frequency: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Stretch the long waves by `factor`, leave the short ones, blend by turns in between."""
    turns = rope.original_context * frequency / (2 * math.pi)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return frequency * (smooth + (1 - smooth) / rope.factor)


def _yarn(frequency: torch.Tensor, rope: Rope, head_dim: int) -> torch.Tensor:
    """Stretch the long waves by `factor`, leave the short ones, blend by index in between."""
    import torch

    def index(turns: float) -> float:
        wave = rope.original_context / (turns * 2 * math.pi)
        return head_dim * math.log(wave) / (2 * math.log(rope.theta))

    low = max(math.floor(index(_YARN_FAST)), 0)
    high = min(math.ceil(index(_YARN_SLOW)), head_dim - 1)
    ramp = (torch.arange(head_dim // 2).float() - low) / max(high - low, 0.001)
    ramp = ramp.clamp(0, 1)
    return frequency / rope.factor * ramp + frequency * (1 - ramp)
