"""Console script of the SDK; in its wheel this is `anchorhold_start`, beside the package.

Loading the package takes half a second. An interrupt in that time must end the program without a
trace, and must not be lost inside somebody's import: until the command itself runs, the interrupt
keeps the system's own meaning. So this stands outside the package, whose own import is part of it.
"""

import signal


def main() -> None:
    """Load the command line, then run it."""
    # One that is ignored, as in the background of a script, stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from client.cli import main as run

    run()
