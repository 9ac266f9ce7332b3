"""The one quantised form that is read: compressed-tensors W8A8, as vLLM reads it too.

Weights are int8 with one scale an output channel, activations int8 with one scale a token, made
while running. Smoothing is folded into the weights, so nothing else is stored.
"""

from collections.abc import Mapping
from typing import Any

from enclave_worker.engine.errors import ModelConfigError

#: What an import writes as config.json's quantization_config.
W8A8: Mapping[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "channel",
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}
# How the scales were found, and by which version: nothing that running them depends on.
_HARMLESS = ("version", "observer", "observer_kwargs", "global_compression_ratio")


def is_quantised(found: Any) -> bool:
    """Whether config.json's quantization_config asks for W8A8; raises ModelConfigError if else."""
    if found is not None:
        _compare(found, W8A8, "config.json quantization_config")
    return found is not None


def _compare(found: Any, expected: Any, where: str) -> None:
    """Refuse what differs, by name. Absent and null are the same."""
    if not isinstance(expected, Mapping) or not isinstance(found, Mapping):
        if found != expected or type(found) is not type(expected):
            shown = expected if not isinstance(expected, Mapping) else "{}"
            raise ModelConfigError(f"{where}: found {found!r}, expected {shown!r}")
        return
    for key in sorted({*found, *expected} - set(_HARMLESS)):
        _compare(found.get(key), expected.get(key), f"{where} {key}")
