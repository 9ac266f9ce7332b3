"""The bytes of a manifest of reference values: what is read, what is named, what is refused."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from simulators.corim import CorimPublisher, element, environment, tagged

from attestation.formats.corim import ITEMS_MAX, SIZE_MAX, parse_manifest
from wire.errors import MalformedError


@pytest.fixture
def publisher() -> CorimPublisher:
    return CorimPublisher()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({1: ...}, "tags"),
        ({1: []}, "tags"),
        ({1: [0]}, "tagged modules"),
        ({1: [tagged(506, 0)]}, "a map"),
        ({1: [tagged(506, b"")]}, "length"),
        ({0: ...}, "an id"),
        ({3: 7}, "a URI or an OID"),
        ({4: 7}, "from and until"),
        ({4: {1: -1}}, "Unix seconds"),
        ({4: {1: 1.5}}, "float"),
        ({4: {2: 1}}, "from and until"),
    ],
)
def test_a_manifest_with_a_member_of_another_type_is_refused(
    publisher: CorimPublisher, members: dict[int, Any], why: str
) -> None:
    publisher.members |= members
    with pytest.raises(MalformedError, match=why):
        parse_manifest(publisher.unsigned())


def test_a_module_may_stand_unwrapped_or_in_bytes(publisher: CorimPublisher) -> None:
    wrapped = parse_manifest(publisher.unsigned()).comids
    publisher.wrapped = False
    assert parse_manifest(publisher.unsigned()).comids == wrapped
    inner = cbor2.dumps(tagged(506, publisher.comid()))
    publisher.members[1] = [inner]
    assert parse_manifest(publisher.unsigned()).comids == wrapped


def test_what_is_not_read_is_named(publisher: CorimPublisher) -> None:
    publisher.triples = {0: [[environment(), [element("firmware")]]], 4: [], -1: 0}
    publisher.members = {1: [tagged(506, publisher.comid()), tagged(505, b"coswid")], -1: "foo"}
    assert parse_manifest(publisher.unsigned()).unread == (
        "CoRIM member -1",
        "CoRIM tag 505",
        "triples 4",
        "triples -1",
    )


def test_a_manifest_cut_anywhere_is_refused(publisher: CorimPublisher) -> None:
    signed = publisher.signed()
    for end in range(len(signed)):
        with pytest.raises(MalformedError):
            parse_manifest(signed[:end])


def test_bytes_after_a_manifest_are_refused(publisher: CorimPublisher) -> None:
    for raw in (publisher.signed(), publisher.unsigned(), publisher.comid()):
        with pytest.raises(MalformedError, match="after the item"):
            parse_manifest(raw + b"\x00")


def test_a_date_of_intels_profile_is_no_reason_to_refuse(publisher: CorimPublisher) -> None:
    """Its TCB dates are tagged text (tag 0): a member we do not read, in a module we do."""
    publisher.members[6] = "a member nobody reads"
    encoded = publisher.unsigned().replace(
        cbor2.dumps("a member nobody reads"), b"\xc0" + cbor2.dumps("2024-03-13T00:00:00Z")
    )
    assert parse_manifest(encoded).unread == ("CoRIM member 6",)


@pytest.mark.parametrize("tag", [2, 4, 24, 28, 35, 258, 604, 55799])
def test_a_tag_of_no_meaning_here_is_refused(publisher: CorimPublisher, tag: int) -> None:
    publisher.members[6] = "a member nobody reads"
    encoded = publisher.unsigned().replace(
        cbor2.dumps("a member nobody reads"),
        cbor2.dumps(cbor2.CBORTag(tag, "")),
    )
    with pytest.raises(MalformedError, match="tag"):
        parse_manifest(encoded)


def test_a_manifest_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="at most"):
        parse_manifest(bytes(SIZE_MAX + 1))


def test_items_are_bounded_over_all_modules_together() -> None:
    module = cbor2.dumps({1: {0: 0}, 4: {9: list(range(20)) * 200}})
    members = {0: "wide", 1: [tagged(506, module)] * 8}
    raw = cbor2.dumps(tagged(501, members))
    assert len(raw) < SIZE_MAX
    with pytest.raises(MalformedError, match=f"at most {ITEMS_MAX}"):
        parse_manifest(raw)
