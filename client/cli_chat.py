"""`anchorhold chat`: one sealed chat answer on standard output, its proof on standard error."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.errors import ConfigError
from wire.limits import BODY_MAX

from .api import Client
from .cli_options import (
    add_command,
    add_gateway,
    add_proofs,
    api_key,
    chosen_options,
    chosen_policy,
    trust_line,
)
from .cli_terminal import note, one_line, printable
from .files import check_free
from .opening import OPENING
from .receipts import RECEIPT

if TYPE_CHECKING:
    import argparse

    from .receipts import Receipt

EXAMPLES = """\
anchorhold chat --url http://127.0.0.1:8010 --policy policy.json \\
  --model smollm2 "Why is the sky blue?"
anchorhold chat --url https://gateway.example --key-file key.txt \\
  --model smollm2 < question.txt"""

_RECEIPT = ("--receipt", RECEIPT)
_OPENING = ("--opening", OPENING)


def register(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "chat", "ask one question, sealed and verified", EXAMPLES)
    parser.add_argument("prompt", nargs="?", help="the question (default: standard input)")
    parser.add_argument("--url", required=True, help="the gateway")
    parser.add_argument("--model", required=True, help="a model the policy accepts")
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 for the likeliest words")
    parser.add_argument("--seed", type=int, metavar="N", help="repeatable sampling")
    parser.add_argument(
        "--no-stream", action="store_true", help="print the answer when it is whole"
    )
    parser.add_argument(
        "--receipt", type=Path, metavar="FILE", help="save the receipt in this new file"
    )
    parser.add_argument(
        "--opening",
        type=Path,
        metavar="FILE",
        help="save what opens the receipt in this new file: question and answer in clear",
    )
    add_gateway(parser)
    add_proofs(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the answer was verified to its end."""
    parameters = {
        name: value
        for name in ("max_tokens", "temperature", "seed")
        if (value := getattr(args, name)) is not None
    }
    messages = [{"role": "system", "content": args.system}] if args.system else []
    messages.append({"role": "user", "content": args.prompt or _stdin()})
    for path, option, what in ((args.receipt, *_RECEIPT), (args.opening, *_OPENING)):
        if path is not None:
            _check_can_be_kept(path, option, what)
    options = chosen_options(args)
    with Client(args.url, api_key(args), policy=chosen_policy(args), options=options) as client:
        if args.no_stream:
            result = client.chat(messages, args.model, **parameters)
            note(trust_line(result.trust))
            print(_shown(result.text))
            _prove(result.receipt, args)
            return 0
        with client.chat(messages, args.model, stream=True, **parameters) as stream:
            note(trust_line(stream.trust))
            try:
                for delta in stream:
                    sys.stdout.write(_shown(delta.text))
                    sys.stdout.flush()
            finally:
                sys.stdout.write("\n")
                sys.stdout.flush()
                if not stream.complete:
                    note("INCOMPLETE: the text above has no verified end")
            _prove(stream.receipt, args)
    return 0


def _check_can_be_kept(path: Path, option: str, what: str) -> None:
    """Before anything is sent, while another name can still be chosen."""
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option}: found no folder {folder} that can be written, expected one",
            hint=f"nothing was sent: {_article(what)} that cannot be kept is not asked for",
        )
    check_free(path, what, hint="nothing was sent: name another file, none is replaced")


def _article(what: str) -> str:
    return f"{'an' if what == OPENING else 'a'} {what}"


def _prove(receipt: Receipt, args: argparse.Namespace) -> None:
    note(
        f"receipt verified: {len(receipt.checks)} checks, entry {receipt.index} of a log of "
        f"{receipt.log_size}, trust={receipt.trust}"
    )
    if args.receipt is not None:
        note(one_line(f"receipt saved: {receipt.save(args.receipt)}"))
    if args.opening is not None:
        note(one_line(f"opening saved (it is content): {receipt.opening.save(args.opening)}"))


def _shown(text: str) -> str:
    """Model output may hold anything; a terminal gets no control characters from it."""
    return printable(text) if sys.stdout.isatty() else text


def _stdin() -> str:
    if sys.stdin.isatty():
        note("type the question, then Ctrl-D")
    text = sys.stdin.read(BODY_MAX).strip()
    if not text:
        raise ConfigError("prompt: found none", hint="give it as an argument or on standard input")
    return text
