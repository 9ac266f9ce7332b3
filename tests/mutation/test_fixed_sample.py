"""The fixed sample of faults that runs with the tests, as `make mutation` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)  # 25 seconds on a machine that does nothing else
def test_nine_of_ten_faults_of_a_fixed_sample_are_noticed() -> None:
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "mutation", "--short"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all: 80 mutants" in result.stdout
