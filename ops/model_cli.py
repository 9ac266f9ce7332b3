"""`anchorhold model import | inspect | verify`."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from client.advice import hint_of
from client.cli_options import add_command
from client.cli_terminal import note, say
from client.report import EXIT_INVALID
from wire.errors import ConfigError

from .model_import import DTYPES, Report, import_model
from .model_manifest import CHANGED, read, verify
from .model_source import KNOWN

EXAMPLES = """\
anchorhold model import smollm2 models/smollm2
anchorhold model verify models/smollm2"""
IMPORT_EXAMPLES = """\
anchorhold model import smollm2 models/smollm2
anchorhold model import ./llama.Q8_0.gguf models/llama --name my-llama"""
EXITS = """\
exit codes: 0 ok, 2 a file differs from the manifest, 4 unreadable or usage,
            130 interrupted, 1 a defect of ours"""


def register(subparsers: Any) -> None:
    """Add the `model` command; each subcommand sets `run`, which takes the parsed arguments.

    `run` returns the exit code and raises AnchorholdError for everything a user can get wrong.
    """
    model = add_command(subparsers, "model", "import and check models", EXAMPLES, EXITS)
    commands = model.add_subparsers(dest="model_command", required=True, metavar="COMMAND")

    text = "turn a GGUF file or HF folder into a model folder"
    add = add_command(commands, "import", text, IMPORT_EXAMPLES, EXITS)
    add.add_argument("source", metavar="SOURCE", help=f".gguf, HF folder, or {', '.join(KNOWN)}")
    add.add_argument("dir", metavar="DIR", type=Path, help="folder to make")
    add.add_argument(
        "--dtype", choices=sorted(DTYPES), default="bfloat16", help="default: bfloat16"
    )
    add.add_argument("--name", help="what clients call the model")
    add.add_argument("--force", action="store_true", help="replace a model that is there")
    add.set_defaults(run=_import)

    for name, run, text in (
        ("inspect", _inspect, "print the manifest as JSON"),
        ("verify", _verify, "check every file against the manifest"),
    ):
        command = add_command(
            commands, name, text, f"anchorhold model {name} models/smollm2", EXITS
        )
        command.add_argument("dir", metavar="DIR", type=Path, help="model folder")
        command.set_defaults(run=run)


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Show a progress bar on stderr; yields what an import reports to."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        tasks: list[TaskID] = []

        def report(stage: str, done: int, total: int) -> None:
            if not tasks:  # no bar for work that is not done
                tasks.append(progress.add_task(stage))
            progress.update(tasks[0], description=stage, completed=done, total=max(total, 1))

        yield report


def _import(arguments: argparse.Namespace) -> int:
    """Run `model import`."""
    with progress_bar() as report:
        manifest = import_model(
            arguments.source,
            arguments.dir,
            dtype=arguments.dtype,
            name=arguments.name,
            force=arguments.force,
            report=report,
        )
    say(f"{manifest.name}: {len(manifest.files)} files, {manifest.dtype}, {manifest.licence}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    """Run `model inspect`."""
    print(json.dumps(json.loads(read(arguments.dir).encode()), indent=2))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Run `model verify`."""
    try:
        manifest = verify(arguments.dir)
    except ConfigError as error:
        if error.code != CHANGED:
            raise
        note(f"INVALID ({error.code}): {error.message}")
        note(f"hint: {hint_of(error)}")
        return EXIT_INVALID
    say(f"{manifest.name}: {len(manifest.files)} files match the manifest")
    return 0
