"""`anchorhold policy keygen FILE` and `policy sign FILE`: policies only their tenant can change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from attestation.policy import POLICY_MAX
from attestation.signed_policy import load_policy, sign_policy
from wire.errors import ConfigError, PolicyError
from wire.ids import b64u

from .cli_options import POLICY_KEY_OPTION, add_command, add_json
from .cli_terminal import note, one_line, say
from .files import make_file, read_file
from .report import EXIT_OK
from .session import mend_hint

if TYPE_CHECKING:
    import argparse

KEYGEN_EXAMPLES = "anchorhold policy keygen policy.key"
SIGN_EXAMPLES = """\
anchorhold policy sign policy.json --key policy.key --out policy.signed.json
anchorhold policy sign policy.json --key policy.key --keyid alice --out p.json"""
KEY_MAX: Final = 4096


def register(actions: Any) -> None:
    """Add the commands under `policy`."""
    text = "make a policy key and print its public half"
    keygen = add_command(actions, "keygen", text, KEYGEN_EXAMPLES)
    keygen.add_argument("file", type=Path, metavar="FILE", help="new key file; never overwritten")
    add_json(keygen)
    keygen.set_defaults(run=run_keygen)
    sign = add_command(actions, "sign", "sign a policy", SIGN_EXAMPLES)
    sign.add_argument("file", type=Path, metavar="FILE", help="policy file")
    sign.add_argument("--key", type=Path, metavar="FILE", required=True, help="policy key file")
    sign.add_argument("--keyid", default="policy", metavar="NAME", help="the key's name")
    sign.add_argument(
        "--out", type=Path, metavar="FILE", required=True, help="signed policy, written whole"
    )
    sign.add_argument("--force", action="store_true", help="replace a signed policy that is there")
    add_json(sign)
    sign.set_defaults(run=run_sign)


def run_keygen(args: argparse.Namespace) -> int:
    """0 made, 4 the file exists or cannot be written."""
    key = Ed25519PrivateKey.generate()
    while _public(key).startswith("-"):  # an option, as a command line reads it
        key = Ed25519PrivateKey.generate()
    make_file(
        args.file,
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "policy key",
        hint="name another file; policies signed with the old key need it",
    )
    public = _public(key)
    if args.json:
        print(json.dumps({"file": str(args.file), "policy_key": public}, indent=2))
    else:
        print(public)
        note(
            one_line(
                f"private key in {args.file} (mode 0600): keep it away from gateways and clients"
            )
        )
    return EXIT_OK


def run_sign(args: argparse.Namespace) -> int:
    """0 signed, 4 not a policy, not a key, or a file that cannot be read or written."""
    policy = read_file(args.file, POLICY_MAX, "policy")
    key = _load(args.key)
    public = key.public_key().public_bytes_raw()
    try:
        signed = sign_policy(policy, args.keyid, key)
    except PolicyError as error:
        error.hint = error.hint or mend_hint(args.file)
        raise
    try:
        load_policy(signed, (public,))
    except PolicyError as error:  # the name of the key is all that is new
        raise ConfigError(
            f"--keyid: {error.message}", hint="name the key with a few plain characters"
        ) from error
    if args.force and any(_same(args.out, path) for path in (args.file, args.key)):
        raise ConfigError(
            f"--out {args.out}: found the policy or the key, expected another file",
            hint="name another file; --force replaces a signed policy, never the policy or the key",
        )
    make_file(
        args.out,
        signed,
        "signed policy",
        hint="name another file, or replace this one with --force",
        replace=args.force,
    )
    if args.json:
        print(json.dumps({"file": str(args.out), "policy_key": b64u(public)}, indent=2))
    else:
        say(one_line(f"{args.out}: signed; it is checked with {POLICY_KEY_OPTION}={b64u(public)}"))
    return EXIT_OK


def _public(key: Ed25519PrivateKey) -> str:
    return b64u(key.public_key().public_bytes_raw())


def _load(path: Path) -> Ed25519PrivateKey:
    raw = read_file(path, KEY_MAX, "policy key")
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"policy key {path}: found no Ed25519 private key, expected one in PEM",
            hint="`anchorhold policy keygen FILE` makes one",
        )
    return key


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # one of them is not there
