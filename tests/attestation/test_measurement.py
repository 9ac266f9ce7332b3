"""Tree digests and measurements: one value for one content, another for any other."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.measurement import combine, measured, parts_of, tree_digest
from wire.errors import MalformedError
from wire.ids import sha256_tag

A, B = (hashlib.sha256(text).digest() for text in (b"a", b"b"))
TAG = sha256_tag(b"part")

_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)
_PATHS = st.lists(_NAMES.filter(lambda n: n not in {".", ".."}), min_size=1, max_size=3).map(
    "/".join
)
_TREES = st.dictionaries(_PATHS, st.sampled_from([A, B]), min_size=1, max_size=6)


def test_the_tree_digest_is_the_one_specified() -> None:
    listed = b"".join(
        len(path).to_bytes(4, "big") + path + digest for path, digest in [(b"a/b", A), (b"c", B)]
    )
    expected = hashlib.sha256(b"anchorhold/1 tree\0" + (2).to_bytes(4, "big") + listed).hexdigest()
    assert tree_digest([("c", B), ("a/b", A)]) == f"sha256:{expected}"


def test_the_measurement_is_the_one_specified() -> None:
    digest = bytes.fromhex(TAG.removeprefix("sha256:"))
    listed = b"".join(len(name).to_bytes(4, "big") + name + digest for name in (b"args", b"model"))
    head = b"anchorhold/1 measurement\0" + (2).to_bytes(4, "big")
    expected = hashlib.sha256(head + listed).hexdigest()
    assert combine({"model": TAG, "args": TAG}) == f"sha256:{expected}"


@given(_TREES, st.randoms())
def test_the_order_of_files_does_not_matter(tree: dict[str, bytes], rnd: object) -> None:
    entries = list(tree.items())
    shuffled = list(entries)
    rnd.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tree_digest(entries) == tree_digest(shuffled)


@given(_TREES, _TREES)
def test_two_trees_have_one_digest_only_if_they_are_equal(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    assert (tree_digest(one.items()) == tree_digest(two.items())) == (one == two)


def test_a_path_is_not_confused_with_its_neighbour() -> None:
    """Lengths keep "ab"+"c" and "a"+"bc" apart; a digest is never read as a path."""
    assert tree_digest([("ab", A), ("c", B)]) != tree_digest([("a", A), ("bc", B)])


def test_a_tree_and_a_measurement_never_collide() -> None:
    digest = bytes.fromhex(TAG.removeprefix("sha256:"))
    assert tree_digest([("model", digest)]) != combine({"model": TAG})


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", "x" * 4097, "\ud800"]
)
def test_paths_that_name_something_else_are_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        tree_digest([(path, A)])


def test_an_empty_tree_has_no_digest() -> None:
    with pytest.raises(MalformedError, match="found no file"):
        tree_digest([])


def test_a_path_given_twice_is_refused() -> None:
    with pytest.raises(MalformedError, match="twice"):
        tree_digest([("a", A), ("a", B)])


def test_a_short_digest_is_refused() -> None:
    with pytest.raises(MalformedError, match="32-byte digests, found 31"):
        tree_digest([("a", A[:31])])


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"Model": TAG},
        {"": TAG},
        {"a": "sha256:00"},
        {"a": 1},
        {f"p{i}": TAG for i in range(33)},
    ],
)
def test_parts_that_are_none_are_refused(parts: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        combine(parts)


@pytest.mark.parametrize("obj", [None, [], "model", {1: TAG}])
def test_received_parts_of_another_type_are_refused(obj: object) -> None:
    with pytest.raises(MalformedError):
        parts_of(obj)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("pkg/module.py", True),
        ("pkg/__pycache__/module.cpython-311.pyc", False),
        ("pkg/module.pyc", False),
        ("__pycache__/data.txt", False),
        ("a-1.dist-info/RECORD", False),
        ("a-1.dist-info/INSTALLER", False),
        ("a-1.dist-info/direct_url.json", False),
        ("a-1.dist-info/METADATA", True),
        ("a-1.dist-info/sub/RECORD", True),
        ("pkg/RECORD", True),
        ("RECORD", True),
        ("__pycache__", True),
    ],
)
def test_only_installers_droppings_and_bytecode_do_not_count(path: str, counts: bool) -> None:
    assert measured(path) is counts
