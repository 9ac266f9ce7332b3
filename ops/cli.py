"""`anchorhold`: the tenant's commands and the operator's, in one program.

The operator's modules are imported only when one of their commands, or the help, is asked for:
`anchorhold verify` starts without a web framework.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from client import cli

if TYPE_CHECKING:
    import argparse

# Modules with a `register` that adds server-side commands.
SERVER_MODULES: Final = ("ops.demo_cli", "gateway.cli", "enclave_worker.cli", "ops.model_cli")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    return cli.build_parser([_register_of(name) for name in SERVER_MODULES])


def main() -> None:
    """Console script of the server distribution."""
    first = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    parser = cli.build_parser() if first in cli.COMMANDS else build_parser()
    sys.exit(cli.execute(parser))


def _register_of(name: str) -> cli.Register:
    def register(commands: Any) -> None:
        import_module(name).register(commands)

    return register
