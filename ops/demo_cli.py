"""`anchorhold demo`."""

import argparse
import signal
from typing import Any

from client.cli_options import add_command
from wire.errors import ConfigError

from .demo import PROMPT, Demo, DemoOptions

EXAMPLES = """\
anchorhold demo                     start everything, chat once, stay up
anchorhold demo --once              the same, and stop after the answer
anchorhold demo --trust simulated   quotes from a software TPM (needs swtpm)
anchorhold demo --model ./my-llama  another local model folder"""
PORT_MAX = 65_534  # the proxy takes the next one
WORKERS_MAX = 8  # each holds the whole model in memory


def register(subparsers: Any) -> None:
    """Add the `demo` command."""
    text = "the whole service on this machine, one sealed chat and its proof"
    demo = add_command(subparsers, "demo", text, EXAMPLES)
    demo.add_argument("--once", action="store_true", help="exit after the answer")
    demo.add_argument(
        "--trust", choices=("software", "simulated"), default="software", help="kind of evidence"
    )
    demo.add_argument(
        "--model",
        default="smollm2",
        metavar="NAME|DIR",
        help="known model, or a local model folder",
    )
    demo.add_argument(
        "--port", type=int, default=8010, help="gateway port on loopback; the proxy takes the next"
    )
    demo.add_argument("--workers", type=int, default=1, help="worker processes")
    demo.add_argument("--prompt", default=PROMPT, help="what to ask")
    demo.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when the answer came and everything verified."""
    if not 1 <= arguments.port <= PORT_MAX:
        raise ConfigError(
            f"--port: found {arguments.port}, expected 1 to {PORT_MAX}",
            hint="choose one that is free: the proxy takes the next",
        )
    if not 1 <= arguments.workers <= WORKERS_MAX:
        raise ConfigError(
            f"--workers: found {arguments.workers}, expected 1 to {WORKERS_MAX}",
            hint="one is enough for a look; each holds the whole model in memory",
        )
    demo = Demo(
        DemoOptions(
            trust=arguments.trust,
            model=arguments.model,
            port=arguments.port,
            prompt=arguments.prompt,
            workers=arguments.workers,
        )
    )
    # Asked to end, it ends as on Ctrl-C: workers, gateway and folder go with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo.banner()
    with demo.service() as (stack, deployment, model):
        verified = demo.chat(stack, deployment, model)
        demo.banner()
        if not arguments.once:
            demo.stay(stack, deployment, model)
    return 0 if verified else 2
