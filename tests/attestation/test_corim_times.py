"""When a manifest counts: every time that its signer states holds, wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.corim import CorimPublisher

from attestation.formats.corim import parse_manifest
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.corim import SCHEME
from wire.errors import MalformedError

NOW = 1_790_000_000
DAY = 24 * 3600
RULE = SCHEME.rule(Members({}, "rule", optional=SCHEME.rule_keys[1]))


def codes(manifest: bytes, now: int = NOW) -> tuple[str, ...]:
    ledger = Ledger()
    SCHEME.judge(ledger, parse_manifest(manifest), RULE, now)
    return tuple(reason.code for reason in ledger.reasons)


def test_times_in_cwt_claims_count_too() -> None:
    publisher = CorimPublisher()
    publisher.headers |= {8: ..., 15: {1: "publisher", 4: NOW - 1}}
    assert codes(publisher.signed()) == ("manifest_expired",)
    assert parse_manifest(publisher.signed()).claims()["signer"] == "publisher"


@pytest.mark.parametrize(
    ("claims", "code"),
    [({4: NOW - 1}, "manifest_expired"), ({5: NOW + 1}, "manifest_not_yet_valid")],
)
def test_times_in_cwt_claims_count_beside_those_of_the_meta_map(
    claims: dict[int, int], code: str
) -> None:
    for meta in ({}, {"not_before": NOW - 9, "not_after": NOW + 9}):
        publisher = CorimPublisher(**meta)
        publisher.headers[15] = {1: "somebody", **claims}
        assert codes(publisher.signed()) == (code,)
        publisher.headers[15] = {1: "somebody", 4: NOW + 1, 5: NOW - 1}
        assert codes(publisher.signed()) == ()
        assert parse_manifest(publisher.signed()).claims()["signer"] == "publisher"


def test_cwt_claims_end_at_their_exp_and_a_meta_map_after_its_last_second() -> None:
    publisher = CorimPublisher(headers={15: {4: NOW, 5: NOW - 9}})
    assert codes(publisher.signed(), NOW - 1) == ()
    assert codes(publisher.signed(), NOW) == ("manifest_expired",)
    assert codes(publisher.signed(), NOW - 10) == ("manifest_not_yet_valid",)
    assert codes(publisher.signed(), NOW - 9) == ()
    publisher = CorimPublisher(not_after=NOW)
    assert codes(publisher.signed(), NOW) == ()


def test_times_of_the_meta_map_count_beside_wider_cwt_claims() -> None:
    for times, code in (
        ({"not_before": NOW + 1}, "manifest_not_yet_valid"),
        ({"not_after": NOW - 1}, "manifest_expired"),
    ):
        publisher = CorimPublisher(**times)
        publisher.headers[15] = {4: NOW + DAY, 5: NOW - DAY}
        assert codes(publisher.signed()) == (code,)


@pytest.mark.parametrize("headers", [{8: {1: {1: 0}}}, {8: "meta"}, {15: b"claims"}, {15: [4, 0]}])
def test_headers_that_state_times_in_a_form_nobody_reads_are_refused(
    headers: dict[int, Any],
) -> None:
    publisher = CorimPublisher()
    publisher.headers |= headers
    with pytest.raises(MalformedError, match="CoRIM header"):
        parse_manifest(publisher.signed())
