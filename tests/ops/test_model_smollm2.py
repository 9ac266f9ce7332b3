"""The demo model with int8 weights: the quality that the documents promise."""

from pathlib import Path

import pytest
from simulators.models import smollm2_w8a8

from ops.model_cli import LOSS_MAX
from ops.model_figures import Figures
from ops.model_inspect import inspect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("smollm2-w8a8")]


@pytest.fixture(scope="module")
def folder() -> Path:
    return smollm2_w8a8()


@pytest.fixture(scope="module")
def figures(folder: Path) -> Figures:
    found = inspect(folder).manifest.figures
    assert found is not None
    return found


def test_perplexity_in_w8a8_is_within_one_percent_of_bfloat16(figures: Figures) -> None:
    assert figures.tokens >= 3072
    assert figures.loss("w8a8") <= LOSS_MAX


def test_perplexity_in_w8a16_is_within_half_a_percent_of_bfloat16(figures: Figures) -> None:
    assert figures.loss("w8a16") <= 0.005


def test_the_likeliest_token_is_float32s_nineteen_times_of_twenty(figures: Figures) -> None:
    assert figures.modes["w8a8"].agreement > 0.94
    assert figures.modes["w8a8"].divergence < 0.012


def test_int8_weights_take_little_more_than_half_of_bfloat16(folder: Path) -> None:
    found = inspect(folder)
    # The table of 49152 words stays in bfloat16: 57 of 163 MB.
    assert found.weight_bytes < 0.62 * 2 * found.parameters
    assert found.parameters == 134_515_008
