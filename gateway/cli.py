"""Command line of the gateway: `anchorhold gateway` and `anchorhold key`.

`register` adds both to a parser of sub-commands; each sets `run`, a function from the parsed
arguments to an exit code; refusals are raised for whoever runs it to say.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenancy.identity import LIFE_DEFAULT_S, SCOPES, KeyRecord
from tenancy.key_table import check_grant, load_table, open_or_create, save_table
from wire.errors import ConfigError
from wire.excerpt import shown

from .clock import Clock
from .main import EXIT_CONFIG, EXIT_OK
from .main import run as run_gateway

_DAY_S = 86_400
_EXITS = """
exit codes: 0 ok, 4 unreadable or usage, 130 interrupted, 1 a defect of ours"""
_GATEWAY_EXAMPLES = """\
  anchorhold gateway --config gateway.toml --init
  anchorhold gateway --config gateway.toml
"""
_EXAMPLES = {
    "create": "  anchorhold key create --table keys.json --tenant hospital --days 30\n",
    "list": "  anchorhold key list --table keys.json\n",
    "revoke": "  anchorhold key revoke --table keys.json 7f3a90c1\n",
}
_KEY_EXAMPLES = "".join(_EXAMPLES.values())


def register(subparsers: Any) -> None:
    """Add `gateway` and `key` to `subparsers` (what `ArgumentParser.add_subparsers` returned)."""
    gateway = _command(subparsers, "gateway", "run the gateway", _GATEWAY_EXAMPLES)
    gateway.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML settings")
    gateway.add_argument(
        "--init",
        action="store_true",
        help="create missing keys and folders, print what policies must pin, and exit",
    )
    gateway.set_defaults(
        run=lambda args: run_gateway(args.config, init=args.init), failure_code=EXIT_CONFIG
    )

    key = _command(subparsers, "key", "manage API keys", _KEY_EXAMPLES)
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _action(actions, "create", "mint a key; it is shown once", _create)
    create.add_argument("--tenant", required=True, help="who pays for its requests")
    create.add_argument("--scope", action="append", choices=SCOPES, help="default: infer")
    create.add_argument("--env", default="live", help="label inside the key, such as live or dev")
    create.add_argument("--days", type=int, default=LIFE_DEFAULT_S // _DAY_S, help="days it lives")
    _action(actions, "list", "show all keys without their secrets", _list)
    revoke = _action(actions, "revoke", "end a key at once", _revoke)
    revoke.add_argument("kid", help="key id, the third part of the key")


def _command(commands: Any, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    """A command whose help ends with examples and exit codes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"examples:\n{examples}\n{_EXITS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _action(
    actions: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = _command(actions, name, text, _EXAMPLES[name])
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="key table")
    parser.add_argument("--pepper", type=Path, metavar="FILE", help="pepper; FILE.pepper otherwise")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda args: _guarded(act, args), failure_code=EXIT_CONFIG)
    return parser


def _guarded(act: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run one action.

    Raises:
        AnchorholdError: it cannot be done; the command line says it, with a hint.
    """
    try:
        return act(args)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        at = error.filename or args.table
        raise ConfigError(
            f"key table: cannot write {at}: {error.strerror}",
            hint="name a table in a folder this user may write to",
        ) from error


def _create(args: argparse.Namespace) -> int:
    if not args.env.isascii() or not args.env.isalnum() or args.env.lower() != args.env:
        raise ConfigError(
            f"--env: found {shown(args.env)}, expected 1-12 lower-case letters or digits"
        )
    if len(args.env) > 12:
        raise ConfigError(f"--env: found {len(args.env)} characters, expected 1-12")
    scopes, life_s = args.scope or ["infer"], args.days * _DAY_S
    check_grant(args.tenant, scopes, life_s)  # before anything is written
    table = open_or_create(args.table, os.urandom, args.pepper)
    table, text, record = table.create(
        args.tenant, scopes, args.env, Clock().wall(), life_s, os.urandom
    )
    save_table(table, args.table)
    if args.json:
        _print_json({**_public(record), "key": text})
    else:
        sys.stdout.write(f"{text}\n")
        sys.stderr.write("Keep it now: it is not stored and cannot be shown again.\n")
    return EXIT_OK


def _list(args: argparse.Namespace) -> int:
    records = load_table(args.table, args.pepper).records.values()
    now = Clock().wall()
    if args.json:
        _print_json([{**_public(record), "live": _live(record, now)} for record in records])
        return EXIT_OK
    for record in records:
        state = "live" if _live(record, now) else "revoked" if record.revoked else "expired"
        days = max(0, record.expires - now) // _DAY_S
        scopes = ",".join(record.scopes)
        sys.stdout.write(f"{record.kid}  {state:<8} {days:>4} d  {scopes}  {record.tenant}\n")
    return EXIT_OK


def _revoke(args: argparse.Namespace) -> int:
    table = load_table(args.table, args.pepper).revoke(args.kid)
    save_table(table, args.table)
    if args.json:
        _print_json({"kid": args.kid, "revoked": True})
    else:
        sys.stdout.write(f"{args.kid} is revoked; running gateways stop taking it in seconds.\n")
    return EXIT_OK


def _live(record: KeyRecord, now: int) -> bool:
    return not record.revoked and now < record.expires


def _public(record: KeyRecord) -> dict[str, object]:
    """What may be shown of a key: never its digest."""
    return {
        "kid": record.kid,
        "tenant": record.tenant,
        "created": record.created,
        "expires": record.expires,
        "scopes": list(record.scopes),
        "revoked": record.revoked,
    }


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
