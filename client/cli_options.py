"""Arguments and output that several commands share. Secrets come by file or environment only."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wire.errors import ConfigError, MalformedError
from wire.ids import unb64u

from .clock import wall_clock
from .files import read_file
from .policy_memory import admit_policy
from .session import Options, load_policy
from .state import default_state_dir

if TYPE_CHECKING:
    from attestation.policy import Policy
    from attestation.result import Trust

KEY_ENV: Final = "ANCHORHOLD_API_KEY"
POLICY_ENV: Final = "ANCHORHOLD_POLICY"
POLICY_KEY_ENV: Final = "ANCHORHOLD_POLICY_KEY"
POLICY_KEY_OPTION: Final = "--policy-key"
KEY_FILE_MAX: Final = 4096
MARKS: Final = {True: "ok  ", False: "FAIL", None: "----"}
# One rule for every command: 2 and 3 are verdicts on what was checked, 4 is no verdict at all.
EXITS: Final = """\
exit codes: 0 ok, 2 invalid, 3 below policy, 4 unreadable or usage,
            130 interrupted, 1 a defect of ours"""
# What each level is worth, said wherever it is shown.
MEANING: Final[dict[str, str]] = {
    "hardware": "a vendor's hardware vouches for the worker",
    "vtpm": "a TPM whose maker or key the policy calls real; no CPU report",
    "simulated": "SIMULATED: a simulated vendor or software TPM vouches; its operator could have "
    "read everything",
    "software": "SOFTWARE: no hardware vouches; the worker's operator could have read everything",
}


def add_command(
    commands: Any, name: str, text: str, examples: str, exits: str = EXITS
) -> argparse.ArgumentParser:
    """A sub-command whose help ends with examples and exit codes.

    Args:
        commands: what `add_subparsers` returned.
        name: the word that chooses it.
        text: what it does, in the list of commands and atop its own help.
        examples: command lines, each at most 78 columns.
        exits: its exit codes, likewise.
    """
    shown = "".join(f"  {line}\n" for line in examples.splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"examples:\n{shown}\n{exits}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_policy(parser: argparse.ArgumentParser) -> None:
    """`--policy FILE`."""
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        default=os.environ.get(POLICY_ENV) or None,
        help=f"the tenant's policy (default: ${POLICY_ENV})",
    )
    add_policy_key(parser)


def add_policy_key(parser: argparse.ArgumentParser) -> None:
    """`--policy-key KEY`."""
    parser.add_argument(
        POLICY_KEY_OPTION,
        metavar="KEY",
        default=os.environ.get(POLICY_KEY_ENV) or None,
        help=f"public key that must have signed the policy (default: ${POLICY_KEY_ENV})",
    )


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """What every command that talks to a gateway takes."""
    add_policy(parser)
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the API key (default: ${KEY_ENV}); never given as an argument",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where it is remembered what was seen (default: ~/.local/state/anchorhold)",
    )
    add_collateral(parser)


def add_proofs(parser: argparse.ArgumentParser) -> None:
    """`--live` and `--strict`."""
    parser.add_argument(
        "--live",
        action="store_true",
        help="ask every worker for evidence over a fresh nonce",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="also have every worker prove that it holds its key; implies --live",
    )


def add_collateral(parser: argparse.ArgumentParser) -> None:
    """`--collateral-dir DIR`."""
    parser.add_argument(
        "--collateral-dir",
        type=Path,
        metavar="DIR",
        help="judge hardware evidence with this folder's collateral alone",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def policy_keys(args: argparse.Namespace) -> tuple[bytes, ...]:
    """The key that must have signed the policy, if one is given.

    Raises:
        ConfigError: not an Ed25519 public key in base64url.
    """
    if args.policy_key is None:
        return ()
    try:
        return (unb64u(args.policy_key, 32),)
    except MalformedError:
        raise ConfigError(
            f"policy key: found {len(args.policy_key)} characters, "
            "expected the 43 base64url characters of an Ed25519 public key",
            hint="`anchorhold policy keygen` prints it",
        ) from None


def chosen_policy(args: argparse.Namespace) -> Policy:
    """The policy named by option or environment, its signature checked where a key is given.

    A command with a state folder also remembers a signed policy there, and refuses an older one.

    Raises:
        ConfigError: none is named, its file cannot be read, or the memory not be used.
        PolicyError: not a policy, not signed as it must be, or older than one seen before.
    """
    keys = policy_keys(args)
    policy = load_policy(_policy_path(args), keys)
    if hasattr(args, "state_dir"):
        for key in keys:
            admit_policy(policy, key, args.state_dir or default_state_dir(), wall_clock())
    return policy


def chosen_options(args: argparse.Namespace, **more: Any) -> Options:
    """What `add_gateway` and `add_proofs` let people choose; `more` are further options."""
    return Options(
        state_dir=args.state_dir,
        live=args.live,
        strict=args.strict,
        collateral_dir=args.collateral_dir,
        **more,
    )


def _policy_path(args: argparse.Namespace) -> Path:
    if args.policy is None:
        raise ConfigError(
            "policy: found none",
            hint=f"name the tenant's policy file with --policy or ${POLICY_ENV}",
        )
    return Path(args.policy)


def api_key(args: argparse.Namespace) -> str | None:
    """The tenant credential, from the file or the environment.

    Raises:
        ConfigError: the file cannot be read.
    """
    path: Path | None = args.key_file
    if path is None:
        return os.environ.get(KEY_ENV) or None
    try:
        return read_file(path, KEY_FILE_MAX, "key").decode("ascii").strip()
    except UnicodeDecodeError as cause:
        raise ConfigError(
            f"key file {path}: found no ASCII text, expected an API key",
            hint="name the file that holds it with --key-file",
        ) from cause


def trust_line(trust: Trust | str | None) -> str:
    """The line that names the trust level and what it is worth."""
    if trust is None:
        return "trust=none: nothing was accepted"
    return f"trust={trust}: {MEANING[trust]}"
