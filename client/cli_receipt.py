"""`anchorhold receipt verify FILE`: check a saved receipt without any network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evidence.archive import BUNDLE_MAX
from evidence.bundle import verify_bundle

from .cli_options import add_command, add_json, add_policy, chosen_policy, trust_line
from .cli_terminal import say
from .clock import wall_clock
from .files import read_file
from .report import EXIT_BELOW_POLICY, EXIT_INVALID, EXIT_UNREADABLE

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold receipt verify receipt.json --policy policy.json
anchorhold receipt verify receipt.json --policy policy.json --json"""

HINTS: Final[dict[int, str]] = {
    EXIT_INVALID: "rely on nothing in it, and keep it: it shows what somebody gave you",
    EXIT_BELOW_POLICY: "it is genuine: see which check is not ok, and judge it under the policy "
    "that was in force",
    EXIT_UNREADABLE: "name a file that `anchorhold chat --receipt FILE` wrote",
}
_HANG = 6  # under the text beside a mark


def register(commands: Any) -> Any:
    """Add the command; returns what further actions are added to."""
    receipt = add_command(commands, "receipt", "work with saved receipts", EXAMPLES)
    actions = receipt.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "verify a receipt file offline"
    parser = add_command(actions, "verify", text, EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="receipt bundle")
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    return actions


def run(args: argparse.Namespace) -> int:
    """0 ok, 2 invalid, 3 genuine but below policy or not all checked, 4 unreadable."""
    raw = read_file(args.file, BUNDLE_MAX, "receipt")
    report = verify_bundle(raw, chosen_policy(args), wall_clock())
    hint = HINTS.get(report.exit_code)
    if args.json:
        print(json.dumps(report.to_json() | ({"hint": hint} if hint else {}), indent=2))
    else:
        for line in (*report.lines(), trust_line(report.trust)):
            say(line, _HANG)
        if hint:
            say(f"hint: {hint}")
    return int(report.exit_code)
