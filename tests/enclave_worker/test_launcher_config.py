"""Settings of the launcher and the command line: each mistake is one sentence."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.collect import tpm_quote
from attestation.collect.probe import HARDWARE, PARAVISORS
from enclave_worker.attester import _GUESTS, make_attester
from enclave_worker.cli import EXIT_OK, register
from enclave_worker.launcher_config import TPM_AK, TPM_QUOTE, LauncherConfig, read_config
from enclave_worker.machine import make_machine
from enclave_worker.model_folder import check_model, model_digests
from wire.errors import ConfigError

TOML: dict[str, Any] = {
    "model_dir": "model",
    "model_name": "tiny",
    "aud": "tests",
    "gateway_socket": "worker.sock",
    "state_dir": "state",
    "service_policy": "policy.json",
}
OWN_TPM = {"trust": "vtpm", "attester": "tpm2-quote"}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "policy.json").write_bytes(b'{"v":1}')
    values = {key: value for key, value in (TOML | changes).items() if value is not None}
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} = {json.dumps(item)}" for name, item in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    path = folder / "worker.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return int(args.run(args))


def test_a_file_is_read_with_paths_relative_to_itself(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, engine={"threads": 2}, epoch_s=60, restart=False))
    assert config.model_dir == tmp_path / "model"
    assert config.gateway_socket == tmp_path / "worker.sock"
    assert config.service_policy == b'{"v":1}'
    assert config.engine == {"threads": 2}
    assert (config.epoch_s, config.restart, config.trust) == (60, False, "software")


def test_the_settings_of_a_machines_own_tpm_are_read(tmp_path: Path) -> None:
    named = {"tpm_ak": "0x81008F00", "tpm_ak_cert": "0x01c10002", "tpm_ak_chain": "links.pem"}
    config = read_config(write(tmp_path, **OWN_TPM, **named))
    assert (config.tpm_ak, config.tpm_ak_cert) == ("0x81008F00", "0x01c10002")
    assert config.tpm_ak_chain == tmp_path / "links.pem"
    assert read_config(write(tmp_path, **OWN_TPM, tpm_ak_cert="")).tpm_ak_cert == ""


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mystery": 1}, "unknown key 'mystery'"),
        ({"aud": None}, "key 'aud' is missing"),
        ({"aud": 5}, "aud: found an integer, expected text"),
        ({"epoch_s": True}, "epoch_s: found true or false, expected an integer"),
        ({"engine": "fast"}, "engine: found text, expected a table"),
        ({"trust": "magic"}, "found 'magic', expected software or simulated or vtpm or hardware"),
        ({"attester": "intel-tdx-quote"}, 'with trust software, expected trust = "hardware"'),
        ({"attester": 5, "trust": "hardware"}, "attester: found an integer, expected text"),
        (
            {"attester": "tpm2-quote", "trust": "hardware"},
            "found 'tpm2-quote' with trust hardware, expected trust = \"vtpm\"",
        ),
        ({"attester": "azure-vtpm-snp", "trust": "vtpm"}, 'expected trust = "hardware"'),
        ({"trust": "vtpm"}, "found 'auto' with trust vtpm, expected \"tpm2-quote\""),
        ({"trust": "hardware", "tpm_ak": "0x81008f00"}, 'expected attester = "tpm2-quote"'),
        ({**OWN_TPM, "tpm_ak": "0x80000001"}, "tpm_ak: found '0x80000001', expected a persistent"),
        ({**OWN_TPM, "tpm_ak": "-x"}, "tpm_ak: found '-x', expected a persistent handle"),
        (
            {**OWN_TPM, "tpm_ak_cert": "0x81000003"},
            "tpm_ak_cert: found '0x81000003', expected auto",
        ),
        ({**OWN_TPM, "gpus": "required"}, 'gpus: found "required" with trust vtpm'),
        ({"gpus": "some"}, "gpus: found 'some', expected none or required"),
        ({"gpus": 8}, "gpus: found an integer, expected text"),
        ({"gpus": "required"}, 'gpus: found "required" with trust software, expected trust ='),
        ({"wid": "w" * 65}, "wid: found .* of 65 characters, expected 1 to 64"),
        ({"model_name": "né"}, "model_name: found .*, expected 1 to 96 printable ASCII"),
        ({"service_policy": "nowhere.json"}, "nowhere.json: No such file"),
        ({"gateway_socket": "s" * 200}, "gateway_socket: found .* bytes"),
    ],
)
def test_each_wrong_key_is_named_with_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        read_config(write(tmp_path, **changes))


def test_every_kind_that_hardware_is_probed_for_has_its_guest() -> None:
    assert set(_GUESTS) == set(HARDWARE)
    assert (TPM_QUOTE, TPM_AK) == (tpm_quote.KIND, tpm_quote.AK)
    for kind in PARAVISORS:
        guest = _GUESTS[kind]()
        assert guest.kind == kind
        guest.close()


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("= =")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, said in (
        ("nowhere.toml", "cannot read .*nowhere.toml: No such file"),
        ("", "cannot read .*: Is a directory"),
        ("broken.toml", "broken.toml: found text that is not TOML"),
        ("binary.toml", "binary.toml: found bytes that are no text, expected TOML settings"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            read_config(tmp_path / name)
        assert "worker.md" in refused.value.hint
        assert "Errno" not in refused.value.message


def test_a_folder_that_is_no_model_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no model")
    with pytest.raises(ConfigError, match=r"found readme.txt, expected config.json.*safetensors"):
        check_model(tmp_path)
    with pytest.raises(ConfigError, match="found a file"):
        check_model(tmp_path / "readme.txt")


def test_model_digests_name_weights_tokenizer_and_template(model_dir: Path, tmp_path: Path) -> None:
    tree = "sha256:" + "0" * 64
    digests = model_digests(model_dir, tree)
    assert digests["tree"] == tree
    assert set(digests) == {"tree", "weights", "tokenizer", "template"}
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (bare / name).write_bytes((model_dir / name).read_bytes())
    other = model_digests(bare, tree)
    assert "template" not in other
    assert other["weights"] == digests["weights"]


def test_the_command_line_prints_what_a_policy_must_name(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, model_dir=str(model_dir))
    assert main(["worker", "--config", str(path), "--measure"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "measurement  sha256:" in shown
    assert "/sys/kernel/config/tsm/report: " in shown
    assert "/dev/nvidiactl: " in shown
    assert "first_party  sha256:" in shown
    assert not list((tmp_path / "state").glob("root-*"))


def test_the_command_line_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, model_dir="absent")
    with pytest.raises(ConfigError, match="found nothing at") as refused:
        main(["worker", "--config", str(path)])
    assert "anchorhold model import" in refused.value.hint


def test_wrong_engine_settings_are_refused_before_anything_is_measured(
    launcher_config: LauncherConfig,
) -> None:
    from enclave_worker.launch import Launcher

    launcher = Launcher(replace(launcher_config, engine={"warp": 9}))
    with pytest.raises(ConfigError, match="unknown key 'warp'"):
        launcher.start()
    assert not launcher_config.state_dir.exists()


def test_gpus_that_are_demanded_and_cannot_be_looked_at_are_an_error(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, trust="hardware", gpus="required"))
    with pytest.raises(ConfigError, match="GPU evidence: found no module pynvml") as caught:
        make_machine(config)
    assert "nvidia-ml-py" in caught.value.hint


@pytest.mark.parametrize("attester", [None, "intel-tdx-quote", "amd-sev-snp-report"])
def test_hardware_that_is_not_here_is_an_error_with_findings_and_never_something_weaker(
    tmp_path: Path, attester: str | None
) -> None:
    config = read_config(write(tmp_path, trust="hardware", attester=attester))
    with pytest.raises(ConfigError, match="attester: expected") as caught:
        make_attester(config)
    assert "/sys/kernel/config/tsm/report: no provider" in caught.value.message
    assert "/dev/nsm: " in caught.value.message
    assert caught.value.hint


def test_what_is_no_hardware_is_no_attester(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, trust="hardware", attester="software"))
    with pytest.raises(ConfigError, match="attester: found 'software', expected auto, intel-tdx"):
        make_attester(config)
