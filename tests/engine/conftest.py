"""Models for the engine's tests, made once a session."""

from pathlib import Path

import pytest
from simulators.llamas import random_llama
from transformers import PreTrainedModel


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """A random Llama (grouped-query attention, tied head) and transformers' view of it."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, random_llama(folder)
