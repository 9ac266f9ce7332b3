"""The log's one writer: orders events, makes them durable in groups, signs heads, proves entries.

`append` is awaited on any event loop; its future resolves only after COMMIT returned, so an answer
that carries a `Logged` carries something a power cut cannot take back. One thread owns the store.
Whatever goes wrong there, an fsync error above all, stops the log: everything pending fails, and
every later append is refused until a restart has re-read the file (fail closed). Proofs and
checkpoints come from memory and may be read from any thread at any time.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.errors import ForkError, MalformedError, UnavailableError

from .anchor import Anchor
from .checkpoint import Checkpoint, sign_checkpoint
from .entry import Logged
from .events import Source, stamp
from .leaf import BLIND_LEN, public_leaf, read_public_leaf
from .merkle import leaf_hash
from .note import NoteSigner
from .recovery import Head, recover
from .store_sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from .merkle import MerkleTree

BATCH_MAX: Final = 256  # bounds how much one failed commit can take with it
LINGER_S: Final = 0.002  # half an fsync: worth waiting for company, not worth noticing
ANCHOR_EVERY_S: Final = 1.0  # a second copy of the head costs an fsync of its own


@dataclass(slots=True)
class _Append:
    event: bytes
    blind: bytes
    reply: _Reply


@dataclass(slots=True)
class _Read:
    index: int
    reply: _Reply


class _Reply:
    """A future on somebody's event loop, answered from the writer thread."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Logged] = self.loop.create_future()


