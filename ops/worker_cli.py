"""`anchorhold worker`, and beside it what needs no worker: `anchorhold worker inventory`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.cli_options import add_command, add_json
from enclave_worker import cli

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold worker inventory
anchorhold worker inventory --json"""
EXITS = """\
exit codes: 0 ok, 4 unreadable or usage, 130 interrupted,
            1 a defect of ours"""


def register(commands: Any) -> None:
    """Add `worker` and its action."""
    worker = cli.register(commands)
    actions = worker.add_subparsers(dest="action", metavar="ACTION")
    text = "list what a worker can import, and count our lines"
    inventory = add_command(actions, "inventory", text, EXAMPLES, EXITS)
    add_json(inventory)
    inventory.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the inventory; nothing is started."""
    from .inventory import take_inventory

    found = take_inventory()
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print("\n".join(found.lines()).lstrip("\n"))
    return 0
