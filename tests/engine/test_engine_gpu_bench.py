"""The GPU bench runs, in its dry form, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parents[2] / "bench/gpu.py"


@pytest.mark.slow
def test_the_dry_run_measures_everything_and_agrees_with_transformers(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    command = [sys.executable, BENCH, "--dry", "--json", out]
    subprocess.run(command, check=True, capture_output=True, timeout=55)
    run = json.loads(out.read_text())
    assert run["setup"]["device"] == "cpu"
    (shape,) = run["shapes"]
    assert shape["parity"] < 1e-3
    assert shape["prefill"] > 0
    for streams in ("streams_1", "streams_3"):
        found = shape[streams]
        assert set(found) == {"decode", "of_roofline", "whole", "transformers", "ratio"}
        assert all(value > 0 for value in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    result = subprocess.run([sys.executable, BENCH], capture_output=True, text=True, timeout=55)
    assert result.returncode == 2
    assert "found no CUDA device that torch sees" in result.stderr
