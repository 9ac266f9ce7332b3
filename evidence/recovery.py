"""Reading a log back at start, and refusing one that changed behind our back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wire.errors import ConfigError, ForkError, MalformedError, RollbackError

from .checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, sign_checkpoint
from .merkle import MerkleTree, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .anchor import Anchor
    from .note import NoteSigner


@dataclass(frozen=True, slots=True)
class Head:
    """A published head: a size that is durable, its root and its signed note."""

    checkpoint: Checkpoint
    note: str


class Store(Protocol):
    """What recovery reads."""

    def meta(self, name: str) -> str | None: ...
    def set_meta(self, name: str, value: str) -> None: ...
    def last_checkpoint(self) -> str | None: ...
    def leaves(self) -> Iterator[tuple[int, bytes]]: ...


def recover(store: Store, signer: NoteSigner, anchor: Anchor | None) -> tuple[MerkleTree, Head]:
    """Rebuild the tree and check it against everything that was ever signed and kept.

    Steps: 1 the file belongs to this origin and key. 2 indices are gapless; the tree is rebuilt
    from the leaf bytes. 3 the last stored checkpoint is ours. 4 it names this very size and root.
    5 no anchored head is ahead of it or beside it.

    Raises:
        ConfigError: another origin or key. RollbackError: entries are missing. ForkError: entries
            or heads differ from what was signed (`log_tampered` where the file itself shows it).
    """
    # 1
    for name, ours in (("origin", signer.key.name), ("vkey", signer.vkey)):
        found = store.meta(name)
        if found is None:
            store.set_meta(name, ours)
        elif found != ours:
            raise ConfigError(
                f"evidence log: a log with {name} {ours!r} expected, found {found!r}",
                hint="use the key and origin this log was started with, or a new file",
            )
    # 2
    tree = MerkleTree()
    for index, leaf in store.leaves():
        if index != tree.size:
            raise RollbackError(f"evidence log: entry {tree.size} expected, found {index}")
        tree.append(leaf_hash(leaf))
    head = _stored_head(store, signer, tree)
    # 5
    anchored = anchor.read(tree.size) if anchor is not None else None
    if anchor is not None and anchored is None:
        anchor.write(
            head.note
        )  # before the first entry: from then on a missing anchor is a finding
    if anchored is not None:
        known = _ours(anchored, signer, "anchor")
        if known.size > tree.size:
            raise RollbackError(
                f"evidence log: at least the anchored {known.size} entries expected, "
                f"found {tree.size}",
                hint="this looks like a restored backup: later entries are missing",
            )
        if known.root != tree.root(known.size):
            raise ForkError(f"evidence log: the anchored root at size {known.size} expected")
    return tree, head


def _stored_head(store: Store, signer: NoteSigner, tree: MerkleTree) -> Head:
    # 3
    note = store.last_checkpoint()
    if note is None:
        if tree.size:
            raise ForkError(
                f"evidence log: a checkpoint over {tree.size} entries expected, found none",
                code="log_tampered",
            )
        empty = Checkpoint(signer.key.name, 0, tree.root())
        return Head(empty, sign_checkpoint(empty, signer))
    signed = _ours(note, signer, "stored checkpoint")
    # 4
    if tree.size < signed.size:
        raise RollbackError(
            f"evidence log: {signed.size} entries expected, found {tree.size}",
            hint="entries were removed: restore the database, and keep this one as evidence",
        )
    if tree.size > signed.size or tree.root() != signed.root:
        raise ForkError(
            f"evidence log: the signed root over {signed.size} entries expected, "
            f"found another one over {tree.size}",
            code="log_tampered",
            hint="entries were changed: restore the database, and keep this one as evidence",
        )
    return Head(signed.checkpoint, note)


def _ours(note: str, signer: NoteSigner, what: str) -> SignedCheckpoint:
    try:
        return open_checkpoint(note, signer.key.name, (signer.key,))
    except MalformedError as error:
        raise ForkError(
            f"evidence log: {what} signed by this log's key expected: {error.message}",
            code="log_tampered",
        ) from error
