"""Whatever stands where the gateway reads a file at its start: a sentence, and no time lost."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment
from simulators.odd_files import NESTED_TOML, NO_FILES, OTHERS

from gateway.config import load_config
from gateway.runtime import Gateway
from gateway.server import running
from wire.errors import AnchorholdError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINIMAL = b'aud = "a"\nstate_dir = "state"\nadmission_policy_file = "policy.json"\n'
# Where in the deployment's folder, and the setting that may have to name it.
FILES = {
    "admission.json": None,
    "deny.txt": None,
    "state/keys.json": None,
    "state/keys.json.pepper": None,
    "state/log.key": None,
    "state/directory.key": None,
    "state/result.key": None,
    "state/log.db": None,
    "state/policy.seen": None,
    "state/spool": None,
    "state/worker.sock": None,
    "anchor": "log_anchor_file",
    "services.toml": "collateral_services_file",
    "ca.pem": None,
}


THINGS = NO_FILES | OTHERS | {"nested TOML": NESTED_TOML}


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment()
    (found.folder / "services.toml").write_text(f'ca_file = "{found.folder}/ca.pem"\n')
    yield found
    found.remove()


def start(deployment: Deployment) -> None:
    """The gateway's whole start."""

    async def once() -> None:
        async with running(deployment.config):
            pass

    asyncio.run(once())


# A folder is what these are; a pipe or a device in the way is as much in use as another's socket.
MADE = {("state/spool", "a folder")}


@pytest.mark.parametrize(
    ("name", "thing"),
    [(name, thing) for name in FILES for thing in THINGS if (name, thing) not in MADE],
)
def test_a_file_of_the_gateway_that_is_something_else_is_said(
    deployment: Deployment, name: str, thing: str
) -> None:
    path = deployment.folder / name
    setting = FILES[name] or ("collateral_services_file" if name == "ca.pem" else None)
    if setting is not None:
        named = deployment.folder / "services.toml" if name == "ca.pem" else path
        deployment.config = dataclasses.replace(deployment.config, **{setting: named})
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    THINGS[thing](path)
    with pytest.raises(AnchorholdError) as refused:
        start(deployment)
    assert len(refused.value.message) < 600


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", ["tls_cert_file", "tls_key_file"])
def test_a_file_of_tls_that_is_none_is_said(deployment: Deployment, name: str, thing: str) -> None:
    files: dict[str, Any] = {}
    for each in ("tls_cert_file", "tls_key_file"):
        files[each] = deployment.folder / each
        files[each].write_text("-----BEGIN CERTIFICATE-----\n")
    files[name].unlink()
    THINGS[thing](files[name])
    deployment.config = dataclasses.replace(deployment.config, **files)
    with pytest.raises(ConfigError, match=r"tls_cert_file|tls_key_file"):
        start(deployment)


@pytest.mark.parametrize("thing", THINGS)
def test_a_configuration_that_is_none_is_said(tmp_path: Path, thing: str) -> None:
    THINGS[thing](tmp_path / "gateway.toml")
    with pytest.raises(ConfigError, match=r"configuration.*found|cannot read") as refused:
        load_config(tmp_path / "gateway.toml")
    assert "gateway.md" in refused.value.hint
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"reappraise_s = " + b"9" * 4000, "reappraise_s: "),
        (b"port = " + b"9" * 4000, "port: expected 0 to 65535, found a number of more than 64"),
        (b"reappraise_s = nan", "reappraise_s: expected"),
        (b"reappraise_s = inf", "reappraise_s: expected"),
        (b'"k\\n" = 1', r"unknown key k\?"),
        (b'deny_file = "a\\u0000b"', r"deny_file: found 'a\?b', expected a path in printable"),
        (b'deny_file = "a\\nb"', r"deny_file: found 'a\?b', expected a path in printable"),
        (b'deny_file = "~no_such_user/x"', "deny_file: found '~no_such_user/x', expected a path"),
        (b'telemetry_exporter = "\\u001b[2J"', r"found '\?\[2J'"),
        (b'policy_key = "' + b"x" * 4000 + b'"', "policy_key: found 'x{48}…'"),
        (b"a" + b".a" * 30_000 + b" = 1", "found a line of 60005 characters"),
        (b"spool_dir = []", "spool_dir: expected a path"),
    ],
)
def test_a_setting_that_is_none_is_said(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / "gateway.toml").write_bytes(MINIMAL + line + b"\n")
    with pytest.raises(ConfigError, match=said) as refused:
        load_config(tmp_path / "gateway.toml")
    assert len(refused.value.message) < 400
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("aud", ["a\nb", "a\x1b", ""])
def test_an_audience_is_printable(tmp_path: Path, aud: str) -> None:
    text = MINIMAL.decode().replace('"a"', '"' + aud.encode("unicode_escape").decode() + '"')
    text = text.replace("\\x1b", "\\u001b")
    (tmp_path / "gateway.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"aud: found .*expected 1 to 128 printable ASCII"):
        load_config(tmp_path / "gateway.toml")


@pytest.mark.parametrize("host", ["a\0b", "x" * 300, "a b", "no.such.host.invalid", "-"])
def test_a_host_that_is_none_of_this_machine_is_said(deployment: Deployment, host: str) -> None:
    deployment.config = dataclasses.replace(deployment.config, host=host)
    with pytest.raises(ConfigError, match="host"):
        start(deployment)


@pytest.mark.parametrize("thing", ["a pipe", "a device", "a folder", "a circle"])
def test_a_file_of_telemetry_that_is_none_is_said(deployment: Deployment, thing: str) -> None:
    path = deployment.folder / "spans"
    THINGS[thing](path)
    deployment.config = dataclasses.replace(
        deployment.config, telemetry_exporter="file", telemetry_file=path
    )
    with pytest.raises(ConfigError, match=r"telemetry_file: .*spans"):
        Gateway.open(deployment.config)
