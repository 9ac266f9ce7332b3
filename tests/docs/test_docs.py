"""What the documents say is run: snippets compile, named things exist, commands parse."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
COLUMNS = 80  # of a terminal nobody has widened
RE_BLOCK = re.DOTALL | re.MULTILINE
PACKAGES = "wire|attestation|evidence|tenancy|enclave_worker|gateway|client|anchorhold|ops"


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_snippets_compile(path: Path) -> None:
    for number, snippet in enumerate(fenced(path.read_text(), "python")):
        compile(snippet, f"{path.name}#{number}", "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_named_in_documents_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in fenced(path.read_text(), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert words[1] in targets, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_typed_into_a_terminal_fits_its_width(path: Path) -> None:
    readme = path == ROOT / "README.md"
    blocks = [block for name in ("sh", "toml") for block in fenced(path.read_text(), name)]
    # The first page is read in terminals too: there, everything in a block fits.
    blocks += re.findall(r"^```\w*\n(.*?)^```", path.read_text(), RE_BLOCK) if readme else []
    wide = [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS]
    assert not wide


def anchorhold_lines() -> list[str]:
    found = []
    for path in DOCUMENTS:
        for block in fenced(path.read_text(), "sh"):
            joined = block.replace("\\\n", " ")
            found += [ln.strip() for ln in joined.splitlines() if ln.startswith("anchorhold ")]
    return found


def test_anchorhold_commands_in_documents_parse() -> None:
    from ops.cli import build_parser

    parser = build_parser()
    lines = anchorhold_lines()
    assert lines, "the README shows at least one command"
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if "--help" not in words and "-h" not in words:
            parser.parse_args(words)


def resolve(dotted: str) -> object:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name)
        return value
    raise AssertionError(dotted)


def test_every_function_the_tour_names_exists() -> None:
    text = (ROOT / "docs/tour.md").read_text()
    names = re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)(?:\(\))?`", text)
    assert len(names) >= 20
    for name in names:
        resolve(name)


def test_files_named_in_documents_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(
            r"`((?:tests|docs|bench|scripts|examples|sdk)/[\w./-]+)`", path.read_text()
        ):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_readme_python_names_come_from_the_facade() -> None:
    facade = importlib.import_module("anchorhold")
    for snippet in fenced((ROOT / "README.md").read_text(), "python"):
        for names in re.findall(r"^from anchorhold import (.+)$", snippet, re.MULTILINE):
            for name in names.split(","):
                assert hasattr(facade, name.strip())
