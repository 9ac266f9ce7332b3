"""The SDK hook: every shipped package lives under one name, and nothing else is needed."""

from __future__ import annotations

import importlib.util
import shutil
import signal
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
    assert {name for name in shipped if not name.startswith("anchorhold/")} == {
        "anchorhold_start.py"
    }
    assert not [name for name in shipped if "collect" in name or "sequencer" in name]
    assert not [
        name for name in shipped if name.startswith(("anchorhold/gateway", "anchorhold/ops"))
    ]


def script_of(home: Path) -> str:
    """What an installer makes of the wheel's console script."""
    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    module, function = sdk["scripts"]["anchorhold"].split(":")
    return (
        f"import sys\nsys.path.insert(0, {str(home)!r})\nfrom {module} import {function}\n"
        f"sys.argv[0] = 'anchorhold'\nsys.exit({function}())\n"
    )


def test_the_console_script_runs_the_package(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", script_of(home), "--help"],
        capture_output=True, text=True, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "anchorhold verify" in done.stdout


KILL = "os.kill(os.getpid(), 2)\n"


def interrupted(
    home: Path, tmp_path: Path, module: str, line: str, hit: str, before: str = ""
) -> tuple[int, str]:
    """Status and last words of `--help` where an interrupt comes at one line of a module."""
    shutil.copytree(home, tmp_path / "sdk")
    source = (tmp_path / "sdk" / module).read_text()
    assert line in source
    (tmp_path / "sdk" / module).write_text(source.replace(line, hit, 1))
    done = subprocess.run(
        [sys.executable, "-P", "-c", before + script_of(tmp_path / "sdk"), "--help"],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["anchorhold/__init__.py", "anchorhold/client/cli.py"])
def test_an_interrupt_while_the_package_loads_leaves_no_trace(
    home: Path, tmp_path: Path, module: str
) -> None:
    """The program ends as one without Python would."""
    line = "from __future__ import annotations\n"
    hit = f"{line}import os\n{KILL}"
    assert interrupted(home, tmp_path, module, line, hit) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("", (130, "anchorhold: interrupted\n")),
        # So does a shell with what a script puts in the background.
        ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n", (0, "")),
    ],
)
def test_a_command_hears_an_interrupt_unless_it_was_started_deaf(
    home: Path, tmp_path: Path, before: str, found: tuple[int, str]
) -> None:
    line = "    args = _parsed(parser, _joined(sys.argv[1:] if argv is None else argv))\n"
    hit = f"    {KILL}{line}"
    assert interrupted(home, tmp_path, "anchorhold/client/cli.py", line, hit, before) == found


def test_the_sdk_and_the_server_agree_on_versions_and_light_dependencies() -> None:
    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sdk["version"] == server["version"]
    assert sdk["dependencies"] == server["dependencies"]
    proxy = server["optional-dependencies"]["proxy"]
    assert sdk["optional-dependencies"]["proxy"] == proxy
    facade = (ROOT / "anchorhold" / "__init__.py").read_text()
    assert f'__version__ = "{sdk["version"]}"' in facade
