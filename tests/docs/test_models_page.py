"""docs/operate/models.md names every mode and shows the figures that an import of today prints."""

import re
from pathlib import Path
from typing import get_args

import pytest
from simulators.models import smollm2_w8a8

from enclave_worker.engine.config import DType
from enclave_worker.engine.models.config import ARCHITECTURES
from enclave_worker.engine.models.encoder_config import ARCHITECTURE as ENCODER
from enclave_worker.engine.models.pooling import MODULES, SETTINGS, TEXTS
from ops.model_inspect import inspect
from ops.model_manifest import SCHEMA
from ops.model_source import KNOWN

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operate/models.md").read_text()
RECORD = (ROOT / "docs/adr/0017-int8-models.md").read_text()
FIGURES = re.compile(r"^  (\w+) +([\d.]+) +(?:[+-][\d.]+% +)?([\d.]+) +([\d.]+)%$", re.MULTILINE)


def test_every_mode_of_the_worker_has_a_row_and_no_other() -> None:
    table = PAGE.split("| mode |", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(DType))


def test_every_architecture_and_known_name_stands_on_the_page() -> None:
    for name in (*ARCHITECTURES, ENCODER, *KNOWN):
        assert f"`{name}`" in PAGE
    assert f"`{SCHEMA}`" in PAGE
    for file in (MODULES, SETTINGS, TEXTS):
        assert f"| `{file}` |" in PAGE


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("smollm2-w8a8")
def test_the_figures_shown_are_those_that_are_measured() -> None:
    figures = inspect(smollm2_w8a8()).manifest.figures
    assert figures is not None
    shown = {row[0]: [float(cell) for cell in row[1:]] for row in FIGURES.findall(PAGE)}
    assert set(shown) == set(figures.modes)
    for mode, (perplexity, divergence, agreement) in shown.items():
        found = figures.modes[mode]
        # Another machine adds up in another order, and another Python has another text.
        assert perplexity == pytest.approx(found.perplexity, rel=0.01)
        assert divergence == pytest.approx(found.divergence, abs=0.001)
        assert agreement == pytest.approx(100 * found.agreement, abs=1.0)
        row = re.search(rf"^ *\| {mode} \| ([\d.]+) \|", RECORD, re.MULTILINE)
        assert row is not None
        assert float(row[1]) == perplexity
