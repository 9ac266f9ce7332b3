"""`anchorhold receipt replay FILE`: run an answer again and compare it with its receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.advice import hint_of
from client.cli_options import MARKS, add_command, add_json, add_policy, chosen_policy, trust_line
from client.cli_terminal import note, say
from client.clock import wall_clock
from client.files import read_file
from client.opening import OPENING, OPENING_MAX, parse_opening
from client.report import EXIT_BELOW_POLICY, EXIT_OK, Report, exit_code
from evidence.archive import BUNDLE_MAX
from wire.errors import AnchorholdError, ConfigError, ReceiptError

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
anchorhold receipt replay receipt.json --policy policy.json \\
  --model models/smollm2 --open opening.json"""
EXITS = """\
exit codes: 0 ok, the answer is the same,
            2 it differs, or receipt or opening is not genuine,
            3 the same, but the receipt is below policy,
            4 unreadable or usage, or no replay with this folder or here,
            130 interrupted, 1 a defect of ours"""
HINT: Final = (
    "keep receipt, opening and model folder: they show that the worker's answer is not what its "
    "statement leads to"
)
BELOW_HINT: Final = "see which check of `anchorhold receipt verify` is not ok"
OPENING_HINT: Final = "name the opening that was saved with this receipt, unchanged"


def register(actions: Any) -> None:
    """Add the action to `receipt`."""
    text = "run an answer again and compare"
    parser = add_command(actions, "replay", text, EXAMPLES, EXITS)
    parser.add_argument("file", type=Path, metavar="FILE", help="receipt bundle")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="the imported model folder"
    )
    parser.add_argument(
        "--open",
        type=Path,
        required=True,
        metavar="FILE",
        dest="opening",
        help="what `chat --opening` saved: request, answer and salts",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of the engine (default: 1)"
    )
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See EXITS."""
    if args.threads < 1:
        raise ConfigError(f"--threads: found {args.threads}, expected at least 1")
    receipt = read_file(args.file, BUNDLE_MAX, "receipt")
    opening = parse_opening(read_file(args.opening, OPENING_MAX, OPENING))
    policy = chosen_policy(args)
    from .replay import STEPS, Replay  # torch with it

    report = Report()
    replay = Replay(receipt, opening, args.model, report, args.threads)
    error: AnchorholdError | None = None
    try:
        replay.run(policy, wall_clock(), lambda text: note(f"replay: {text}"))
    except AnchorholdError as refused:
        error = refused
    report.not_run(STEPS)
    code = EXIT_BELOW_POLICY if replay.below_policy else EXIT_OK
    if error is not None:
        code = exit_code(error)
    hint = BELOW_HINT if code == EXIT_BELOW_POLICY else ""
    if error is not None:
        hint = _hint(error)
    if args.json:
        checks = [{"step": c.step, "ok": c.ok, "detail": c.detail} for c in report.checks]
        document: dict[str, Any] = {"ok": code == EXIT_OK, "trust": replay.trust, "checks": checks}
        if error is not None:
            document["error"] = {"code": error.code, "message": error.message, "hint": hint}
        print(json.dumps(document | {"exit_code": code}, indent=2))
        return code
    for check in report.checks:
        say(f"{MARKS[check.ok]}  {check.step}: {check.detail}", 6)
    say(trust_line(replay.trust))
    if hint:
        say(f"hint: {hint}")
    return code


def _hint(error: AnchorholdError) -> str:
    if error.hint:
        return error.hint
    if isinstance(error, ReceiptError):
        return {"opening_invalid": OPENING_HINT, "replay_differs": HINT}.get(
            error.code, hint_of(error)
        )
    return hint_of(error)
