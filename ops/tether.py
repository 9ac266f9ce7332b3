"""The gateway of a stack, tied to whoever started it.

A starter that is killed cannot stop its children, and a gateway left behind holds the port, the
folder and the tenants' sockets. So it reads its standard input, a pipe only the starter can write
to: when that ends, the starter is gone, and the gateway stops as on SIGTERM.
"""

import os
import signal
import sys
import threading

#: Run by the same interpreter and packages as this process, whatever is on PATH.
TETHERED = "from ops.tether import main; main()"
_CHUNK = 4096


def main() -> None:
    """Run the command line until it ends or the starter does."""
    threading.Thread(target=_watch, name="tether", daemon=True).start()
    from .cli import main as run

    run()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), _CHUNK):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
