"""`anchorhold proxy`: a local OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.errors import ConfigError

from .cli_options import (
    add_command,
    add_gateway,
    add_proofs,
    api_key,
    chosen_options,
    chosen_policy,
)
from .cli_terminal import note, one_line

if TYPE_CHECKING:
    import argparse

    from .proxy import Listener

EXAMPLES = """\
anchorhold proxy --url https://gateway.example --policy policy.json \\
  --key-file key.txt
anchorhold proxy --url http://127.0.0.1:8010 --policy policy.json \\
  --socket /run/user/1000/ah.sock"""
PORT = 8011


def register(commands: Any) -> None:
    """Add the command."""
    text = "serve OpenAI programs on this machine, sealed beyond it"
    parser = add_command(commands, "proxy", text, EXAMPLES)
    parser.add_argument("--url", required=True, help="the gateway")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"0 for a free one (default: {PORT})"
    )
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="a Unix socket instead of a port"
    )
    parser.add_argument("--receipts", type=Path, metavar="DIR", help="save every receipt here")
    add_gateway(parser)
    add_proofs(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("uvicorn") is None:
        raise ConfigError(
            "proxy: found no starlette or uvicorn", hint="pip install 'anchorhold[proxy]'"
        )
    from .async_transport import AsyncSealedTransport  # optional dependencies
    from .proxy import ProxyServer, listen_tcp, listen_unix, new_key

    options = chosen_options(args, receipts_dir=args.receipts)
    transport = AsyncSealedTransport(
        chosen_policy(args), base_url=args.url, api_key=api_key(args), options=options
    )
    key = new_key()
    unix = args.socket is not None
    listener = listen_unix(args.socket) if unix else listen_tcp(args.host, args.port)
    print(announcement(listener, key), flush=True)
    note("stop with Ctrl-C")
    asyncio.run(ProxyServer(transport, listener, key).serve())
    return 0


def announcement(listener: Listener, key: str) -> str:
    """What to paste; the key is shown this once and stored nowhere."""
    unix = "" if listener.path is None else one_line(f"--unix-socket {listener.path} ")
    return (
        f"OPENAI_BASE_URL={listener.url}\n"
        f"OPENAI_API_KEY={key}\n"
        f"# curl {unix}-H 'Authorization: Bearer {key}' \\\n"
        f"#   {listener.url}/models"
    )
