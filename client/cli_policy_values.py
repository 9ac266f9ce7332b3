"""`anchorhold policy values FILE`: reference values of a CoRIM, to be copied into a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.jwks import parse_keys
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.reference_values import ReferenceValues, reference_values
from attestation.result import Reason
from attestation.schemes import SCHEMES
from attestation.verify.signing_key import load_key
from wire.errors import AttestationError, ConfigError, MalformedError, PolicyError

from .cli_options import add_command, add_json
from .cli_terminal import note, say
from .clock import wall_clock
from .files import read_file
from .report import EXIT_BELOW_POLICY, EXIT_INVALID, EXIT_OK, EXIT_UNREADABLE

if TYPE_CHECKING:
    import argparse

    from attestation.formats.jwks import Jwk

EXAMPLES = """\
anchorhold policy values release.corim --key publisher.jwk
anchorhold policy values module.comid --unsigned --json"""
CORIM_MAX: Final = 1024 * 1024
KEY_MAX: Final = 192 * 1024
_KIND: Final = "corim"
_MALFORMED: Final = "evidence_malformed"
_PEM: Final = b"-----BEGIN "
_PUBLIC: Final = b"-----BEGIN PUBLIC KEY-----"
_SIGNS: Final = (EllipticCurvePublicKey, Ed25519PublicKey)  # as `verify.corim` takes them


def register(actions: Any) -> None:
    """Add the command under `policy`."""
    text = "print the reference values of a CoRIM, for use in a policy"
    parser = add_command(actions, "values", text, EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="CoRIM or CoMID, CBOR")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--key", type=Path, metavar="FILE", help="publisher's public key: JWK, JWK set or PEM"
    )
    trust.add_argument(
        "--unsigned", action="store_true", help="take a manifest nobody signed: you vouch for it"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 imported, 2 not what it claims, 3 genuine but not to be imported, 4 unreadable."""
    raw = read_file(args.file, CORIM_MAX, "CoRIM")
    collateral = {}
    if args.key is not None:
        collateral["public_key"] = _publishers_key(args.key)
    now = wall_clock()
    examined = _examine(raw, collateral, now)
    reasons = list(examined.reasons)
    if not reasons:
        reasons = _judge(examined, now, signed=not args.unsigned)
    if not reasons:
        try:
            values = reference_values(examined.facts)
        except AttestationError as error:
            reasons = [Reason(code, error.message) for code in error.reasons or (error.code,)]
        else:
            _print(values, as_json=args.json)
            return EXIT_OK
    code = _exit_code(examined, {reason.code for reason in reasons})
    if args.json:
        found = [{"code": reason.code, "detail": reason.detail} for reason in reasons]
        print(json.dumps({"ok": False, "reasons": found, "exit_code": code}, indent=2))
    for reason in reasons:
        note(f"REFUSED ({reason.code}): {reason.detail}")
    note(f"hint: {_hint(args, {reason.code for reason in reasons})}")
    return code


def _publishers_key(path: Path) -> bytes:
    """A key set that could verify a manifest: another one says nothing against its publisher.

    Raises:
        ConfigError: it cannot be read, is none, or holds no key of a kind that signs manifests.
    """
    raw = read_file(path, KEY_MAX, "key")
    try:
        if raw.lstrip().startswith(_PEM) and not raw.lstrip().startswith(_PUBLIC):
            raise MalformedError("found PEM of something else, expected -----BEGIN PUBLIC KEY-----")
        keys = parse_keys(raw).keys
        if not any(map(_signs, keys)):
            what = "found no key" if not keys else "found no key of a kind that signs manifests"
            raise MalformedError(f"{what}, expected one of an elliptic curve or Ed25519")
    except MalformedError as error:
        raise ConfigError(
            f"key file {path}: {error.message}",
            hint="name the publisher's public key: a JWK, a JWK set, or one key in PEM",
        ) from error
    return raw


def _signs(jwk: Jwk) -> bool:
    try:
        return isinstance(load_key(jwk).key, _SIGNS)
    except AttestationError:
        return False


def _exit_code(examined: Examined, codes: set[str]) -> int:
    if _MALFORMED in codes:
        return EXIT_UNREADABLE  # nothing was read that could be anything
    return EXIT_INVALID if examined.authentic is False else EXIT_BELOW_POLICY


def _hint(args: argparse.Namespace, codes: set[str]) -> str:
    if _MALFORMED in codes:
        return "name a CoRIM or CoMID as its publisher gave it out, in CBOR"
    if args.key is None and not args.unsigned:
        return "name its publisher's key with --key, or vouch for it yourself with --unsigned"
    return "take nothing from it; ask its publisher for the manifest, and for the key that signs it"


def _examine(raw: bytes, collateral: dict[str, bytes], now: int) -> Examined:
    """A manifest or a lone module: the two have different outer forms, so both are tried."""
    examined = [
        SCHEMES[_KIND].examine(Question({role: raw}, NONE, now, collateral))
        for role in ("corim", "comid")
    ]
    return next((found for found in examined if found.facts is not None), examined[0])


def _judge(examined: Examined, now: int, *, signed: bool) -> list[Reason]:
    scheme = SCHEMES[_KIND]
    words = {} if signed else {"signed": "any"}
    rule = scheme.rule(Members(words, "import", optional=scheme.rule_keys[1], error=PolicyError))
    ledger = Ledger()
    scheme.judge(ledger, examined.facts, rule, now)
    return ledger.reasons


def _print(values: ReferenceValues, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "environment": value.environment,
                "key": value.key,
                "digests": {
                    name: [d.hex() for d in found] for name, found in value.digests.items()
                },
                "svn": value.svn,
                "svn_minimum": value.svn_minimum,
            }
            for value in values.values
        ]
        print(json.dumps({"values": rows, "left_out": list(values.left_out)}, indent=2))
        return
    for value in values.values:
        say(f"{value.environment}  {value.key or '-'}")
        for name, found in value.digests.items():
            for digest in found:
                say(f"  {name}  {digest.hex()}")
        if value.svn is not None:
            say(f"  svn {'≥' if value.svn_minimum else '='} {value.svn}")
    for part in values.left_out:
        note(f"left out: {part}")
