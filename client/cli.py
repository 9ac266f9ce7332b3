"""The tenant's command line. The server's commands are added by `ops.cli`.

Exit codes, the same for every command: 0 ok · 2 invalid (something is not what it claims) ·
3 genuine but below policy · 4 cannot be read, reached or understood (files, policies, URLs,
arguments) · 130 interrupted · 1 our defect. A usage error is 4, not argparse's 2: in a script, 2
must mean a verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from wire.errors import AnchorholdError

from . import (
    cli_chat,
    cli_collateral,
    cli_conformance,
    cli_policy,
    cli_proxy,
    cli_receipt,
    cli_verify,
)
from .cli_options import EXITS, note
from .report import EXIT_UNREADABLE, exit_code

Register = Callable[[Any], None]
COMMANDS: Final[dict[str, Register]] = {
    "verify": cli_verify.register,
    "chat": cli_chat.register,
    "proxy": cli_proxy.register,
    "receipt": cli_receipt.register,
    "policy": cli_policy.register,
    "collateral": cli_collateral.register,
    "conformance": cli_conformance.register,
}
EXIT_DEFECT: Final = 1
EXIT_INTERRUPTED: Final = 130
DEBUG_ENV: Final = "ANCHORHOLD_DEBUG"
EPILOG: Final = f"""\
examples:
  anchorhold verify https://gateway.example --policy policy.json
  anchorhold chat --url https://gateway.example --model smollm2 "Hello"
  anchorhold receipt verify receipt.json --policy policy.json

environment: ANCHORHOLD_API_KEY   the tenant's credential for the gateway
             ANCHORHOLD_POLICY    the tenant's policy file
             ANCHORHOLD_DEBUG=1   show where a defect happened
{EXITS}
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors exit with 4."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override]  # 3.12's
        self.print_usage(sys.stderr)
        self.exit(EXIT_UNREADABLE, f"{self.prog}: {message}\n")


def build_parser(extensions: Sequence[Register] = ()) -> argparse.ArgumentParser:
    """The parser of `anchorhold`.

    Args:
        extensions: functions that add further commands to the object `add_subparsers` returns;
            each command sets `run`, from parsed arguments to an exit code.
    """
    parser = Parser(
        prog="anchorhold",
        description="Sealed inference: verify, ask, and keep the proof.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for register in (*COMMANDS.values(), *extensions):
        register(commands)
    return parser


def execute(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse and run; every outcome is an exit code, no error is a stack trace."""
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except AnchorholdError as error:
        note(f"anchorhold: {error.diagnostics()}")
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left; so do we, without Python's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except Exception as error:  # the message of an unforeseen error may hold content
        note(f"anchorhold: defect: {type(error).__name__}; {DEBUG_ENV}=1 shows where")
        if os.environ.get(DEBUG_ENV) == "1":
            traceback.print_exc()
        return EXIT_DEFECT
    return code


def main() -> None:
    """Console script of the SDK."""
    sys.exit(execute(build_parser()))
