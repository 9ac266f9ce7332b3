"""`anchorhold policy check FILE`: is it a policy, is it in force, and what does it let through?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli_policy_explain, cli_policy_sign, cli_policy_simulate, cli_policy_values
from .cli_options import add_command, add_json, add_policy_key, policy_keys
from .cli_terminal import say
from .clock import utc_text, wall_clock
from .policy_weaknesses import weaknesses
from .report import EXIT_BELOW_POLICY, EXIT_OK
from .session import load_policy

if TYPE_CHECKING:
    import argparse

    from attestation.policy import Policy

EXAMPLES = """\
anchorhold policy check policy.json
anchorhold policy check policy.json --json
anchorhold policy explain policy.json"""
SOON_S = 7 * 86_400


def register(commands: Any) -> None:
    """Add the command."""
    policy = add_command(commands, "policy", "work with tenant policies", EXAMPLES)
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = add_command(actions, "check", "check a policy file and say what it accepts", EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="policy file")
    add_policy_key(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    for module in (cli_policy_explain, cli_policy_simulate, cli_policy_sign, cli_policy_values):
        module.register(actions)


def run(args: argparse.Namespace) -> int:
    """0 valid and in force, 3 valid but not in force, 4 unreadable or not a policy."""
    # The same errors and code as from `verify` under this policy.
    policy = load_policy(args.file, policy_keys(args))
    now = wall_clock()
    in_force = policy.not_before <= now < policy.expires
    code = EXIT_OK if in_force else EXIT_BELOW_POLICY
    found, warned = facts(policy), warnings(policy, now)
    if args.json:
        document = {"ok": in_force, **found, "warnings": warned}
        print(json.dumps(document | {"exit_code": code}, indent=2))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            say(f"{name:<{width}}  {value}", width + 2)
        for warning in warned:
            say(f"warning: {warning}", len("warning: "))
    return code


def facts(policy: Policy) -> dict[str, Any]:
    """What the policy says, in words."""
    return {
        "id": f"{policy.id} seq {policy.seq}",
        "digest": policy.digest,
        "valid": f"{utc_text(policy.not_before)} to {utc_text(policy.expires)}",
        "audience": policy.aud,
        "evidence": ", ".join(rule.kind for rule in policy.accept),
        "models": ", ".join(rule.name for rule in policy.models),
        "candidates": f"{policy.k} of at least {policy.min_workers}",
        "log": policy.log_origin or "none",
        "directory keys": ", ".join(key.kid for key in policy.directory_keys) or "none",
    }


def warnings(policy: Policy, now: int) -> list[str]:
    """What weakens the policy, or will soon end it."""
    found = []
    if now >= policy.expires:
        found.append("it has expired: clients refuse it")
    elif now < policy.not_before:
        found.append("it is not in force yet: clients refuse it")
    elif policy.expires - now < SOON_S:
        found.append(f"it expires in {(policy.expires - now) // 3600} hours")
    if policy.allow_software:
        found.append("allow_software: workers without any hardware evidence are accepted")
    if policy.allow_simulated:
        found.append("allow_simulated: workers of simulated vendors and software TPMs are accepted")
    found += weaknesses(policy)
    if not policy.require_pq:
        found.append("require_pq is false: recorded traffic may be opened by a quantum computer")
    if policy.min_workers == 1:
        found.append("min_workers is 1: the directory's server can steer every request")
    if policy.log_origin is None or not policy.directory_keys:
        found.append("no log or no directory key is pinned: no directory will be accepted")
    return found
