"""`anchorhold collateral fetch|list|export|import`: what vendors sign, kept and carried.

Where vendors are asked is the services file's to say; no evidence and no key can name an address.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import Anchors
from attestation.collateral.bundle import (
    BUNDLE_MAX,
    Rejected,
    admit_bundle,
    parse_bundle,
    write_bundle,
)
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import obtain, resolve
from attestation.collateral.store import Store
from attestation.collateral.vendors import VENDOR_ROOTS, Vendors
from attestation.collateral.view import rests_on, witnesses
from attestation.collateral_key import CollateralKey, parse_key
from attestation.formats.pem import certificates
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

from .cli_options import add_command, add_json
from .cli_terminal import note, one_line, say
from .clock import utc_text, wall_clock
from .collateral_inputs import further_keys, needed_keys, read_services
from .files import existing_folder, is_absent, make_file, read_file
from .report import EXIT_BELOW_POLICY, EXIT_INVALID, EXIT_OK, EXIT_UNREADABLE
from .state import default_state_dir

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from attestation.collateral.entry import Entry
    from attestation.collateral.resolve import Resolved
    from attestation.scheme import Need

FETCH: Final = """\
anchorhold collateral fetch evidence.json
anchorhold collateral fetch --key amd-kds:chain/vcek/Genoa
anchorhold collateral fetch evidence.json --services services.toml --json"""
LIST: Final = """\
anchorhold collateral list --json
anchorhold collateral list --cache-dir /var/lib/anchorhold/collateral"""
EXPORT: Final = """\
anchorhold collateral export bundle.json
anchorhold collateral export bundle.json --key intel-pcs:qe/tdx"""
IMPORT: Final = """\
anchorhold collateral import bundle.json
anchorhold collateral import bundle.json --cache-dir /var/lib/anchorhold"""
ROOT_MAX: Final = 64 * 1024
PROGRESS_AFTER_S: Final = 2.0
# A policy may trust an entry for less time than the entry itself names (`collateral_max_age_s`), so
# whoever asks for a fetch gets a newer one; within minutes, one answer does for several commands.
FETCH_AGAIN_S: Final = 300
# Genuine but no longer in force, or overtaken: not an attack by itself.
_OUTDATED: Final = frozenset({"collateral_expired", "collateral_rollback", "crl_expired"})
_ABSENT: Final = frozenset({"collateral_missing", "collateral_unavailable"})
_HINTS: Final = {
    EXIT_INVALID: "use none of what was refused: another sender than the vendor may have made it",
    EXIT_BELOW_POLICY: "ask again later: what came is no longer in force, or older than before",
    EXIT_UNREADABLE: "check the network and the services file, or import a bundle",
}


def register(commands: Any) -> None:
    """Add the commands."""
    text = "keep and carry what vendors sign about their hardware"
    collateral = add_command(commands, "collateral", text, FETCH)
    actions = collateral.add_subparsers(dest="action", required=True, metavar="ACTION")

    parser = add_command(actions, "fetch", "fetch what evidence or keys name", FETCH)
    parser.add_argument(
        "evidence",
        type=Path,
        nargs="*",
        metavar="EVIDENCE",
        help="worker document, receipt bundle, or evidence items",
    )
    _add_keys(parser, "fetch this key, SOURCE:KEY; repeatable")
    parser.add_argument(
        "--services", type=Path, metavar="FILE",
        help="TOML file of the vendors' addresses (default: the vendors' own)",
    )  # fmt: skip
    _add_rest(parser, fetch, roots=True)

    parser = add_command(actions, "list", "list what is in the cache", LIST)
    _add_rest(parser, show, roots=False)

    parser = add_command(actions, "export", "write what is in force into a bundle", EXPORT)
    parser.add_argument("file", type=Path, metavar="FILE", help="bundle to write")
    _add_keys(parser, "only this key, SOURCE:KEY; repeatable (default: everything)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    _add_rest(parser, export, roots=False)

    parser = add_command(actions, "import", "check a bundle and keep what passes", IMPORT)
    parser.add_argument("file", type=Path, metavar="FILE", help="bundle to read")
    _add_rest(parser, take_in, roots=True)


def fetch(args: argparse.Namespace) -> int:
    """0 all is there, 2 something was refused, 3 only outdated, 4 something cannot be had."""
    return fetch_into(_store(args), args)


def fetch_into(store: Store, args: argparse.Namespace) -> int:
    """The same, into this store."""
    keys = [parse_name(name) for name in args.key or ()]
    for path in args.evidence:
        keys += needed_keys(path)
    if not keys:
        raise ConfigError(
            "collateral fetch: found nothing to fetch, expected evidence or keys",
            hint="name evidence files that need collateral, or keys with --key",
        )
    services, now = read_services(args.services), wall_clock()
    vendors = Vendors(services, secrets.token_bytes, _anchors(args))
    kept: dict[CollateralKey, Entry] = {}
    refused: dict[CollateralKey, Rejected] = {}
    unwritten: dict[CollateralKey, str] = {}

    def obtain_all(keys: Iterable[CollateralKey]) -> None:
        stored = list(dict.fromkeys(part for key in keys for part in rests_on(key)))
        wanted = [key for key in stored if key not in kept and key not in refused]
        step = _progress(len(wanted), "entries fetched")
        for number, key in enumerate(wanted, 1):
            try:
                entry = obtain(key, store, vendors, fetcher, now, max_age_s=FETCH_AGAIN_S)
                if entry.passing:
                    detail = "OCSP answer: the responder does not know the certificate"
                    refused[key] = Rejected(key, "revocation_unknown", detail)
                elif (cause := store.unwritten(key)) is not None:
                    refused[key] = Rejected(key, "collateral_unavailable", cause.words)
                    unwritten[key] = cause.words
                elif not store.keeps(entry, now):
                    detail = "it cannot be written"
                    refused[key] = Rejected(key, "collateral_unavailable", detail)
                else:
                    kept[key] = entry
            except AttestationError as error:
                code = (error.reasons or (error.code,))[0]
                refused[key] = Rejected(key, code, error.diagnostics())
            except MalformedError as error:
                refused[key] = Rejected(key, "collateral_malformed", error.message)
            except UnavailableError as error:
                refused[key] = Rejected(key, "collateral_unavailable", error.diagnostics())
            step(number)

    def at_hand(needs: Sequence[Need]) -> Resolved:
        return resolve(needs, store, vendors, None, now)

    with HttpFetcher(services) as fetcher:
        obtain_all(keys)
        # Manifests name the certificates of their signers, which answers are asked about.
        obtain_all(key for path in args.evidence for key in further_keys(path, at_hand))
    return _report(args, list(kept.values()), list(refused.values()), "in the cache", unwritten)


def show(args: argparse.Namespace) -> int:
    """0, with whatever is there; 4 where the cache cannot be read."""
    now, store = wall_clock(), _kept_store(args)
    entries = tuple(store.entries(now))
    if args.json:
        print(json.dumps({"ok": True, "entries": [_row(e, now) for e in entries]}, indent=2))
    else:
        for entry in entries:
            state = "in force" if entry.expires > now else "ended   "
            say(f"{state}  {entry.key}")
            say(f"          {len(entry.piece.body)} bytes, until {utc_text(entry.expires)}")
        say(one_line(f"{counted(len(entries))} in {store.root}"))
    return EXIT_OK


def export(args: argparse.Namespace) -> int:
    """0 written, 4 nothing to write or nowhere to write it."""
    now, path = wall_clock(), args.file
    named = {part for name in args.key or () for part in rests_on(parse_name(name))}
    # Whoever imports it checks signatures with the chains above.
    in_force = [entry for entry in _kept_store(args).entries(now) if entry.expires > now]
    held = {entry.key for entry in in_force}
    wanted = set(named)
    for key in named:
        above = witnesses(key)
        if above and not named.intersection(above):
            wanted.add(next((each for each in above if each in held), above[0]))
    entries = [entry for entry in in_force if not wanted or entry.key in wanted]
    lacking = sorted(wanted - {entry.key for entry in entries})
    if lacking or not entries:
        what = f"{lacking[0]}" if lacking else "any entry"
        raise ConfigError(
            f"collateral export: found nothing in force for {what}",
            hint="fetch it first, with anchorhold collateral fetch",
        )
    data = write_bundle(entries, now)
    if len(data) > BUNDLE_MAX:
        raise ConfigError(
            f"collateral export: found {len(data)} bytes, expected at most {BUNDLE_MAX}",
            hint="export some of the keys with --key",
        )
    make_file(
        path,
        data,
        "bundle",
        hint="name another file, or replace this one with --force",
        replace=args.force,
    )
    return _report(args, entries, [], "exported")


def take_in(args: argparse.Namespace) -> int:
    """0 all kept, 2 something was refused, 3 only outdated, 4 not a bundle."""
    raw = read_file(args.file, BUNDLE_MAX, "bundle")
    now = wall_clock()
    try:
        carried = parse_bundle(raw, now)
    except MalformedError as error:
        raise ConfigError(
            f"bundle file {args.file}: {error.message}",
            hint="name a file that anchorhold collateral export wrote, unaltered",
        ) from error
    # Nothing is asked here, so the addresses do not matter.
    vendors = Vendors(read_services(None), secrets.token_bytes, _anchors(args))
    step = _progress(len(carried), "entries checked")
    kept, refused = admit_bundle(carried, vendors, _store(args), now, step)
    return _report(args, kept, refused, "imported")


def parse_name(name: str) -> CollateralKey:
    """A key as typed.

    Raises:
        ConfigError: it is none.
    """
    try:
        return parse_key(name)
    except MalformedError as error:
        raise ConfigError(
            error.message, hint="for example intel-pcs:qe/tdx or amd-kds:chain/vcek/Genoa"
        ) from error


def _add_keys(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--key", action="append", metavar="KEY", help=text)


def _add_rest(parser: argparse.ArgumentParser, run: Any, *, roots: bool) -> None:
    if roots:
        parser.add_argument(
            "--root", type=Path, action="append", metavar="FILE",
            help="trust this root instead of the vendors' (for simulators)",
        )  # fmt: skip
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="where it is kept (default: ~/.local/state/anchorhold/collateral)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def _store(args: argparse.Namespace) -> Store:
    return Store(args.cache_dir or default_state_dir() / "collateral")


def _kept_store(args: argparse.Namespace) -> Store:
    """The cache, which must be there: an empty list of what cannot be read would say otherwise."""
    store = _store(args)
    hint = "name the folder with --cache-dir; anchorhold collateral fetch or import makes one"
    if args.cache_dir is not None or not is_absent(store.root):
        existing_folder(store.root, "collateral cache", hint)
        if not is_absent(store.root / "entries"):
            existing_folder(store.root / "entries", "collateral cache", hint)
    return store


def _anchors(args: argparse.Namespace) -> Anchors:
    if not args.root:
        return VENDOR_ROOTS
    pins: set[bytes] = set()
    for path in args.root:
        try:
            found = certificates(read_file(path, ROOT_MAX, "root"), "root")
        except MalformedError as error:
            raise ConfigError(
                f"root file {path}: {error.message}", hint="name a file of certificates in PEM"
            ) from error
        pins.update(sha256(der).digest() for der in found)
    return Anchors(frozenset(pins), simulated=True)


def _progress(total: int, what: str) -> Any:
    started = time.monotonic()

    def step(number: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - started > PROGRESS_AFTER_S:
            end = "\n" if number == total else ""
            print(f"\r{number} of {total} {what}", end=end, file=sys.stderr, flush=True)

    return step


def _row(entry: Entry, now: int) -> dict[str, Any]:
    return {
        "key": str(entry.key),
        "bytes": len(entry.piece.body),
        "sha256": sha256(entry.piece.body).hexdigest(),
        "fetched_at": entry.fetched_at,
        "expires": entry.expires,
        "in_force": entry.expires > now,
    }


def counted(number: int) -> str:
    """So many entries, in words."""
    return f"{number} {'entry' if number == 1 else 'entries'}"


def _report(
    args: argparse.Namespace,
    kept: Iterable[Entry],
    refused: Sequence[Rejected],
    done: str,
    unwritten: Mapping[CollateralKey, str] = MappingProxyType({}),
) -> int:
    """Say what came of it; `unwritten` has what to do where the cache's disk is at fault."""
    codes = {item.code for item in refused}
    code = EXIT_OK
    if codes:
        code = EXIT_INVALID
        if codes <= _ABSENT | _OUTDATED:
            code = EXIT_UNREADABLE if codes & _ABSENT else EXIT_BELOW_POLICY
    hints = [_HINTS[code]] if codes else []
    if code == EXIT_UNREADABLE:
        hints = list(dict.fromkeys(unwritten.get(r.key, _HINTS[code]) for r in refused))
    now, entries = wall_clock(), tuple(kept)
    if args.json:
        rows = [{"key": str(r.key), "code": r.code, "detail": r.detail} for r in refused]
        document = {"ok": code == EXIT_OK, "entries": [_row(e, now) for e in entries]}
        document |= {"error": _error(refused[0], hints[0])} if refused else {}
        print(json.dumps(document | {"refused": rows, "exit_code": code}, indent=2))
        _note_lacking(hints)
        return code
    for entry in entries:
        say(f"ok    {entry.key}")
        say(f"      {len(entry.piece.body)} bytes, until {utc_text(entry.expires)}")
    for item in refused:
        say(f"FAIL  {item.key}")
        say(f"      {item.code}: {item.detail}".replace("\n", "\n      "))
    say(f"{counted(len(entries))} {done}" + (f", {len(refused)} not" if refused else ""))
    _note_lacking(hints)
    return code


def _error(first: Rejected, hint: str) -> dict[str, str]:
    found = first.detail.splitlines()[0]  # below it is the service's own hint
    return {"code": first.code, "message": f"{first.key}: {found}", "hint": hint}


def _note_lacking(hints: Sequence[str]) -> None:
    if hints:
        note("not all of the collateral is there; evidence that needs the rest is refused")
    for hint in hints:
        note(f"hint: {hint}")
