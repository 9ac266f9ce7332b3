"""The tenant's command line. The server's commands are added by `ops.cli`.

Exit codes, the same for every command: 0 ok · 2 invalid (something is not what it claims) ·
3 genuine but below policy · 4 cannot be read, reached or understood (files, policies, URLs,
arguments) · 130 interrupted · 1 our defect. A usage error is 4, not argparse's 2: in a script, 2
must mean a verdict.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from wire.errors import AnchorholdError, ConfigError

from . import (
    cli_chat,
    cli_collateral,
    cli_conformance,
    cli_policy,
    cli_proxy,
    cli_receipt,
    cli_verify,
)
from .advice import hint_of
from .cli_options import EXITS, POLICY_KEY_OPTION
from .cli_terminal import note, one_line
from .report import EXIT_UNREADABLE, exit_code

Register = Callable[[Any], Any]
COMMANDS: Final[dict[str, Register]] = {
    "verify": cli_verify.register,
    "chat": cli_chat.register,
    "proxy": cli_proxy.register,
    "receipt": cli_receipt.register,
    "policy": cli_policy.register,
    "collateral": cli_collateral.register,
    "conformance": cli_conformance.register,
}
_NO_ACTIONS: Final[Mapping[str, Register]] = {}
EXIT_DEFECT: Final = 1
EXIT_INTERRUPTED: Final = 130
_JSON: Final = "--json"
_DASHED_KEY: Final = re.compile(r"-[A-Za-z0-9_-]{42}")
DEBUG_ENV: Final = "ANCHORHOLD_DEBUG"
_OUTPUT_FAULTS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
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


class UsageError(SystemExit):
    """Arguments that cannot be understood; it has been said on standard error."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(EXIT_UNREADABLE)
        self.message, self.hint = message, hint


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors exit with 4."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override]  # 3.12's
        self.print_usage(sys.stderr)
        said, hint = f"{self.prog}: {message}", f"{self.prog} --help lists what it takes"
        note(said)
        note(f"hint: {hint}")
        raise UsageError(said, hint)


def build_parser(
    extensions: Sequence[Register] = (), actions: Mapping[str, Register] = _NO_ACTIONS
) -> argparse.ArgumentParser:
    """The parser of `anchorhold`.

    Args:
        extensions: functions that add further commands to the object `add_subparsers` returns;
            each command sets `run`, from parsed arguments to an exit code, and may set
            `failure_code`, the exit code of every refusal that is not its configuration's.
        actions: functions that add actions to a command of ours, by its name; its `register`
            returns what they are added to.
    """
    parser = Parser(
        prog="anchorhold",
        description="Sealed inference: verify, ask, and keep the proof.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, register in COMMANDS.items():
        added = register(commands)
        if name in actions:
            actions[name](added)
    for register in extensions:
        register(commands)
    return parser


def execute(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse and run; every outcome is an exit code, no error is a stack trace."""
    _prepare_streams()
    try:
        try:
            return _run(parser, argv)
        finally:
            sys.stdout.flush()  # of the help, too, after which the parser leaves
    except KeyboardInterrupt:
        note("anchorhold: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader left; so do we
        return EXIT_INTERRUPTED
    except Exception as error:  # the message of an unforeseen error may hold content
        if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_FAULTS:
            _drop_output()
            note(f"anchorhold: standard output: {error.strerror}")
            note("hint: part of the output is lost; write it where there is room")
            return EXIT_UNREADABLE
        note(f"anchorhold: defect: {type(error).__name__}; {DEBUG_ENV}=1 shows where")
        if os.environ.get(DEBUG_ENV) == "1":
            traceback.print_exc()
        return EXIT_DEFECT


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    args = _parsed(parser, _joined(sys.argv[1:] if argv is None else argv))
    try:
        code: int = args.run(args)
    except AnchorholdError as error:
        code = exit_code(error)
        if not isinstance(error, ConfigError):  # a server that fails gives no verdict on others
            code = getattr(args, "failure_code", code)
        hint = hint_of(error)
        if getattr(args, "json", False):
            _print_refusal(error.code, error.message, hint, code)
        note(one_line(f"anchorhold: {error.message}"))
        note(one_line(f"hint: {hint}"))
    return code


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    try:
        return parser.parse_args(words)
    except UsageError as error:
        if _JSON in words:  # whoever parses the output parses refusals too
            _print_refusal("usage", error.message, error.hint, EXIT_UNREADABLE)
        raise


def _joined(words: Sequence[str]) -> list[str]:
    """The words; a key after its option is joined to it, since one in 64 begins with "-".

    The parser would take such a key for an option, and say that there is no key.
    """
    found: list[str] = []
    for word in words:
        if found and found[-1] == POLICY_KEY_OPTION and _DASHED_KEY.fullmatch(word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _print_refusal(code: str, message: str, hint: str, exit_code: int) -> None:
    said = {"code": code, "message": message, "hint": hint}
    print(json.dumps({"ok": False, "error": said, "exit_code": exit_code}, indent=2))


def _prepare_streams() -> None:
    """Output that cannot be shown is dropped or escaped: it is no reason to fail."""
    # Either is None in a program that was started without it. What would be said beside the output
    # is dropped; output itself must not get lost in silence, and nothing opened later may take its
    # place: it goes where writing fails.
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still to be written goes nowhere, without Python's own complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """What `client.start` runs."""
    parser = build_parser()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # `client.start` set the system's
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(execute(parser))


if __name__ == "__main__":
    main()
