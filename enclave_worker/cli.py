"""Command line of the worker: `anchorhold worker --config FILE`.

`register` adds it to a parser of sub-commands and sets `run`, a function from the parsed
arguments to an exit code: 0 after a clean stop, 1 when the worker failed. Refusals are raised for
whoever runs it to say: 4 for a configuration that cannot be used, 1 otherwise. A refusing gateway
is said and asked again: its policy may be about to change.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attestation.collect.probe import probe
from wire.errors import ConfigError

from .launch import Launcher
from .launcher_config import read_config

EXIT_OK = 0
EXIT_FAILED = 1
EPILOG = """\
examples:
  anchorhold worker --config worker.toml --measure
  anchorhold worker --config worker.toml

exit codes: 0 ok, 4 unreadable or usage, 130 interrupted,
            1 the worker failed, or a defect of ours
"""
# A bar is drawn again when this much more is done; finer steps only cost system calls.
STEPS = 50

Say = Callable[[str], None]


def register(subparsers: Any) -> argparse.ArgumentParser:
    """Add `worker` to `subparsers` (what `ArgumentParser.add_subparsers` returned); returns it."""
    worker: argparse.ArgumentParser = subparsers.add_parser(
        "worker",
        help="measure, sandbox and run one worker",
        description="Measure, sandbox and run one worker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    worker.add_argument("--config", type=Path, metavar="FILE", help="TOML settings")
    worker.add_argument(
        "--measure",
        action="store_true",
        help="print the measurement and trust anchor a policy must name, and exit",
    )
    worker.set_defaults(run=lambda args: run(args, _say), failure_code=EXIT_FAILED)
    return worker


def run(args: argparse.Namespace, say: Say) -> int:
    """Run one worker until SIGINT or SIGTERM.

    Args:
        args: parsed arguments: `config`, `measure`.
        say: prints one line for the operator.

    Raises:
        AnchorholdError: it cannot start; the command line says it, with a hint.
    """
    try:
        if args.config is None:
            raise ConfigError("worker: found no --config, expected a settings file")
        launcher = Launcher(read_config(args.config), progress=_Bar(say), on_state=_states(say))
        if args.measure:
            return _measure(launcher)
        return _serve(launcher, say)
    except ConfigError as error:
        error.hint = error.hint or "docs/operate/worker.md lists every setting"
        raise


def _measure(launcher: Launcher) -> int:
    """Print what a policy must name; nothing is started."""
    try:
        launcher.measure()
        sys.stdout.write(f"measurement  {launcher.measurement}\n")
        for name, digest in sorted(launcher.parts.items()):
            sys.stdout.write(f"  {name:<12} {digest}\n")
        sys.stdout.write(f"trust        {launcher.config.trust}\n")
        sys.stdout.write(f"root         {launcher.trust_anchor}\n")
        sys.stdout.write("found here\n")
        for item in probe().items:
            sys.stdout.write(f"  {item.place}: {item.found}\n")
    finally:
        launcher.stop()
    return EXIT_OK


def _serve(launcher: Launcher, say: Say) -> int:
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    if launcher.config.trust == "software":
        say("anchorhold worker: trust is SOFTWARE: whoever runs this host can read prompts")
    if launcher.config.trust == "vtpm":
        say("anchorhold worker: trust is VTPM: no TPM can say who reads this memory")
    try:
        launcher.start()
        say(f"anchorhold worker: measurement {launcher.measurement}")
        while not over.wait(0.5):
            if launcher.state == "failed":
                failure = launcher.failure
                assert failure is not None
                say(f"anchorhold worker: failed at stage {failure.stage}: {failure.message}")
                return EXIT_FAILED
        say("anchorhold worker: stopping")
    finally:
        launcher.stop()
    return EXIT_OK


def _states(say: Say) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a listener that says every state, with the reasons of a refusal."""

    def listen(state: str, facts: Mapping[str, Any]) -> None:
        reasons = ", ".join(str(item) for item in facts.get("reasons", ()))
        missing = sorted(
            name for name, found in facts.get("controls", {}).items() if found != "applied"
        )
        detail = f": {reasons}" if reasons else ""
        if missing:
            detail = f"; without {', '.join(missing)}"
        say(f"anchorhold worker: {state}{detail}")

    return listen


class _Bar:
    """Says how far measuring is, in steps."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._shown = -1

    def __call__(self, part: str, done: int, total: int) -> None:
        """Take (part, bytes done, bytes in all)."""
        step = STEPS if total == 0 else done * STEPS // total
        if step == self._shown:
            return
        self._shown = step
        if sys.stderr.isatty():
            bar = "#" * step + "." * (STEPS - step)
            sys.stderr.write(f"\rmeasuring [{bar}] {part:<12}")
            if step == STEPS:
                sys.stderr.write("\n")
            sys.stderr.flush()
        elif step == STEPS:
            self._say(f"anchorhold worker: measured {total // 2**20} MiB")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
