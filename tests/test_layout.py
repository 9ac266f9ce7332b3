"""The house's own rules: where packages live, what may be loaded, how large a room may grow."""

import importlib
import importlib.metadata
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "wire",
    "attestation",
    "evidence",
    "tenancy",
    "enclave_worker",
    "gateway",
    "client",
    "anchorhold",
    "ops",
)
HEAVY = ("torch", "faiss", "fastapi", "starlette", "uvicorn", "opentelemetry", "numpy", "apsw")
NAMELESS = {"utils.py", "util.py", "helpers.py", "common.py", "base.py", "misc.py", "settings.py"}


def modules() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


@pytest.mark.parametrize("name", PACKAGES)
def test_each_first_party_package_is_the_one_of_this_tree(name: str) -> None:
    # Names such as `attestation` exist on package indexes too: ours must win, visibly.
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


def test_no_requirement_is_called_like_one_of_our_packages() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    names = {pin.split("==")[0].lower().replace("-", "_") for pin in pins if pin}
    assert not names & set(PACKAGES)


def test_constraints_pin_exact_versions_without_local_tags() -> None:
    for pin in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin), pin


def test_every_package_says_what_it_must_never_do() -> None:
    for name in PACKAGES:
        doc = importlib.import_module(name).__doc__ or ""
        assert len(doc) > 120, f"{name}/__init__.py: one paragraph says what it is"
        assert "never" in doc.lower(), f"{name}/__init__.py must say what it never does"


def test_modules_stay_small_and_are_named_for_a_noun() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in modules()}
    too_long = {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 400}
    assert not too_long, too_long
    assert statistics.median(n for n in sizes.values() if n > 3) <= 150
    assert not [p for p in sizes if p.name in NAMELESS]


def test_importing_the_sdk_facade_loads_no_heavy_library() -> None:
    code = f"import sys, anchorhold; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_server_distribution_is_never_uploaded() -> None:
    meta = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Private :: Do Not Upload" in meta["project"]["classifiers"]


def test_the_project_speaks_of_itself_alone() -> None:
    # No path of a machine, no registry host: what is committed must read the same everywhere.
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    banned = re.compile(
        r"/(?:work|root)/(?!\*)|"
        + "|".join(["pypi" + r"\.org", "python" + r"hosted", "npm" + r"js\.org"])
    )
    hits = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".sh", ""}:
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if banned.search(line) and path != Path(__file__).resolve():
                    hits.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not hits, hits
