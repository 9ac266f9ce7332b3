"""Settings, keys and files: what is wrong is named, what is missing is created only when asked."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from simulators.deployment import Deployment

from gateway.config import RANGES, GatewayConfig, load_config, parse_config
from gateway.deny_list import load_deny_list, parse_deny_list
from gateway.main import anchors, initialise
from gateway.runtime import Gateway
from gateway.signing_keys import ensure_signing_key, load_signing_key
from gateway.spool import Spool, SpoolFullError, TooLargeError
from gateway.workers import bind_private
from tenancy.queue import Caps
from wire.errors import AnchorholdError, ConfigError
from wire.ids import b64u

MINIMAL = 'aud = "a"\nstate_dir = "state"\nadmission_policy_file = "policy.json"\n'


def test_a_minimal_configuration_takes_paths_from_its_own_folder() -> None:
    config = parse_config(MINIMAL, Path("/srv/gw"))
    assert config.state_dir == Path("/srv/gw/state")
    assert config.admission_policy_file == Path("/srv/gw/policy.json")
    assert config.path("log_file", "log.db") == Path("/srv/gw/state/log.db")
    assert config.origin == "a/log"
    assert config.host == "127.0.0.1"


def test_absolute_paths_stay_absolute() -> None:
    config = parse_config(MINIMAL + 'log_file = "/var/log.db"\n', Path("/srv/gw"))
    assert config.path("log_file", "log.db") == Path("/var/log.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aud = ", "not TOML"),
        (MINIMAL + "prot = 1\n", "unknown key prot"),
        ('aud = "a"\n', "missing key state_dir, admission_policy_file"),
        (MINIMAL + 'port = "8443"\n', "port: expected an integer, found str"),
        (MINIMAL + "port = true\n", "port: expected an integer, found bool"),
        (MINIMAL + "port = 70000\n", "port: expected 0 to 65535, found 70000"),
        (MINIMAL + "log_file = 3\n", "log_file: expected a path"),
        (MINIMAL + "idle_deadline_s = 0\n", "idle_deadline_s: expected"),
        (MINIMAL + 'telemetry_exporter = "x"\n', "telemetry_exporter: expected one of none"),
        (MINIMAL + 'telemetry_exporter = "file"\n', "telemetry_file: found none, expected a file"),
        (
            MINIMAL + 'telemetry_exporter = "otlp"\n',
            "telemetry_endpoint: found none, expected a URL",
        ),
        (MINIMAL + 'tls_key_file = "k"\n', "expected both or neither"),
        (MINIMAL + "directory_life_s = 100\n", "directory_refresh_s: found 180, expected less"),
        (MINIMAL.replace('"a"', '""'), "aud: found 0 characters, .*expected 1 to 128"),
        (MINIMAL + 'result_kid = ""\n', "result_kid: found '', expected 1 to 256"),
        (MINIMAL + f'result_kid = "{"k" * 257}"\n', "result_kid: found .*, expected 1 to 256"),
        (MINIMAL + 'result_kid = "a\\u0000b"\n', "result_kid: found .*, expected 1 to 256"),
        (MINIMAL + 'source_image = "x"\n', "source_image: found 'x', expected sha256: and 64"),
        (MINIMAL + f'source_image = "sha256:{"A" * 64}"\n', "source_image: found .*, expected"),
        (MINIMAL + 'source_commit = ""\n', "source_commit: found '', expected 1 to 128"),
        (MINIMAL + 'source_commit = "a\\nb"\n', "source_commit: found .*, expected 1 to 128"),
        *(
            (MINIMAL + f'source_url = "{url}"\n', "source_url: found .*, expected https:// and a")
            for url in (
                "",
                "x",
                "http://x",
                "https://",
                "https://x\\n",
                "https://a b/",
                "https://[",
                "https://me:secret@x/",
                "javascript:alert(1)",
                f"https://x/{'p' * 2048}",
            )
        ),
    ],
)
def test_a_wrong_configuration_names_found_and_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(text, Path())


def test_what_attestation_answers_state_is_taken_as_it_is() -> None:
    stated = {
        "result_kid": "k" * 256,
        "source_url": "https://git.example/us/worker",
        "source_commit": "0f" * 20,
        "source_image": f"sha256:{'0f' * 32}",
    }
    text = "".join(f'{name} = "{value}"\n' for name, value in stated.items())
    config = parse_config(MINIMAL + text, Path())
    assert {name: getattr(config, name) for name in stated} == stated


def test_an_unknown_key_shows_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(MINIMAL + "prot = 1\n", Path())
    assert "port" in refused.value.hint


def test_every_numeric_setting_has_a_range() -> None:
    numeric = {f.name for f in dataclasses.fields(GatewayConfig) if f.type in (int, float)}
    assert numeric == set(RANGES)


def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gateway\.toml: No such file"):
        load_config(tmp_path / "gateway.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(
        ConfigError, match=r"binary\.toml: found bytes that are no text, expected TOML"
    ):
        load_config(tmp_path / "binary.toml")
    (tmp_path / "words.toml").write_text("not settings")
    with pytest.raises(ConfigError, match="found text that is not TOML") as refused:
        load_config(tmp_path / "words.toml")
    assert "gateway.md" in refused.value.hint
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        load_config(tmp_path)


def test_initialising_creates_keys_once_and_says_what_policies_pin(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, tmp_path)
    first = initialise(config)
    assert initialise(config) == first == anchors(config)
    assert (tmp_path / "state" / "log.key").stat().st_mode & 0o777 == 0o600
    assert json.dumps(first)


def test_a_signing_key_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    ensure_signing_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        load_signing_key(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not an unencrypted PEM key"):
        load_signing_key(path)


def test_a_deny_list_reads_hashes_and_comments() -> None:
    text = f"# why\n\n{b64u(bytes(32))}  # stolen\n"
    assert parse_deny_list(text) == {bytes(32)}
    with pytest.raises(ConfigError, match="line 2"):
        parse_deny_list("\nnot-a-hash\n")
    with pytest.raises(ConfigError, match="cannot read"):
        load_deny_list(Path("/nonexistent/deny"))


@pytest.fixture
def deployment() -> Any:
    found = Deployment()
    yield found
    found.remove()


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("admission.json", "admission_policy_file: cannot read"),
        ("state/keys.json", "key table: cannot read .*keys.json"),
        ("state/keys.json.pepper", r"key table: cannot read .*keys\.json\.pepper"),
        ("state/log.key", "signing key: cannot read log.key"),
        ("state/directory.key", "signing key: cannot read directory.key"),
    ],
)
def test_a_missing_file_is_named_before_anything_starts(
    deployment: Deployment, remove: str, message: str
) -> None:
    (deployment.folder / remove).unlink()
    with pytest.raises(AnchorholdError, match=message):
        Gateway.open(deployment.config)


@pytest.mark.parametrize("name", ["there", "there/below"])
def test_a_file_where_the_cache_should_be_is_refused_before_anything_starts(
    deployment: Deployment, name: str
) -> None:
    """Every worker whose evidence needs a vendor's word would be refused, one by one."""
    (deployment.folder / "there").write_text("")
    config = dataclasses.replace(deployment.config, collateral_dir=deployment.folder / name)
    with pytest.raises(ConfigError, match=r"collateral_dir: .*expected a folder"):
        Gateway.open(config)