class Log:
    """An append-only log in one file. Make it with `open`, end it with `close`."""

    def __init__(
        self,
        store: SqliteStore,
        tree: MerkleTree,
        head: Head,
        signer: NoteSigner,
        source: Source,
        anchor: Anchor | None,
        rng: Callable[[int], bytes],
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._tree = tree
        self._head = head
        self._signer = signer
        self._source = source
        self._anchor = anchor
        self._anchored = 0.0
        self._company = False
        self._rng = rng
        self._clock = clock
        self._stopped: str | None = None
        self._queue: queue.SimpleQueue[_Append | _Read | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="evidence-log", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        origin: str,
        signing_key: Ed25519PrivateKey,
        *,
        role: str = "gateway",
        anchor: Path | None = None,
        rng: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], int] | None = None,
    ) -> Log:
        """Open or create the log at `path`, refusing one that changed behind our back.

        The steps are those of `recovery.recover`, on a file only this process has open.

        Args:
            path: the database file; its folder must exist.
            origin: name of the log, in every checkpoint.
            signing_key: Ed25519 key of the log, used for nothing else.
            role: written as the source of every event.
            anchor: file for the rollback anchor, best on another volume; None keeps none.
            rng, clock: randomness, and milliseconds UTC.

        Raises:
            ConfigError: not a usable file, or another origin or key.
            RollbackError: entries are missing.  ForkError: entries differ from what was signed.
        """
        signer = NoteSigner(origin, signing_key)
        second = Anchor(anchor) if anchor is not None else None
        store = SqliteStore(path)
        try:
            tree, head = recover(store, signer, second)
        except BaseException:
            store.close()
            raise
        source = Source(role, origin, rng(16))
        return cls(store, tree, head, signer, source, second, rng, clock or _wall_clock)

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._signer.key.name

    @property
    def vkey(self) -> str:
        """The verifier key string a policy pins."""
        return self._signer.vkey

    @property
    def size(self) -> int:
        """Number of durable entries."""
        return self._head.checkpoint.size

    @property
    def stopped(self) -> str | None:
        """Why the log takes no more entries, or None while it does."""
        return self._stopped

    async def append(self, event_type: str, body: Mapping[str, Any]) -> Logged:
        """Write one event; returns once it is durable.

        Raises:
            MalformedError: the body does not fit its type; nothing was written.
            UnavailableError: the log stopped; the event may or may not be in it.
        """
        event = stamp(event_type, body, eid=self._rng(16), ts=self._clock(), source=self._source)
        reply = _Reply()
        self._submit(_Append(event, self._rng(BLIND_LEN), reply))
        return await reply.future

    async def entry(self, index: int) -> Logged:
        """An entry written earlier, with a proof to the present head."""
        if not 0 <= index < self.size:
            raise _range(f"index below {self.size} expected, found {index}")
        reply = _Reply()
        self._submit(_Read(index, reply))
        return await reply.future

    def checkpoint(self) -> str:
        """The newest signed head, as a note."""
        return self._head.note

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Path of leaf `index` in the tree of `size` leaves."""
        if not 0 <= index < size <= self.size:
            raise _range(f"index < size <= {self.size} expected, found {index} and {size}")
        return self._tree.inclusion(index, size)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """Proof that the first `first` leaves are a prefix of the first `second`."""
        if not 0 <= first <= second <= self.size:
            raise _range(f"first <= second <= {self.size} expected, found {first} and {second}")
        return self._tree.consistency(first, second)

    def root(self, size: int) -> bytes:
        """Root of the first `size` leaves."""
        if not 0 <= size <= self.size:
            raise _range(f"size of at most {self.size} expected, found {size}")
        return self._tree.root(size)

    def close(self) -> None:
        """Write what is queued, then release the file. Safe to call twice."""
        self._queue.put(None)
        self._thread.join()

    def _submit(self, item: _Append | _Read) -> None:
        if self._stopped is not None:
            raise UnavailableError(self._stopped)
        self._queue.put(item)
        if self._stopped is not None:  # stopped in between: nobody else will empty the queue
            self._drain(self._stopped)

    # ------------------------------------------------------------ writer thread

    def _run(self) -> None:
        why = "evidence log: closed"
        batch: list[_Append | _Read] = []
        last = False
        try:
            while not last:
                batch, last = self._gather()
                self._write([item for item in batch if isinstance(item, _Append)])
                for item in batch:
                    if isinstance(item, _Read):
                        self._answer([(item.reply, self._reread(item.index))])
                batch = []
            if self._anchor is not None:
                self._anchor.write(self._head.note)
        except Exception as error:  # whatever it was: stop, do not guess what is on the disk
            why = f"evidence log stopped: {error}"
        self._stopped = why
        self._answer([(item.reply, UnavailableError(why)) for item in batch])
        self._drain(why)
        self._store.close()

    def _gather(self) -> tuple[list[_Append | _Read], bool]:
        """One batch, queued or coming within the linger; and whether it is the last."""
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        until = time.monotonic() + (LINGER_S if self._company else 0.0)
        while len(batch) < BATCH_MAX:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        self._company = len(batch) > 1  # a lone caller must not wait for nobody
        return batch, False

    def _write(self, batch: Sequence[_Append]) -> None:
        if not batch:
            return
        first = self._tree.size
        leaves = [public_leaf(item.event, item.blind) for item in batch]
        for leaf in leaves:
            self._tree.append(leaf_hash(leaf))
        size = self._tree.size
        checkpoint = Checkpoint(self.origin, size, self._tree.root(size))
        note = sign_checkpoint(checkpoint, self._signer)
        self._store.commit(first, leaves, size, note)
        self._head = Head(checkpoint, note)  # durable: now it may be seen
        self._answer(
            [
                (
                    item.reply,
                    Logged(
                        first + at,
                        leaves[at],
                        item.blind,
                        item.event,
                        note,
                        self._tree.inclusion(first + at, size),
                    ),
                )
                for at, item in enumerate(batch)
            ]
        )
        if self._anchor is not None and time.monotonic() - self._anchored >= ANCHOR_EVERY_S:
            self._anchor.write(note)
            self._anchored = time.monotonic()

    def _reread(self, index: int) -> Logged:
        leaf = self._store.leaf(index)
        if leaf is None or leaf_hash(leaf) != self._tree.leaf(index):
            raise ForkError(f"entry {index} changed on disk", code="log_tampered")
        event, blind = read_public_leaf(leaf)
        head = self._head
        proof = self._tree.inclusion(index, head.checkpoint.size)
        return Logged(index, leaf, blind, event, head.note, proof)

    def _drain(self, why: str) -> None:
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                self._answer([(item.reply, UnavailableError(why))])

    @staticmethod
    def _answer(answers: Sequence[tuple[_Reply, Logged | Exception]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Reply, Logged | Exception]]] = {}
        for reply, result in answers:
            by_loop.setdefault(reply.loop, []).append((reply, result))
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, mine)
            except RuntimeError:  # that loop is gone, and with it whoever waited
                continue


def _settle(answers: Sequence[tuple[_Reply, Logged | Exception]]) -> None:
    for reply, result in answers:
        if reply.future.done():
            continue
        if isinstance(result, Logged):
            reply.future.set_result(result)
        else:
            reply.future.set_exception(result)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


def _range(message: str) -> MalformedError:
    return MalformedError(message, code="out_of_range")
