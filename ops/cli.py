"""`anchorhold`: the tenant's commands and the operator's, in one program.

The operator's modules are imported only when one of their commands, or the help, is asked for:
`anchorhold verify` starts without a web framework.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from client import cli

if TYPE_CHECKING:
    import argparse

# Modules with a `register`, by the commands they add.
SERVER_MODULES: Final = {
    "demo": "ops.demo_cli",
    "gateway": "gateway.cli",
    "key": "gateway.cli",
    "worker": "ops.worker_cli",
    "model": "ops.model_cli",
    "pool": "ops.pool_cli",
}
# Modules with a `register` that adds actions to one of the tenant's commands.
ACTION_MODULES: Final = {"receipt": "ops.receipt_cli"}


def build_parser(first: str = "") -> argparse.ArgumentParser:
    """The parser with every command; where `first` names one, with only the modules it needs.

    A gateway that has loaded torch because the demo needs it would hold the plaintext path in its
    own process: what a command does not use is not imported.
    """
    actions = {name: _register_of(module) for name, module in ACTION_MODULES.items()}
    if first in cli.COMMANDS:
        return cli.build_parser(actions=actions if first in actions else {})
    wanted = [SERVER_MODULES[first]] if first in SERVER_MODULES else SERVER_MODULES.values()
    registers = [_register_of(name) for name in dict.fromkeys(wanted)]
    return cli.build_parser(registers, {} if first in SERVER_MODULES else actions)


def main() -> None:
    """Console script of the server distribution."""
    first = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    parser = build_parser(first)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ops.start set the system's
    sys.exit(cli.execute(parser))


def _register_of(name: str) -> cli.Register:
    def register(commands: Any) -> None:
        import_module(name).register(commands)

    return register
