"""A gateway that is started with a policy whose hour has not come says so, and keeps nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment, Fleet, now

from client import cli
from gateway.runtime import Gateway
from ops.cli import build_parser
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment()
    yield found
    found.remove()


def put(deployment: Deployment, **changes: Any) -> None:
    document = {**deployment.tee.demands, **changes}
    deployment.config.admission_policy_file.write_text(json.dumps(document))


def later() -> dict[str, int]:
    return {"not_before": now() + 3600, "expires": now() + 7200, "seq": 2}


def test_the_command_ends_with_a_sentence_a_hint_and_the_code_of_a_configuration(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    put(deployment, **later())
    path = deployment.folder / "gateway.toml"
    members = {
        "aud": deployment.config.aud,
        "state_dir": "state",
        "admission_policy_file": "admission.json",
        "port": 0,
    }
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items()))
    assert cli.execute(build_parser("gateway"), ["gateway", "--config", str(path)]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(
        r"anchorhold: admission_policy_file: a policy that is in force expected, found one whose"
        r" not_before is 3[56]\d\d s from now hint: keep the present one in place until then",
        " ".join(said.err.split()),
    )


def test_it_leaves_the_present_policy_usable(deployment: Deployment) -> None:
    """Remembered, its number would keep the one before it out."""
    Gateway.open(deployment.config).ledger.log.close()
    put(deployment, **later())
    with pytest.raises(ConfigError, match="in force expected"):
        Gateway.open(deployment.config)
    put(deployment)
    Gateway.open(deployment.config).ledger.log.close()


async def test_it_is_in_force_from_its_first_second(deployment: Deployment) -> None:
    put(deployment, not_before=now())
    async with deployment.up() as up:
        fleet = Fleet(deployment)
        (worker,) = await fleet.admit("a")
        assert up.gateway.registry.knows(worker.kid)
        await worker.drop()
