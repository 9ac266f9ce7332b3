"""The worker's import list is kept: what joins it is seen in a change, not found out later."""

import json
from pathlib import Path

import pytest

from client.cli import execute
from ops.cli import build_parser
from ops.inventory import Inventory, code_lines, plain, take_inventory

GOLDEN = Path(__file__).resolve().parents[2] / "docs" / "operate" / "inventory.txt"
RENEW = (
    "found another import list than docs/operate/inventory.txt has. Where that is meant, renew it: "
    "`python -m ops.inventory > docs/operate/inventory.txt`, and say in the change why it grew"
)


@pytest.fixture(scope="module")
def found() -> Inventory:
    return take_inventory()


def test_what_a_worker_can_import_is_what_is_written_down(found: Inventory) -> None:
    assert found.names() == GOLDEN.read_text().splitlines(), RENEW


def test_every_first_party_file_is_counted_once_and_in_an_area(found: Inventory) -> None:
    files = [name for area in found.areas for name in area.modules]
    assert len(files) == len(set(files))
    assert {"wire/records.py", "enclave_worker/engine/ops/native/step.cpp"} <= set(files)
    for area in found.areas:
        assert 0 < area.code <= area.lines


def test_names_of_builds_do_not_reach_the_list() -> None:
    assert plain("torch/_C.cpython-311-x86_64-linux-gnu.so") == "torch/_C.so"
    assert plain("cryptography/hazmat/bindings/_rust.abi3.so").endswith("_rust.so")
    assert plain("torch/lib/libgomp-a34b3233.so.1") == "torch/lib/libgomp.so.1"
    assert plain("numpy.libs/libopenblas64_p-r0-0cf96a72.3.23.dev.so").count("0cf96a72") == 0


def test_blank_lines_comments_and_docstrings_are_not_code(tmp_path: Path) -> None:
    python = tmp_path / "one.py"
    python.write_text(
        '"""Doc\n\nstring."""\n\n# why\nX = """a\n\nb"""\n\n\ndef f():\n    """D."""\n'
    )
    assert code_lines(python) == 4  # the three lines of the text are a value, and the def
    native = tmp_path / "one.cpp"
    native.write_text("// why\n/* long\n why */\nint x; // here\n\nint y;\n")
    assert code_lines(native) == 2


def test_the_command_prints_the_same_for_people_and_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert execute(build_parser("worker"), ["worker", "inventory", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert execute(build_parser("worker"), ["worker", "inventory"]) == 0
    text = capsys.readouterr().out
    for name, version in document["distributions"].items():
        assert f"  {name} {version}\n" in text
    for area in document["first_party"]:
        assert area["area"] in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_worker_without_settings_is_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert execute(build_parser("worker"), ["worker"]) == 4
    said = capsys.readouterr().err
    assert "--config" in said
    assert "hint: docs/operate/worker.md" in said.replace("\n", " ")
