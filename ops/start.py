"""Console script of the server distribution.

Loading the modules of a command takes a second or two. An interrupt in that time must end the
program without a trace, and must not be lost inside somebody's import: until the command itself
runs, the interrupt keeps the system's own meaning.
"""

import signal


def main() -> None:
    """Load the command line, then run it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as run

    run()
