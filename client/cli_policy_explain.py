"""`anchorhold policy explain FILE`: every demand of a policy, its defaults too, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_options import add_command, add_json, add_policy_key, policy_keys
from .cli_terminal import say
from .policy_words import explain
from .report import EXIT_OK
from .session import load_policy

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold policy explain policy.json
anchorhold policy explain policy.json --json"""


def register(actions: Any) -> None:
    """Add the command under `policy`."""
    text = "say in words what a policy demands, its defaults included"
    parser = add_command(actions, "explain", text, EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="policy file")
    add_policy_key(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 explained, 4 unreadable or not a policy."""
    sections = explain(load_policy(args.file, policy_keys(args)))
    if args.json:
        document = [
            {"section": heading, "demands": [{"name": name, "value": text} for name, text in lines]}
            for heading, lines in sections
        ]
        print(json.dumps(document, indent=2))
        return EXIT_OK
    for heading, lines in sections:
        say(heading)
        width = max((len(name) for name, _ in lines), default=0)
        for name, text in lines:
            say(f"  {name:<{width}}  {text}", width + 2)
    return EXIT_OK
