"""The kernels a worker computes with are settled, then measured, and its receipts name them."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import ask, caller

from attestation.collect.tree import file_digests
from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.ops.library import FOLDER, library_path, supported
from enclave_worker.launcher_config import LauncherConfig
from enclave_worker.measured_root import measure_root
from wire.errors import ConfigError

HERE = supported()
built = pytest.mark.skipif(not HERE, reason="no C++ compiler, so nothing was built")


def measured(config: LauncherConfig, **engine: Any) -> tuple[dict[str, Any], str]:
    """The engine settings and the part `config` of what would be started."""
    root = measure_root(replace(config, engine=engine), None)
    return root.worker_config.engine, root.parts["config"]


@built
def test_the_measured_settings_name_the_library_that_auto_stands_for(
    launcher_config: LauncherConfig,
) -> None:
    auto, tag = measured(launcher_config)
    named, same = measured(launcher_config, kernels=f"native-{HERE[0]}")
    assert auto["kernels"] == named["kernels"] == f"native-{HERE[0]}"
    assert tag == same
    torchs, other = measured(launcher_config, kernels="reference")
    assert torchs["kernels"] == "reference"
    assert other != tag
    assert EngineConfig.from_dict(auto).dtype == "bfloat16"


def test_float32_is_settled_as_torchs(launcher_config: LauncherConfig) -> None:
    assert measured(launcher_config, dtype="float32")[0]["kernels"] == "reference"


def test_kernels_that_cannot_be_are_refused_before_anything_starts(
    launcher_config: LauncherConfig,
) -> None:
    with pytest.raises(ConfigError, match=r"found 'native', .* with dtype float32"):
        measured(launcher_config, dtype="float32", kernels="native")
    assert not list(launcher_config.state_dir.glob("root-*"))


@built
def test_the_libraries_are_measured_with_the_package() -> None:
    package = Path(FOLDER).parents[2]
    files = file_digests(package)
    for name in HERE:
        assert str(library_path(name).relative_to(package)) in files


@built
@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.xdist_group("worker")
@pytest.mark.parametrize("kernels", [f"native-{HERE[0]}" if HERE else "", "reference"])
async def test_a_confined_worker_computes_with_them_and_its_receipts_say_so(
    kernels: str, make_bed: Callable[..., Any]
) -> None:
    engine = {"dtype": "bfloat16", "kernels": kernels, "threads": 2, "kv_pages": 256}
    async with make_bed(engine=engine) as worker:
        body = caller(worker).chat("the quick brown fox", stream=True, temperature=0)
        who, sealed, answer = await ask(worker, body)
        reply = who.read(sealed, bytes(answer.data))
        claims = who.verify(sealed, body, reply, reply.text, worker.peer.log).claims
    assert claims["model"]["dtype"] == "bfloat16"
    _, _, named = claims["eng"]["version"].partition("+")
    assert named.partition(".")[0] == kernels
    if kernels.startswith("native-"):
        library = library_path(kernels.removeprefix("native-")).read_bytes()
        assert hashlib.sha256(library).hexdigest().startswith(named.partition(".")[2])
        assert len(named.partition(".")[2]) == 16
    assert claims["eng"]["det"] is kernels.startswith("native")
