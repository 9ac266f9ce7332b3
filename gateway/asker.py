"""For whom something is done that costs others: a link, and the process at its other end.

Nobody is known before admission, so what strangers may spend is shared out by what they cannot
make without end at no cost: connections, and processes that hold them.
"""

import socket
import struct
from dataclasses import dataclass

#: pid, uid and gid, as the kernel states them.
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose doing it is.

    Attributes:
        link: number of the connection.
        peer: process that made the connection; 0 where the system does not say.
    """

    link: int
    peer: int = 0


def peer_of(found: object) -> int:
    """Process id of whoever connected this Unix socket; 0 where the system does not say.

    Args:
        found: a transport's socket, or None.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    ask = getattr(found, "getsockopt", None)
    if option is None or ask is None:
        return 0
    try:
        pid, _, _ = _CREDENTIALS.unpack(ask(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    except (OSError, struct.error):
        return 0
    return int(pid)
