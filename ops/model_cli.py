"""`anchorhold model import | inspect | verify`."""

import argparse
import json
from pathlib import Path
from typing import Any

from client.advice import hint_of
from client.cli_options import add_command, add_json
from client.cli_terminal import note, say
from client.report import EXIT_INVALID
from wire.errors import ConfigError

from .model_figures import Figures
from .model_import import DTYPES, NONE, QUANTISATIONS, import_model
from .model_inspect import PAGES, check_model, inspect
from .model_manifest import CHANGED, Manifest
from .model_quality import LOSS_MAX
from .model_quantise import W8A8
from .model_source import KNOWN
from .progress import progress_bar

EXAMPLES = """\
anchorhold model import smollm2 models/smollm2 --quantise w8a8
anchorhold model verify models/smollm2"""
IMPORT_EXAMPLES = """\
anchorhold model import smollm2 models/smollm2
anchorhold model import smollm2 models/smollm2-w8a8 --quantise w8a8
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
        "--dtype", choices=sorted(DTYPES), help="default: bfloat16; float32 for an encoder"
    )
    add.add_argument(
        "--quantise", choices=QUANTISATIONS, default=NONE, help="int8 weights (default: none)"
    )
    add.add_argument(
        "--smoothing",
        type=float,
        metavar="ALPHA",
        help="strength of SmoothQuant, 0 to 1 (default: searched)",
    )
    add.add_argument("--name", help="what clients call the model")
    add.add_argument("--force", action="store_true", help="replace a model that is there")
    add_json(add)
    add.set_defaults(run=_import)

    show = add_command(
        commands,
        "inspect",
        "print what a model folder holds and needs",
        "anchorhold model inspect models/smollm2",
        EXITS,
    )
    show.add_argument("dir", metavar="DIR", type=Path, help="model folder")
    show.add_argument(
        "--pages", type=int, default=PAGES, metavar="N", help=f"of the KV pool (default: {PAGES})"
    )
    add_json(show)
    show.set_defaults(run=_inspect)

    check = add_command(
        commands,
        "verify",
        "check every file against the manifest",
        "anchorhold model verify models/smollm2",
        EXITS,
    )
    check.add_argument("dir", metavar="DIR", type=Path, help="model folder")
    add_json(check)
    check.set_defaults(run=_verify)


def _import(arguments: argparse.Namespace) -> int:
    """Run `model import`."""
    with progress_bar() as report:
        manifest = import_model(
            arguments.source,
            arguments.dir,
            dtype=arguments.dtype,
            quantise=arguments.quantise,
            smoothing=arguments.smoothing,
            name=arguments.name,
            force=arguments.force,
            report=report,
        )
    figures = manifest.figures
    if figures is not None and not figures.loss(W8A8) <= LOSS_MAX:
        note(_warning(figures))
    if arguments.json:
        print(json.dumps({"ok": True, "manifest": json.loads(manifest.encode())}, indent=2))
        return 0
    say(f"{manifest.name}: {len(manifest.files)} files, {_numbers(manifest)}, {manifest.licence}")
    if figures is not None:
        say("\n".join(figures.table()))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    """Run `model inspect`."""
    if arguments.pages < 1:
        raise ConfigError(f"--pages: found {arguments.pages}, expected at least 1")
    found = inspect(arguments.dir, arguments.pages)
    if arguments.json:
        print(json.dumps({"ok": True, **found.document()}, indent=2))
    else:
        say("\n".join(found.lines()), hang=16)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Run `model verify`."""
    try:
        with progress_bar() as report:
            manifest = check_model(arguments.dir, report)
    except ConfigError as error:
        if error.code != CHANGED:
            raise
        hint = hint_of(error)
        if arguments.json:
            said = {"code": error.code, "message": error.message, "hint": hint}
            refusal = {"ok": False, "error": said, "exit_code": EXIT_INVALID}
            print(json.dumps(refusal, indent=2))
        note(f"INVALID ({error.code}): {error.message}")
        note(f"hint: {hint}")
        return EXIT_INVALID
    if arguments.json:
        print(json.dumps({"ok": True, "name": manifest.name, "files": dict(manifest.files)}))
    else:
        say(f"{manifest.name}: {len(manifest.files)} files match the manifest")
    return 0


def _numbers(manifest: Manifest) -> str:
    made = manifest.quantisation
    return manifest.dtype if made is None else f"{made.mode} beside {manifest.dtype}"


def _warning(figures: Figures) -> str:
    return (
        f"WARNING: perplexity in {W8A8} is {figures.loss(W8A8):.2%} above bfloat16's, expected at "
        f"most {LOSS_MAX:.0%}: answers are worse than the model's own. Serve it as w8a16 or "
        "bfloat16, or try another --smoothing."
    )
