"""The tree is RFC 9162's, its proofs prove, and nothing that is not a proof passes for one."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.log import flip

from evidence.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from wire.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

MAX = 70
LEAVES = [leaf_hash(bytes([at])) for at in range(MAX)]
TREE = MerkleTree(LEAVES)


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(naive_root(hashes[:split]), naive_root(hashes[split:]))


def test_roots_follow_the_recursive_definition() -> None:
    for size in range(MAX + 1):
        assert TREE.root(size) == naive_root(LEAVES[:size])


def test_every_inclusion_proof_verifies() -> None:
    for size in range(1, MAX + 1):
        for index in range(size):
            proof = TREE.inclusion(index, size)
            verify_inclusion(LEAVES[index], index, size, proof, TREE.root(size))


def test_every_consistency_proof_verifies() -> None:
    for second in range(1, MAX + 1):
        for first in range(1, second + 1):
            proof = TREE.consistency(first, second)
            verify_consistency(first, second, TREE.root(first), TREE.root(second), proof)


@given(st.data())
def test_a_flipped_bit_in_an_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MAX))
    index = data.draw(st.integers(0, size - 1))
    proof = list(TREE.inclusion(index, size))
    step = data.draw(st.integers(0, len(proof) - 1))
    proof[step] = flip(proof[step], data.draw(st.integers(0, 255)))
    with pytest.raises(MalformedError):
        verify_inclusion(LEAVES[index], index, size, proof, TREE.root(size))


@given(st.data())
def test_a_proof_for_another_index_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MAX))
    index, other = data.draw(
        st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True)
    )
    with pytest.raises(MalformedError):
        verify_inclusion(LEAVES[index], other, size, TREE.inclusion(index, size), TREE.root(size))


@given(st.data())
def test_a_flipped_bit_in_a_consistency_proof_is_refused(data: st.DataObject) -> None:
    second = data.draw(st.integers(2, MAX))
    first = data.draw(st.integers(1, second - 1))
    proof = list(TREE.consistency(first, second))
    step = data.draw(st.integers(0, len(proof) - 1))
    proof[step] = flip(proof[step], data.draw(st.integers(0, 255)))
    with pytest.raises(MalformedError):
        verify_consistency(first, second, TREE.root(first), TREE.root(second), proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (6, 5), (-1, 5), (0, 2**63)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(MalformedError, match="below size expected"):
        verify_inclusion(LEAVES[0], index, size, (), LEAVES[0])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_path_of_the_wrong_length_is_refused(change: int) -> None:
    proof = TREE.inclusion(3, 11)
    changed = proof[:-1] if change < 0 else (*proof, bytes(32))
    with pytest.raises(MalformedError, match="path of 4 hashes"):
        verify_inclusion(LEAVES[3], 3, 11, changed, TREE.root(11))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_consistency_proof_of_the_wrong_length_is_refused(change: int) -> None:
    proof = TREE.consistency(5, 11)
    changed = proof[:-1] if change < 0 else (*proof, bytes(32))
    with pytest.raises(MalformedError, match=f"proof of {len(proof)} hashes"):
        verify_consistency(5, 11, TREE.root(5), TREE.root(11), changed)


def test_size_zero_has_no_consistency_proof() -> None:
    with pytest.raises(MalformedError, match="0 < first"):
        verify_consistency(0, 3, EMPTY_ROOT, TREE.root(3), ())


def test_a_proof_as_long_as_a_denial_of_service_is_refused_unhashed() -> None:
    with pytest.raises(MalformedError, match="at most 64"):
        verify_inclusion(LEAVES[0], 0, 2, (bytes(32),) * 100_000, TREE.root(2))


def test_a_hash_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(MalformedError, match="32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, (bytes(31),), TREE.root(2))


def test_the_tree_refuses_what_it_does_not_hold() -> None:
    tree = MerkleTree(LEAVES[:3])
    for call in (
        lambda: tree.append(b"short"),
        lambda: tree.root(4),
        lambda: tree.leaf(3),
        lambda: tree.inclusion(3, 3),
        lambda: tree.consistency(3, 2),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


# ---------------------------------------------------------------- official vectors


def test_hasher_matches_the_official_vectors(vectors: Path) -> None:
    case = json.loads((vectors / "rfc6962/hasher.json").read_text())
    assert EMPTY_ROOT.hex() == case["empty_root_hex"]
    assert leaf_hash(b"").hex() == case["empty_leaf_hash_hex"]
    assert leaf_hash(case["leaf"]["input_ascii"].encode()).hex() == case["leaf"]["hash_hex"]
    node = case["node"]
    found = node_hash(node["left_ascii"].encode(), node["right_ascii"].encode())
    assert found.hex() == node["hash_hex"]


def test_tree_roots_match_the_official_vectors(vectors: Path) -> None:
    case = json.loads((vectors / "rfc6962/tree-hashes.json").read_text())
    leaves = [bytes.fromhex(item) for item in case["leaf_inputs_hex"]]
    for size, root in enumerate(case["root_hashes_hex_by_size"]):
        assert root_of(leaves[:size]).hex() == root


def _hashes(encoded: list[str] | None) -> list[bytes]:
    return [base64.b64decode(item) for item in encoded or []]


def test_official_inclusion_cases_are_judged_as_published(vectors: Path) -> None:
    cases = json.loads((vectors / "rfc6962/inclusion.json").read_text())
    assert len(cases) > 50
    for case in cases:
        arguments = (
            base64.b64decode(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            _hashes(case["proof"]),
            base64.b64decode(case["root"]),
        )
        if case["wantErr"]:
            with pytest.raises(MalformedError):
                verify_inclusion(*arguments)
        else:
            verify_inclusion(*arguments)


def test_official_consistency_cases_are_judged_as_published(vectors: Path) -> None:
    cases = json.loads((vectors / "rfc6962/consistency.json").read_text())
    assert len(cases) > 50
    for case in cases:
        arguments = (
            case["size1"],
            case["size2"],
            base64.b64decode(case["root1"]),
            base64.b64decode(case["root2"]),
            _hashes(case["proof"]),
        )
        if case["wantErr"]:
            with pytest.raises(MalformedError):
                verify_consistency(*arguments)
        else:
            verify_consistency(*arguments)


def test_a_real_log_of_another_implementation_has_our_roots(vectors: Path) -> None:
    folder = vectors / "tlog-tiles/tessera"
    raw = (folder / "tile/entries/000.p/10").read_bytes()
    leaves, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 2], "big")
        leaves.append(raw[at + 2 : at + 2 + length])
        at += 2 + length
    assert len(leaves) == 10
    for size in (0, 1, 2, 3, 4, 5, 8, 9, 10):
        lines = (folder / f"checkpoint.{size}").read_text().split("\n")
        assert int(lines[1]) == size
        assert root_of(leaves[:size]) == base64.b64decode(lines[2])
