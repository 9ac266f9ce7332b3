"""Which engines a run of the engine bench measures, and where their files are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine_arm import Arm

if TYPE_CHECKING:
    import argparse

PEERS = ("vllm", "openvino", "llamacpp", "llamacpp-bench", "transformers")


def say(*words: object) -> None:
    """Progress, beside the tables."""
    print(*words, file=sys.stderr, flush=True)


def arms(args: argparse.Namespace) -> list[Arm]:
    """Ours, then every installed peer that was asked for."""
    ours = Path(sys.executable)
    found = [
        Arm(
            "anchorhold",
            mode,
            ours,
            "anchorhold_driver.py",
            args.model if mode == "bfloat16" else args.model_w8a8,
        )
        for mode in args.modes.split(",")
        if mode
    ]
    home = args.peers
    if home is None:
        return found
    models = home / "models"
    build = home / "llamacpp/build/bin"

    def peer(engine: str, precision: str, venv: str, model: Path, binary: str = "") -> Arm:
        python = home / venv / "bin/python" if venv else ours
        driver = f"{engine.split('-')[0]}_driver.py"
        return Arm(engine, precision, python, driver, model, str(build / binary) if binary else "")

    peers = [
        peer("vllm", "bfloat16", "vllm", args.model),
        peer("vllm", "w8a8", "vllm", args.model_w8a8),
        peer("openvino", "bfloat16", "openvino", models / "openvino-bfloat16"),
        peer("openvino", "int8", "openvino", models / "openvino-int8"),
        peer("llamacpp", "bfloat16", "", models / "bf16.gguf", "llama-server"),
        peer("llamacpp", "q8_0", "", models / "q8_0.gguf", "llama-server"),
        peer("llamacpp-bench", "bfloat16", "", models / "bf16.gguf", "llama-batched-bench"),
        peer("llamacpp-bench", "q8_0", "", models / "q8_0.gguf", "llama-batched-bench"),
        peer("transformers", "bfloat16", "transformers", args.model),
    ]
    wanted = args.engines.split(",")
    for arm in peers:
        files = [arm.python, arm.model, *([Path(arm.binary)] if arm.binary else [])]
        missing = [path for path in files if not path.exists()]
        if arm.engine == "llamacpp-bench" and args.clock == "cpu":
            continue  # it takes its own times
        if arm.engine in wanted and missing:
            say(f"left out: {arm.name}: found no {missing[0]}; scripts/install-peers makes it")
        elif arm.engine in wanted:
            found.append(arm)
    return found
