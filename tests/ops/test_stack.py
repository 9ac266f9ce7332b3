"""What the one-machine deployment gives its launchers; tests/e2e runs the whole of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ops.deployment import Deployment
from ops.stack import Stack, StackConfig

if TYPE_CHECKING:
    from pathlib import Path

    from enclave_worker.launcher_config import Trust


@pytest.mark.parametrize("trust", ["software", "simulated"])
def test_all_workers_of_a_deployment_share_one_trust_anchor(tmp_path: Path, trust: Trust) -> None:
    deployment = Deployment(tmp_path, "stack.test", "key", b"{}")
    config = StackConfig(
        deployment=deployment, model_dir=tmp_path, model_name="m", trust=trust, workers=2
    )
    settings = [launcher.config for launcher in Stack(config).launchers.values()]
    roots = {one.software_root for one in settings}, {one.tpm_ca for one in settings}
    shared, unused = roots if trust == "software" else roots[::-1]
    assert len(shared) == 1
    assert None not in shared
    assert unused == {None}
    assert len({one.state_dir for one in settings}) == len(settings)
