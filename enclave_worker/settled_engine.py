"""The engine's settings as a worker is measured with them: what computes, in which numbers.

Made by the launcher, which reads the model's config.json and computes nothing; held by the worker
against the model it has.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .engine.config import EngineConfig
from .engine.errors import KernelError
from .engine.models.folder import is_encoder, read_json
from .engine.ops.library import settle

# An encoder is small, and its vectors are compared with each other for years: full numbers, torch.
ENCODER: Mapping[str, str] = {
    "back_end": "anchorhold",
    "dtype": "float32",
    "kernels": "reference",
    "device": "cpu",
}
# Asked in a process of its own: the launcher stays for the worker's life, without torch.
_ASK = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 9)"


def settled_engine(chosen: Mapping[str, Any], model_dir: Path) -> EngineConfig:
    """Name what a choice leaves open.

    Args:
        chosen: EngineConfig members; what is absent is the model's choice, then the default.
        model_dir: the model folder.

    Raises:
        KernelError: nothing here can compute what was chosen, or not with this model.
        ModelError: config.json cannot be read.
    """
    if not is_encoder(read_json(model_dir / "config.json")):
        settled = settle(EngineConfig.from_dict(dict(chosen)))
        ask = [sys.executable, "-c", _ASK]
        if settled.device == "cuda" and subprocess.run(ask, check=False).returncode:
            raise KernelError(
                "engine device: found no CUDA device that torch sees here, expected one; "
                'set device = "cpu", or install torch for this GPU and its driver'
            )
        return settled
    config = EngineConfig.from_dict({"dtype": ENCODER["dtype"], **chosen})
    if config.kernels == "auto":
        config = replace(config, kernels="reference")
    check_encoder(config)
    return config


def check_encoder(config: EngineConfig) -> None:
    """Refuse settings that an encoder does not run with (KernelError)."""
    for name, expected in ENCODER.items():
        found = getattr(config, name)
        if found != expected:
            raise KernelError(
                f"engine {name}: found {found!r}, expected {expected!r}: the model is an encoder"
            )
