"""Re-homes the shipped packages of the checkout under `anchorhold/` and rewrites their imports.

In the checkout a package is where its import says (`from wire.framing import …`); published under
those generic names it would collide with other people's. So `wire/framing.py` becomes
`anchorhold/wire/framing.py`, and every absolute import of a shipped package gets the prefix. Only
the console script's first module lies beside it, under a name nobody else has.
"""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "anchorhold"
SHIPPED = ("client", "wire", "attestation", "evidence")
# What only a worker or a log's owner runs: not part of what a tenant installs.
LEFT_OUT = ("attestation/collect", "evidence/sequencer.py", "evidence/store_sqlite.py",
            "evidence/recovery.py", "evidence/anchor.py")  # fmt: skip
# Beside the package, whose import takes a while: what must run before it.
BESIDE = {"client/start.py": "anchorhold_start.py"}


class Rehome(BuildHookInterface[Any]):
    """The build hook; hatch finds it by its base class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the re-homed tree and hand its files to hatch, in a fixed order."""
        del version
        self._folder = tempfile.TemporaryDirectory()
        for place, text in tree(Path(self.root).parent).items():
            target = Path(self._folder.name) / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            build_data["force_include"][str(target)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the tree."""
        self._folder.cleanup()


def tree(checkout: Path) -> dict[str, str]:
    """Every file of the wheel: its place and its text."""
    found = {f"{NAME}/py.typed": ""}
    for package in (NAME, *SHIPPED):
        for source in sorted((checkout / package).rglob("*.py")):
            inside = source.relative_to(checkout).as_posix()
            if not inside.startswith(LEFT_OUT):
                place = inside if package == NAME else BESIDE.get(inside, f"{NAME}/{inside}")
                found[place] = rehomed(source.read_text(encoding="utf-8"), inside)
    return found


def rehomed(source: str, name: str) -> str:
    """The source with the prefix on imports of shipped packages; `import wire` is refused."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import) and any(
            a.name.split(".")[0] in SHIPPED for a in node.names
        ):
            raise SystemExit(f"{name}:{node.lineno}: `from package import name` expected")
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            package, at = node.module.split(".")[0], node.lineno - 1
            if package in SHIPPED:
                head, tail = lines[at][: node.col_offset], lines[at][node.col_offset :]
                lines[at] = head + tail.replace("from ", f"from {NAME}.", 1)
    return "".join(lines)