def test_a_policy_for_another_deployment_is_refused(deployment: Deployment) -> None:
    config = dataclasses.replace(deployment.config, aud="elsewhere")
    with pytest.raises(ConfigError, match="a policy for 'elsewhere' expected"):
        Gateway.open(config)


def test_a_worker_socket_is_private_and_replaces_a_dead_one(deployment: Deployment) -> None:
    path = deployment.folder / "w.sock"
    first = bind_private(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="another process listens"):
        bind_private(path)
    first.close()
    bind_private(path).close()


def test_a_worker_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        bind_private(tmp_path / ("x" * 120))


# ------------------------------------------------------------------ spool


def spool(folder: Path, **changes: Any) -> Spool:
    settings = {"memory_max": 100, "entry_max": 1000, "total_max": 1500, "caps": Caps(2, 1200, 3)}
    return Spool(folder, **{**settings, **changes})


async def test_a_spooled_entry_reads_back_what_was_written(tmp_path: Path) -> None:
    held = spool(tmp_path)
    entry = held.entry("t")
    await entry.write(b"a" * 60)
    assert not entry.on_disk
    await entry.write(b"b" * 60)
    assert entry.on_disk
    await entry.write(b"c" * 60)
    assert await entry.read() == b"a" * 60 + b"b" * 60 + b"c" * 60
    assert held.held == 180
    await entry.remove()
    await entry.remove()
    assert held.held == 0
    assert list(tmp_path.iterdir()) == []


async def test_the_spool_refuses_what_does_not_fit(tmp_path: Path) -> None:
    held = spool(tmp_path)
    first = held.entry("t")
    with pytest.raises(TooLargeError):
        await first.write(bytes(1001))
    await first.write(bytes(900))
    second = held.entry("t")
    with pytest.raises(SpoolFullError) as refused:
        await second.write(bytes(400))
    assert refused.value.tenant_cap
    with pytest.raises(SpoolFullError) as refused:
        held.entry("t")
    assert refused.value.tenant_cap
    other = held.entry("u")
    with pytest.raises(SpoolFullError) as refused:
        await other.write(bytes(700))
    assert not refused.value.tenant_cap
    with pytest.raises(SpoolFullError) as refused:
        held.entry("v")
    assert not refused.value.tenant_cap
    for entry in (first, second, other):
        await entry.remove()
    assert held.held == 0
    assert held.entry("t")


def test_files_left_by_an_earlier_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / "9-1.sealed").write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"keep")
    assert spool(tmp_path).open() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_spool_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="spool_dir"):
        spool(tmp_path / "file").open()


async def test_a_cancelled_write_leaves_no_file_behind(tmp_path: Path) -> None:
    held = spool(tmp_path, entry_max=50_000_000, total_max=50_000_000, caps=Caps(2, 50_000_000, 3))
    entry = held.entry("t")
    writing = asyncio.create_task(entry.write(bytes(40_000_000)))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await entry.remove()
    assert list(tmp_path.iterdir()) == []
    assert held.held == 0
