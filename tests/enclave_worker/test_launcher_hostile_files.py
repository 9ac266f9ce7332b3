"""Whatever stands where the launcher reads a file: a sentence, and no time lost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from simulators.odd_files import NESTED_TOML, NO_FILES, OTHERS, content

from enclave_worker.attester import make_attester
from enclave_worker.launcher_config import read_config
from enclave_worker.model_folder import check_model, model_digests
from enclave_worker.spawn import spawn
from wire.errors import AnchorholdError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TOML = """\
model_dir = "model"
model_name = "tiny"
aud = "tests"
gateway_socket = "worker.sock"
state_dir = "state"
service_policy = "policy.json"
"""


THINGS = NO_FILES | OTHERS | {"an array": content(b"[]")}
NO_TOML = {
    "nested TOML": NESTED_TOML,
    "a key of many parts": content(b"a" + b".a" * 30_000 + b" = 1"),
    "a zero byte": content(b'a = "\0"'),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "worker.toml").write_text(TOML)
    (tmp_path / "policy.json").write_bytes(b'{"v":1}')
    return tmp_path


@pytest.mark.parametrize("thing", THINGS | NO_TOML)
def test_a_configuration_that_is_none_is_said(tmp_path: Path, thing: str) -> None:
    (THINGS | NO_TOML)[thing](tmp_path / "worker.toml")
    with pytest.raises(ConfigError, match=r"worker configuration.*found|cannot read") as refused:
        read_config(tmp_path / "worker.toml")
    assert "worker.md" in refused.value.hint
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epoch_s = " + "9" * 4000, "epoch_s: found a number of more than 64 bits"),
        ("slots = 99999999999999999999", "slots: found a number of more than 64 bits"),
        ('"k\\n" = 1', r"unknown key 'k\?'"),
        ('log = "a\\u0000b"', r"log: found 'a\?b', expected a path in printable characters"),
        ('tpm_ca = "a\\nb"', r"tpm_ca: found 'a\?b', expected a path in printable characters"),
        ('software_root = ""', "software_root: found '', expected a path"),
        ('trust = "' + "x" * 4000 + '"', "trust: found 'x{48}…', expected software or"),
    ],
)
def test_a_setting_that_is_none_is_said(place: Path, line: str, said: str) -> None:
    (place / "worker.toml").write_text(f"{TOML}{line}\n")
    with pytest.raises(ConfigError, match=said) as refused:
        read_config(place / "worker.toml")
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("thing", NO_FILES)
def test_a_service_policy_that_is_no_file_is_said(place: Path, thing: str) -> None:
    (place / "policy.json").unlink()
    NO_FILES[thing](place / "policy.json")
    with pytest.raises(ConfigError, match="service_policy: cannot read"):
        read_config(place / "worker.toml")


@pytest.mark.parametrize("thing", THINGS)
def test_a_software_root_that_is_none_is_said(place: Path, thing: str) -> None:
    (place / "state").mkdir()
    THINGS[thing](place / "state" / "software-root.pem")
    with pytest.raises(ConfigError, match=r"software-root\.pem: .*expected an Ed25519 private key"):
        make_attester(read_config(place / "worker.toml"))


@pytest.mark.parametrize("thing", [thing for thing in THINGS if thing != "a folder"])
def test_a_state_folder_that_is_none_is_said(place: Path, thing: str) -> None:
    (place / "worker.toml").write_text(TOML.replace('"state"', '"x"'))
    config = read_config(place / "worker.toml")
    THINGS[thing](place / "x")
    with pytest.raises(ConfigError, match=r"cannot use .*x"):
        make_attester(config)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("thing", ["a pipe", "a device", "a folder", "a circle"])
def test_a_model_whose_files_are_none_is_said(
    tmp_path: Path, model_dir: Path, name: str, thing: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    (copy / name).unlink()
    NO_FILES[thing](copy / name)
    with pytest.raises(ConfigError):
        _digests(copy)


def _digests(folder: Path) -> None:
    check_model(folder)
    model_digests(folder, "sha256:" + "0" * 64)


# A folder of that name is refused where the tokenizer is read, and a GiB of nothing is hashed like
# any other file of a model.
@pytest.mark.parametrize(
    "thing", [thing for thing in THINGS if thing not in {"a folder", "a GiB of nothing"}]
)
def test_a_tokenizers_settings_that_are_none_are_said(
    tmp_path: Path, model_dir: Path, thing: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    THINGS[thing](copy / "tokenizer_config.json")
    with pytest.raises(ConfigError):
        model_digests(copy, "sha256:" + "0" * 64)


@pytest.mark.parametrize("thing", ["a pipe", "a folder", "a circle"])
def test_a_log_that_cannot_be_written_is_said(tmp_path: Path, thing: str) -> None:
    NO_FILES[thing](tmp_path / "log")
    with pytest.raises(AnchorholdError, match="log: cannot write"):
        spawn(["true"], 1, tmp_path / "log")
