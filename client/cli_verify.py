"""`anchorhold verify URL`: every check the client makes before it would send anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .advice import hint_of
from .api import Client
from .cli_options import (
    MARKS,
    add_command,
    add_gateway,
    add_json,
    add_proofs,
    api_key,
    chosen_options,
    chosen_policy,
    trust_line,
)
from .cli_terminal import one_line, say

if TYPE_CHECKING:
    import argparse

    from attestation.result import Check

    from .report import Verification

EXAMPLES = """\
anchorhold verify https://gateway.example --policy policy.json
anchorhold verify http://127.0.0.1:8010 --policy policy.json \\
  --model smollm2 --key-file key.txt --json"""

_HANG = 6  # under the text beside a mark


def register(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", "verify a deployment under a policy", EXAMPLES)
    parser.add_argument("url", metavar="URL", help="the gateway")
    parser.add_argument(
        "--model", help="model the workers must serve (default: the policy's first)"
    )
    add_gateway(parser)
    add_proofs(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 all checks passed, 2 something is invalid, 3 below policy, 4 cannot be read."""
    options = chosen_options(args, patient=False)
    with Client(args.url, api_key(args), policy=chosen_policy(args), options=options) as client:
        found = client.report(args.model)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        for line in lines(found):
            say(one_line(line), _HANG)
    return found.exit_code


def lines(found: Verification) -> list[str]:
    """The report for a terminal: trust first and last, one line a check."""
    trust = trust_line(found.trust)
    shown = [trust, f"policy  {found.policy}", f"log     {found.log or 'not reached'}"]
    shown += [_line(check) for check in found.checks]
    shown += [
        f"passed over: {check.step}: {check.detail}"
        for check in found.passed_over
        if check.ok is not True
    ]
    shown += [
        f"worker  {worker.wid}  {worker.trust}  {worker.measurement}  key {worker.kid}"
        for worker in found.workers
    ]
    shown.append(f"API key: {found.api_key}")
    if found.error is None:
        shown.append(f"passed: {len(found.checks)} checks")
    else:
        shown.append(f"REFUSED ({found.error.code}): {found.error.message}")
        shown.append(f"hint: {hint_of(found.error)}")
    return [*shown, trust]


def _line(check: Check) -> str:
    detail = f": {check.detail}" if check.detail else ""
    return f"{MARKS[check.ok]}  {check.step}{detail}"
