"""docs/operate/worker.md lists every setting, and no other."""

import dataclasses
import re
import tomllib
from pathlib import Path

from enclave_worker.engine.config import EngineConfig
from enclave_worker.launcher_config import LauncherConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs/operate/worker.md").read_text()


def names(heading: str) -> set[str]:
    table = PAGE.split(heading, 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_every_launcher_setting_is_documented_and_nothing_else() -> None:
    assert names("| key |") == {field.name for field in dataclasses.fields(LauncherConfig)}


def test_every_engine_setting_is_documented_with_its_default() -> None:
    fields = dataclasses.fields(EngineConfig)
    assert names("| engine key |") == {field.name for field in fields}
    for field in fields:
        row = re.search(rf"^\| `{field.name}` .*$", PAGE, re.MULTILINE)
        assert row is not None
        written = str(field.default)  # as TOML has it
        written = written.lower() if type(field.default) is bool else written
        assert row.group().endswith(f"| `{written}` |"), row.group()


def test_the_sample_is_toml_with_known_keys() -> None:
    sample = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    assert set(sample) <= names("| key |")
    assert set(sample["engine"]) <= names("| engine key |")
