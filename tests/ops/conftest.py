"""Models to import, and one that was."""

from pathlib import Path

import pytest
from simulators.gguf_files import write_gguf
from simulators.models import tiny_llama

from ops.model_import import import_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "tiny-model")


@pytest.fixture
def gguf_file(folder: Path, tmp_path: Path) -> Path:
    return write_gguf(folder, tmp_path / "tiny.F32.gguf")


@pytest.fixture
def imported(folder: Path, tmp_path: Path) -> Path:
    import_model(str(folder), tmp_path / "out")
    return tmp_path / "out"
