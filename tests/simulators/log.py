"""A programmable transparency log: real tree, real signatures, and every lie a log can tell.

Behaves like the real one until told otherwise. Lies come as new logs (`forked`, `truncated`), as a
log that stands still (`freeze`), or as damaged copies of what it hands out (`flip_*`).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.checkpoint import Checkpoint, sign_checkpoint
from evidence.entry import Logged
from evidence.events import Source, stamp
from evidence.leaf import public_leaf
from evidence.merkle import MerkleTree, leaf_hash
from evidence.note import NoteSigner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SimulatedLog:
    """An in-memory log. `seed` makes keys, blinds and event ids reproducible."""

    def __init__(
        self,
        origin: str = "log.test/evl/1",
        seed: bytes = b"log",
        *,
        key: Ed25519PrivateKey | None = None,
        entries: Sequence[tuple[bytes, bytes]] = (),
        clock_ms: int = 1_790_000_000_000,
    ) -> None:
        self.origin = origin
        self.key = key or Ed25519PrivateKey.from_private_bytes(sha256(seed).digest())
        self.clock_ms = clock_ms
        self._seed = seed
        self._signer = NoteSigner(origin, self.key)
        self._entries: list[tuple[bytes, bytes]] = []  # (event, blind)
        self._leaves: list[bytes] = []
        self._tree = MerkleTree()
        self._frozen: int | None = None
        for event, blind in entries:
            self.append_raw(event, blind)

    @property
    def vkey(self) -> str:
        return self._signer.vkey

    @property
    def size(self) -> int:
        """The size it admits to: what was there when it froze, if it did."""
        return self._tree.size if self._frozen is None else self._frozen

    def append(self, event_type: str, body: Mapping[str, Any]) -> Logged:
        """Log one event and hand out its proof, like the real log after COMMIT."""
        source = Source("gateway", self.origin, self._random("boot")[:16])
        eid, blind = self._random("eid")[:16], self._random("blind")
        event = stamp(event_type, body, eid=eid, ts=self.clock_ms, source=source)
        return self.append_raw(event, blind)

    def append_raw(self, event: bytes, blind: bytes) -> Logged:
        """Log event bytes as they are, well formed or not."""
        leaf = public_leaf(event, blind)
        self._entries.append((event, blind))
        self._leaves.append(leaf)
        self._tree.append(leaf_hash(leaf))
        return self.entry(self._tree.size - 1, self._tree.size)

    def entry(self, index: int, size: int | None = None) -> Logged:
        """An entry with its proof at `size` (the admitted size when omitted)."""
        size = self.size if size is None else size
        event, blind = self._entries[index]
        proof = self._tree.inclusion(index, size)
        return Logged(index, self._leaves[index], blind, event, self.checkpoint(size), proof)

    def checkpoint(self, size: int | None = None) -> str:
        """Signed head of an honest prefix."""
        size = self.size if size is None else size
        return self.sign(size, self._tree.root(size))

    def sign(self, size: int, root: bytes, origin: str | None = None) -> str:
        """Sign any head, true or not."""
        return sign_checkpoint(Checkpoint(origin or self.origin, size, root), self._signer)

    def root(self, size: int | None = None) -> bytes:
        return self._tree.root(self.size if size is None else size)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return self._tree.inclusion(index, size)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        return self._tree.consistency(first, second)

    # ------------------------------------------------------------ lies

    def freeze(self) -> None:
        """From now on admit only to what is there now, whatever is appended."""
        self._frozen = self._tree.size

    def thaw(self) -> None:
        self._frozen = None

    def truncated(self, size: int) -> SimulatedLog:
        """The same log, same key, as if the later entries had never been."""
        return self._copy(self._entries[:size])

    def forked(self, at: int) -> SimulatedLog:
        """The same log and key with another history from entry `at` on, as long as this one."""
        lies = [(event, sha256(b"fork" + blind).digest()) for event, blind in self._entries[at:]]
        return self._copy([*self._entries[:at], *lies])

    def _copy(self, entries: Sequence[tuple[bytes, bytes]]) -> SimulatedLog:
        return SimulatedLog(
            self.origin, self._seed, key=self.key, entries=entries, clock_ms=self.clock_ms
        )

    def _random(self, label: str) -> bytes:
        position = f"{label}{len(self._entries)}".encode()
        return sha256(self._seed + position).digest()


def flip(data: bytes, bit: int = 0) -> bytes:
    """`data` with one bit flipped."""
    at = bit // 8 % len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def flip_proof(logged: Logged, bit: int = 0) -> Logged:
    """The entry with one bit of its path flipped."""
    if not logged.proof:
        return replace(logged, proof=(bytes(32),))
    step = bit // 256 % len(logged.proof)
    proof = list(logged.proof)
    proof[step] = flip(proof[step], bit % 256)
    return replace(logged, proof=tuple(proof))


def flip_leaf(logged: Logged, bit: int = 0) -> Logged:
    """The entry with one bit of its leaf flipped."""
    return replace(logged, leaf=flip(logged.leaf, bit))
