"""The SDK hook: every shipped package lives under one name, and nothing else is needed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
GENERIC = {"wire", "client", "attestation", "evidence", "tenancy", "gateway", "ops"}
HEAVY = {"torch", "fastapi", "apsw", "opentelemetry"}


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sdk_hook", ROOT / "sdk" / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def home(hook: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The re-homed tree, as the wheel holds it."""
    folder = tmp_path_factory.mktemp("sdk")
    for place, text in hook.tree(ROOT).items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from wire.ids import b64u\n", "from anchorhold.wire.ids import b64u\n"),
        ("from wire import problems\n", "from anchorhold.wire import problems\n"),
        (
            "if x:\n    from client.api import A\n",
            "if x:\n    from anchorhold.client.api import A\n",
        ),
        (
            "from wire.ids import (\n    b64u,\n)\n",
            "from anchorhold.wire.ids import (\n    b64u,\n)\n",
        ),
        ("from .ids import b64u\n", "from .ids import b64u\n"),
        ("from wireless import x\n", "from wireless import x\n"),
        ('"""from wire.ids import x"""\n', '"""from wire.ids import x"""\n'),
    ],
)
def test_only_imports_of_shipped_packages_get_the_prefix(
    hook: ModuleType, before: str, after: str
) -> None:
    assert hook.rehomed(before, "x.py") == after


def test_a_plain_import_of_a_shipped_package_stops_the_build(hook: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"x\.py:1"):
        hook.rehomed("import wire.ids\n", "x.py")


def test_every_shipped_module_imports_and_brings_no_generic_name(home: Path) -> None:
    script = (
        "import importlib, pkgutil, sys\n"
        f"sys.path.insert(0, {str(home)!r})\n"
        "import anchorhold\n"
        "names = [m.name for m in pkgutil.walk_packages(anchorhold.__path__, 'anchorhold.')]\n"
        "[importlib.import_module(n) for n in names if n != 'anchorhold.client.proxy']\n"
        "print(len(names))\n"
        f"bad = {{m.split('.')[0] for m in sys.modules}} & {GENERIC | HEAVY!r}\n"
        "sys.exit(f'found {bad}' if bad else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=home
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_the_server_side_is_left_out(home: Path) -> None:
    shipped = {path.relative_to(home).as_posix() for path in home.rglob("*.py")}
    assert "anchorhold/__init__.py" in shipped
    assert "anchorhold/client/api.py" in shipped
    assert not [name for name in shipped if "collect" in name or "sequencer" in name]
    assert not [
        name for name in shipped if name.startswith(("anchorhold/gateway", "anchorhold/ops"))
    ]


def test_the_sdk_and_the_server_agree_on_versions_and_light_dependencies() -> None:
    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sdk["version"] == server["version"]
    assert sdk["dependencies"] == server["dependencies"]
    proxy = server["optional-dependencies"]["proxy"]
    assert sdk["optional-dependencies"]["proxy"] == proxy
    facade = (ROOT / "anchorhold" / "__init__.py").read_text()
    assert f'__version__ = "{sdk["version"]}"' in facade
