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
from attestation.signed_policy import sign_policy
from wire.errors import ConfigError
from wire.ids import b64u

from .cli_options import add_command, add_json, note
from .files import read_file, write_whole
from .report import EXIT_OK

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
    if args.file.exists():
        raise ConfigError(
            f"policy key: {args.file} exists, expected a new file",
            hint="name another file; policies signed with the old key need it",
        )
    key = Ed25519PrivateKey.generate()
    _write(args.file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = b64u(key.public_key().public_bytes_raw())
    if args.json:
        print(json.dumps({"file": str(args.file), "policy_key": public}, indent=2))
    else:
        print(public)
        note(f"private key in {args.file} (mode 0600): keep it away from gateways and clients")
    return EXIT_OK


def run_sign(args: argparse.Namespace) -> int:
    """0 signed, 4 not a policy, not a key, or a file that cannot be read or written."""
    policy = read_file(args.file, POLICY_MAX, "policy")
    key = _load(args.key)
    same = {args.file.resolve(), args.key.resolve()}
    if args.out.resolve() in same or (args.out.exists() and not args.force):
        raise ConfigError(
            f"--out {args.out}: the file exists, expected a new one",
            hint="name another file; --force replaces a signed policy, never the policy or the key",
        )
    _write(args.out, sign_policy(policy, args.keyid, key))
    public = b64u(key.public_key().public_bytes_raw())
    if args.json:
        print(json.dumps({"file": str(args.out), "policy_key": public}, indent=2))
    else:
        print(f"{args.out}: signed; it is checked with --policy-key {public}")
    return EXIT_OK


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


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}", hint="name a file in a folder of yours"
        ) from error
