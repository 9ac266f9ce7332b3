"""The Unix socket workers connect to, live challenges, and what happens as time passes."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wire.errors import ConfigError, UnavailableError
from wire.ids import b64u

from .asker import Asker, peer_of
from .descriptors import links_max
from .link import Link
from .live_answer import LiveAnswer
from .outbound import Outbound
from .roster import Roster
from .strangers import Strangers
from .turns import Turns

#: The longest path the kernel takes for a Unix socket.
_PATH_MAX = 107
_BACKLOG = 128
#: Time for a worker to attest over a client's nonce, in seconds.
CHALLENGE_TIMEOUT_S = 30.0
#: Large messages of admitted workers parsed at once: strangers keep none of these places.
READERS = 2


class Workers:
    """Accepts workers. The socket is this user's only (mode 0600); evidence decides the rest."""

    def __init__(self, roster: Roster, path: Path, rng: Callable[[int], bytes]) -> None:
        """Prepare; `open` starts to listen."""
        self._roster = roster
        self._path = path
        self._rng = rng
        self._links: set[Link] = set()
        self._strangers = Strangers()
        self._reading = Turns(READERS)
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._most = links_max()

    async def open(self) -> None:
        """Listen.

        Raises:
            ConfigError: the socket cannot be made, or another process listens on it.
        """
        sock = await asyncio.to_thread(bind_private, self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is None:
            return  # never opened: the path is not ours to remove
        self._server.close()
        self._roster.end_all()
        for link in list(self._links):
            link.end("stopped")
        for _ in range(200):
            if not self._links:
                break
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def challenge(
        self,
        wid: str,
        bh: bytes,
        nonce: str,
        credential: dict[str, Any] | None,
        within_s: float = CHALLENGE_TIMEOUT_S,
    ) -> LiveAnswer:
        """Ask a worker for live evidence over a client's nonce.

        Args:
            wid: the worker's name.
            bh: the binding the client has seen.
            nonce: 32 bytes, base64url.
            credential: a credential challenge for the worker's TPM, or None.
            within_s: how long it may take.

        Returns:
            What it showed. Its form is all that is checked here: the client made the nonce, and
            the client judges.

        Raises:
            UnavailableError: no such worker is connected, it is busy, or it did not answer.
            MalformedError: its answer is not of its form.
        """
        for link in self._links:
            session = link.session
            # One that ended is here until its end is in the log; its worker may be back by then.
            if link.ended is not None or session is None or session.wid != wid:
                continue
            if all(epoch.bh != bh for epoch in session.epochs):
                continue
            question = {"wid": wid, "nonce": nonce, "bh": b64u(bh), "credential": credential}
            return await link.challenge(question, within_s)
        raise UnavailableError("no worker of this name and binding is connected")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        free = self._most - sum(link.ended is None for link in self._links)
        if not self._strangers.has_room(peer, free):
            writer.close()
            return
        asker = Asker(next(self._numbers), peer)
        link = Link(
            self._roster,
            Outbound(writer),
            self._rng(32),
            asker,
            self._strangers,
            self._reading,
        )
        self._links.add(link)
        try:
            await link.run(reader)
        finally:
            self._links.discard(link)


def bind_private(path: Path) -> socket.socket:
    """A Unix socket at `path`, mode 0600 before anybody can connect.

    Raises:
        ConfigError: the path is too long, in use by a living process, or cannot be made.
    """
    if len(str(path).encode()) > _PATH_MAX:
        raise ConfigError(
            f"worker_socket: path of at most {_PATH_MAX} bytes expected, found"
            f" {len(str(path).encode())}",
            hint="set worker_socket to a shorter path",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_socket():
            _remove_stale(path)
        sock.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen()
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"worker_socket: cannot listen at {path}: {error.strerror}") from error
    except ConfigError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket nobody listens on; one that answers belongs to another gateway."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise ConfigError(
        f"worker_socket: another process listens at {path}",
        hint="stop the other gateway, or set worker_socket to another path",
    )
