"""What a worker will compute with is settled from the choice and the model, then measured."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.encoders import add_pooling, random_bert
from simulators.models import tiny_llama

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.embedder import Embedder
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import KernelError
from enclave_worker.launcher_config import LauncherConfig
from enclave_worker.measured_root import measure_root
from enclave_worker.served_model import served_model
from enclave_worker.settled_engine import settled_engine
from wire.errors import ConfigError

ENCODERS = EngineConfig(dtype="float32", kernels="reference")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "model"
    folder.mkdir()
    random_bert(folder)
    add_pooling(folder)
    return folder


@pytest.mark.parametrize(
    "chosen", [{}, {"dtype": "float32"}, {"kernels": "reference"}, {"kernels": "auto"}]
)
def test_an_encoder_is_measured_with_float32_on_torch_whatever_was_left_open(
    chosen: dict[str, Any], bert: Path, launcher_config: LauncherConfig
) -> None:
    root = measure_root(replace(launcher_config, model_dir=bert, engine=chosen), None)
    assert root.worker_config.engine == {"dtype": "float32", "kernels": "reference"}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"dtype": "bfloat16"}, "dtype: found 'bfloat16', expected 'float32'"),
        ({"dtype": "w8a16"}, "dtype: found 'w8a16', expected 'float32'"),
        ({"kernels": "native"}, "kernels: found 'native', expected 'reference'"),
        ({"kernels": "native-generic"}, "kernels: found 'native-generic', expected 'reference'"),
        ({"back_end": "vllm"}, "back_end: found 'vllm', expected 'anchorhold'"),
    ],
)
def test_other_settings_of_an_encoder_are_refused_before_anything_starts(
    chosen: dict[str, Any], words: str, bert: Path, launcher_config: LauncherConfig
) -> None:
    with pytest.raises(ConfigError, match=f"{words}: the model is an encoder"):
        measure_root(replace(launcher_config, model_dir=bert, engine=chosen), None)
    assert not list(launcher_config.state_dir.glob("root-*"))
    # The worker looks for itself: what it is told is the launcher's word.
    with pytest.raises(KernelError, match=words):
        served_model(bert, EngineConfig.from_dict({"dtype": "float32", **chosen}))


def test_a_decoders_numbers_stay_the_default_or_what_was_chosen(model_dir: Path) -> None:
    assert settled_engine({"kernels": "reference"}, model_dir).dtype == "bfloat16"
    settled = settled_engine({"dtype": "float32"}, model_dir)
    assert (settled.dtype, settled.kernels) == ("float32", "reference")


def test_the_folder_says_what_its_worker_makes(bert: Path, tmp_path: Path) -> None:
    assert isinstance(served_model(bert, ENCODERS), Embedder)
    llama = tiny_llama(tmp_path / "llama", vocab=384)
    assert isinstance(served_model(llama, EngineConfig()), Engine)
    add_pooling(llama, word_embedding_dimension=32)
    described = served_model(llama, EngineConfig(max_len=100))
    assert isinstance(described, Embedder)
    with pytest.raises(KernelError, match="back_end: found 'vllm', expected 'anchorhold'"):
        served_model(llama, EngineConfig(back_end="vllm"))


def test_a_config_that_is_no_json_is_the_launchers_error(
    bert: Path, launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (copy / name).write_bytes((bert / name).read_bytes())
    (copy / "config.json").write_text(json.dumps([]))
    with pytest.raises(ConfigError, match=r"config\.json: found list, expected \{\}"):
        measure_root(replace(launcher_config, model_dir=copy), None)


def test_the_launcher_reads_model_folders_and_loads_no_torch() -> None:
    """It stays for the worker's whole life beside it, and torch is half a gigabyte."""
    code = "import sys, enclave_worker.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
