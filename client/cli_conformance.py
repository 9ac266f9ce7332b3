"""`anchorhold conformance wire FILE`: run published vectors through this implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.canonical import parse_strict
from wire.conformance import run_vectors
from wire.errors import ConfigError, MalformedError

from . import cli_conformance_attestation
from .cli_options import add_command, add_json
from .cli_terminal import say
from .files import read_file
from .report import EXIT_INVALID, EXIT_OK

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold conformance wire vectors.json
anchorhold conformance wire vectors.json --json
anchorhold conformance attestation index.json"""
FILE_MAX = 256 * 1024 * 1024  # vectors are hex, and long streams make long files
DEPTH_MAX = 16


def register(commands: Any) -> None:
    """Add the command."""
    text = "run published test vectors"
    conformance = add_command(commands, "conformance", text, EXAMPLES)
    kinds = conformance.add_subparsers(dest="kind", required=True, metavar="KIND")
    text = "run wire format vectors (schema anchorhold-wire-vectors/1)"
    parser = add_command(kinds, "wire", text, EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="vector file")
    add_json(parser)
    parser.set_defaults(run=run)
    cli_conformance_attestation.register(kinds)


def run(args: argparse.Namespace) -> int:
    """0 every case passed, 2 at least one did not, 4 not such a file."""
    raw = read_file(args.file, FILE_MAX, "vector")
    try:
        results = run_vectors(parse_strict(raw, max_depth=DEPTH_MAX, max_bytes=FILE_MAX))
    except MalformedError as error:
        raise ConfigError(
            f"vector file {args.file}: {error.message}", hint="name a JSON file of test vectors"
        ) from error
    failed = [result for result in results if not result.ok]
    ok = bool(results) and not failed
    if args.json:
        cases = [{"id": r.id, "ok": r.ok, "detail": r.detail} for r in results]
        summary = {"passed": len(results) - len(failed), "failed": len(failed)}
        print(json.dumps({"ok": ok, **summary, "cases": cases}, indent=2))
    else:
        for result in results:
            line = f"{'ok  ' if result.ok else 'FAIL'}  {result.id}"
            say(f"{line}: {result.detail}" if result.detail else line, 6)
        say(f"{len(results) - len(failed)} of {len(results)} cases passed")
    return EXIT_OK if ok else EXIT_INVALID
