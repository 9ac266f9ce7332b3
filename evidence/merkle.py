"""RFC 6962 / RFC 9162 Merkle trees over SHA-256: roots, proofs, and their verification.

Sizes and indices are plain ints below 2^63. A proof is a tuple of 32-byte hashes, deepest first.
Verification follows RFC 9162 §2.1.3.2 (inclusion) and §2.1.4.2 (consistency); anything that does
not hold, also a path too long or too short, raises `MalformedError` with code `proof_invalid`.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_LEN = 32
SIZE_MAX = 2**63 - 1  # C2SP checkpoints carry int64 sizes
PROOF_MAX = 64  # no tree of SIZE_MAX leaves has a longer path; refuse before hashing anything
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 ‖ data). The prefix keeps a leaf from passing as a node."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """An append-only tree held in memory: 64 bytes per leaf, whatever the leaves weigh.

    Only full subtrees are kept, one packed byte array per level, so every root and proof of every
    earlier size stays computable. One thread may append while others read sizes they already know:
    a published prefix never changes.
    """

    __slots__ = ("_levels", "_size")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self._size = 0
        for item in leaf_hashes:
            self.append(item)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def append(self, hashed: bytes) -> int:
        """Append a leaf *hash* and return its index."""
        if len(hashed) != HASH_LEN:
            msg = f"leaf hash of {HASH_LEN} bytes expected, found {len(hashed)}"
            raise ValueError(msg)
        index = self._size
        level, position, current = 0, index, hashed
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            row = self._levels[level]
            row += current
            if position % 2 == 0:
                break
            current = node_hash(bytes(row[-2 * HASH_LEN : -HASH_LEN]), current)
            level, position = level + 1, position // 2
        self._size = index + 1
        return index

    def leaf(self, index: int) -> bytes:
        """Leaf hash at `index`."""
        self._check_size(index + 1)
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves (all of them when omitted)."""
        size = self._size if size is None else size
        self._check_size(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Path that proves leaf `index` in the tree of `size` leaves."""
        self._check_size(size)
        if not 0 <= index < size:
            msg = f"index below the tree size {size} expected, found {index}"
            raise ValueError(msg)
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            split = start + _split(end - start)
            if index < split:
                path.append(self._range(split, end))
                end = split
            else:
                path.append(self._range(start, split))
                start = split
        return tuple(reversed(path))

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """Proof that the tree of `first` leaves is a prefix of the tree of `second` leaves."""
        self._check_size(second)
        if not 0 <= first <= second:
            msg = f"first size of at most {second} expected, found {first}"
            raise ValueError(msg)
        if first in (0, second):
            return ()
        path: list[bytes] = []
        start, end, known = 0, second, True
        while first != end:
            split = start + _split(end - start)
            if first <= split:
                path.append(self._range(split, end))
                end = split
            else:
                path.append(self._range(start, split))
                start, known = split, False
        if not known:  # the shared subtree is not the whole old tree: its hash must be told
            path.append(self._range(start, end))
        return tuple(reversed(path))

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self._size:
            msg = f"size between 0 and {self._size} expected, found {size}"
            raise ValueError(msg)

    def _node(self, level: int, index: int) -> bytes:
        at = index * HASH_LEN
        return bytes(self._levels[level][at : at + HASH_LEN])

    def _range(self, start: int, end: int) -> bytes:
        """Hash of the leaves [start, end), where `start` is aligned to the subtree it opens."""
        width = end - start
        level = width.bit_length() - 1
        if width == 1 << level:
            return self._node(level, start >> level)
        split = start + _split(width)
        return node_hash(self._range(start, split), self._range(split, end))


def root_of(leaves: Iterable[bytes]) -> bytes:
    """RFC 6962 root over leaf *data*."""
    return MerkleTree(leaf_hash(data) for data in leaves).root()


def verify_inclusion(
    hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with hash `hashed` stands at `index` in the tree (`size`, `root`).

    Steps (RFC 9162 §2.1.3.2): 1 index < size. 2 the path has the one length this index and size
    allow, of 32-byte hashes. 3 fold the path. 4 compare with the root.
    """
    # 1
    if not 0 <= index < size <= SIZE_MAX:
        raise _invalid(f"index below size expected, found index {index}, size {size}")
    # 2
    _check_hashes((hashed, root, *proof))
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(proof) != inner + border:
        raise _invalid(f"path of {inner + border} hashes expected, found {len(proof)}")
    # 3
    current = hashed
    for level, sibling in enumerate(proof[:inner]):
        current = node_hash(sibling, current) if index >> level & 1 else node_hash(current, sibling)
    for sibling in proof[inner:]:
        current = node_hash(sibling, current)
    # 4
    if not hmac.compare_digest(current, root):
        raise _invalid("inclusion path does not lead to the root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that (`first`, `first_root`) is a prefix of (`second`, `second_root`).

    Size 0 is refused here: an empty tree is a prefix of everything, so a caller that holds one has
    nothing to check and must say so itself. Steps (RFC 9162 §2.1.4.2): 1 sizes. 2 equal sizes mean
    equal roots and an empty proof. 3 exact proof length. 4 fold both roots. 5 compare both.
    """
    # 1
    if not 0 < first <= second <= SIZE_MAX:
        raise _invalid(f"0 < first <= second expected, found {first} and {second}")
    # 2
    if first == second:
        if proof:
            raise _invalid(f"empty proof between equal sizes expected, found {len(proof)}")
        if not hmac.compare_digest(first_root, second_root):
            raise _invalid("two roots for one size")
        return
    # 3: the old tree's last full subtree starts the walk; its hash is told unless it is the whole
    _check_hashes((first_root, second_root, *proof))
    last = first - 1
    shift = (first & -first).bit_length() - 1
    whole = first == 1 << shift
    inner = (last ^ (second - 1)).bit_length() - shift
    border = (last >> (inner + shift)).bit_count()
    expected = inner + border + (0 if whole else 1)
    if len(proof) != expected:
        raise _invalid(f"proof of {expected} hashes expected, found {len(proof)}")
    # 4
    seed, path = (first_root, proof) if whole else (proof[0], proof[1:])
    old = new = seed
    position = last >> shift
    for level, sibling in enumerate(path[:inner]):
        if position >> level & 1:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    for sibling in path[inner:]:
        old, new = node_hash(sibling, old), node_hash(sibling, new)
    # 5
    if not hmac.compare_digest(old, first_root):
        raise _invalid("consistency proof does not lead to the first root")
    if not hmac.compare_digest(new, second_root):
        raise _invalid("consistency proof does not lead to the second root")


def _split(width: int) -> int:
    """Largest power of two below `width` (RFC 9162 §2.1.1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > PROOF_MAX + 2:
        raise _invalid(f"at most {PROOF_MAX} hashes expected, found {len(hashes) - 2}")
    for item in hashes:
        if len(item) != HASH_LEN:
            raise _invalid(f"hashes of {HASH_LEN} bytes expected, found {len(item)}")


def _invalid(message: str) -> MalformedError:
    return MalformedError(message, code="proof_invalid")
