"""A receipt says what the worker signed, and any other bytes say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.exchange import Exchange, key, public, random
from simulators.log import SimulatedLog, flip, flip_leaf, flip_proof

from attestation.formats.cbor import Tagged
from evidence.cbor import encode
from evidence.cose import HEADER_CONTENT_TYPE, HEADER_CWT_CLAIMS, HEADER_KID, parse_sign1, sign1
from evidence.entry import Logged, VerifiedEntry, verify_logged
from evidence.receipt import (
    CONTENT_TYPE,
    key_id,
    parse_statement,
    sign_statement,
    statement_commitment,
    verify_statement,
)
from evidence.record import VerifiedReceipt, parse_record, verify_record
from wire import canonical
from wire.errors import MalformedError, ReceiptError
from wire.ids import b64u

HONEST = Exchange()
SIG_PK = public(HONEST.sig)
LOG = HONEST.log


def verify(record: Any) -> VerifiedReceipt:
    return verify_record(record, SIG_PK, LOG.origin, [LOG.vkey])


def resign(claims: dict[str, Any], header: dict[int, Any] | None = None) -> bytes:
    """A statement over any claims and headers, correctly signed by the worker's key."""
    names = {1: f"anchorhold:worker/{b64u(HONEST.bh)}", 2: f"rid/{b64u(HONEST.claims.rid)}"}
    honest = {HEADER_CONTENT_TYPE: CONTENT_TYPE, HEADER_KID: key_id(SIG_PK)}
    full = {**honest, HEADER_CWT_CLAIMS: names, **(header or {})}
    return sign1(HONEST.sig, full, canonical.encode(claims))


def test_an_honest_receipt_verifies() -> None:
    receipt = verify(parse_record(HONEST.record.encode()))
    assert receipt.claims == HONEST.claims.claims()
    assert receipt.entry.index == HONEST.logged.index


def test_a_statement_names_everything_the_specification_lists() -> None:
    members = "v type rid th kid wid boot wseq op t0 t1 req resp finish trunc model eng par use att"
    assert set(HONEST.claims.claims()) == set(members.split()) | {"pol", "ret", "cache"}


def test_a_statement_is_the_same_bytes_for_the_same_claims() -> None:
    again = sign_statement(HONEST.claims.claims(), HONEST.sig, HONEST.bh, HONEST.claims.rid, SIG_PK)
    assert again == HONEST.statement


@given(st.integers(0, 8 * len(HONEST.statement) - 1))
@settings(max_examples=400)
def test_any_flipped_bit_of_a_statement_is_refused(bit: int) -> None:
    with pytest.raises(ReceiptError):
        verify_statement(flip(HONEST.statement, bit), SIG_PK)


def _paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [at]
    return [path for name, item in value.items() for path in _paths(item, (*at, name))]


@pytest.mark.parametrize("path", _paths(HONEST.claims.claims()), ids=".".join)
def test_a_changed_member_under_the_old_signature_is_refused(path: tuple[str, ...]) -> None:
    claims = HONEST.claims.claims()
    holder = claims
    for name in path[:-1]:
        holder = holder[name]
    old = holder[path[-1]]
    holder[path[-1]] = old + 1 if isinstance(old, int) and not isinstance(old, bool) else "other"
    message = parse_sign1(HONEST.statement)
    forged = encode(
        Tagged(18, [message.protected_raw, {}, canonical.encode(claims), message.signature])
    )
    with pytest.raises(ReceiptError):
        verify_statement(forged, SIG_PK)


NAMED = [path for path in _paths(HONEST.claims.claims()) if path[0] not in ("par", "cache")]


@pytest.mark.parametrize("path", NAMED, ids=".".join)
def test_a_missing_member_is_refused_even_when_signed(path: tuple[str, ...]) -> None:
    claims = HONEST.claims.claims()
    holder = claims
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    with pytest.raises(ReceiptError, match="expected a value, found none"):
        verify_statement(resign(claims), SIG_PK)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ReceiptError, match=r"statement\.v"):
        verify_statement(resign(HONEST.claims.claims() | {"v": 2}), SIG_PK)


def test_a_member_of_a_later_writer_is_kept() -> None:
    claims = HONEST.claims.claims() | {"rag": []}
    assert verify_statement(resign(claims), SIG_PK) == claims


def test_a_writer_cannot_add_or_forget_a_member() -> None:
    good = HONEST.claims.claims()
    for claims in (good | {"prompt": "hello"}, {k: v for k, v in good.items() if k != "use"}):
        with pytest.raises(MalformedError):
            sign_statement(claims, HONEST.sig, HONEST.bh, HONEST.claims.rid, SIG_PK)


def test_a_writer_cannot_frame_claims_about_another_request() -> None:
    with pytest.raises(ValueError, match="same binding and request"):
        sign_statement(HONEST.claims, HONEST.sig, HONEST.bh, bytes(16), SIG_PK)


def test_a_statement_by_another_key_is_refused() -> None:
    with pytest.raises(ReceiptError, match="worker key of the binding"):
        verify_statement(HONEST.statement, public(key("stranger")))


@pytest.mark.parametrize(
    "header",
    [
        {HEADER_CONTENT_TYPE: "application/json"},
        {HEADER_KID: bytes(16)},
        {HEADER_CWT_CLAIMS: {1: "anchorhold:worker/other", 2: "rid/other"}},
        {HEADER_CWT_CLAIMS: {1: f"anchorhold:worker/{b64u(HONEST.bh)}", 2: "rid/other"}},
        {33: b"certificate"},
    ],
)
def test_a_signed_header_that_frames_it_wrongly_is_refused(header: dict[int, Any]) -> None:
    with pytest.raises(ReceiptError):
        verify_statement(resign(HONEST.claims.claims(), header), SIG_PK)


def test_anything_outside_the_signature_is_refused() -> None:
    message = parse_sign1(HONEST.statement)
    added = encode(
        Tagged(18, [message.protected_raw, {394: [b"x"]}, message.payload, message.signature])
    )
    with pytest.raises(ReceiptError, match="empty unprotected"):
        verify_statement(added, SIG_PK)


def test_time_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ReceiptError, match="end not before start"):
        verify_statement(resign(HONEST.claims.claims() | {"t1": 0}), SIG_PK)


def test_a_statement_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(ReceiptError, match="at most"):
        parse_statement(bytes(20_000))


def test_non_canonical_claims_are_refused_even_when_signed() -> None:
    payload = canonical.encode(HONEST.claims.claims()).replace(b'"v":1', b'"v": 1')
    names = {1: f"anchorhold:worker/{b64u(HONEST.bh)}", 2: f"rid/{b64u(HONEST.claims.rid)}"}
    header = {HEADER_CONTENT_TYPE: CONTENT_TYPE, HEADER_KID: key_id(SIG_PK), 15: names}
    with pytest.raises(ReceiptError, match="canonical"):
        verify_statement(sign1(HONEST.sig, header, payload), SIG_PK)


# ---------------------------------------------------------------- the record and its log entry


def test_a_record_survives_a_round_trip() -> None:
    assert parse_record(HONEST.record.encode()) == HONEST.record


@given(st.integers(0, 8 * len(HONEST.record.encode()) - 1))
@settings(max_examples=400)
def test_any_flipped_bit_of_a_record_is_refused(bit: int) -> None:
    with pytest.raises(ReceiptError):
        verify(parse_record(flip(HONEST.record.encode(), bit)))


@pytest.mark.parametrize("bit", [0, 40, 170, 430, 900, 4000])
def test_a_flipped_bit_of_the_leaf_is_refused(bit: int) -> None:
    with pytest.raises(ReceiptError):
        verify(replace(HONEST.record, logged=flip_leaf(HONEST.logged, bit)))


def test_every_flipped_bit_of_the_leaf_head_is_refused() -> None:
    for bit in range(8 * 53):
        with pytest.raises(ReceiptError):
            verify(replace(HONEST.record, logged=flip_leaf(HONEST.logged, bit)))


def test_a_flipped_bit_of_the_path_is_refused() -> None:
    with pytest.raises(ReceiptError) as caught:
        verify(replace(HONEST.record, logged=flip_proof(HONEST.logged)))
    assert caught.value.code == "log_proof_invalid"


def test_a_flipped_bit_of_the_blind_is_refused() -> None:
    with pytest.raises(ReceiptError, match="does not commit to this statement"):
        verify(replace(HONEST.record, blind=flip(HONEST.blind)))


@pytest.mark.parametrize("index", [0, 2, 2**53 - 1, 2**63])
def test_another_index_is_refused(index: int) -> None:
    with pytest.raises(ReceiptError):
        verify(replace(HONEST.record, logged=replace(HONEST.logged, index=index)))


def test_a_checkpoint_by_another_log_key_is_refused() -> None:
    other = SimulatedLog(seed=b"other")
    note = other.sign(HONEST.log.size, HONEST.log.root())
    with pytest.raises(ReceiptError, match="known keys"):
        verify(replace(HONEST.record, logged=replace(HONEST.logged, checkpoint=note)))


def test_the_entry_of_another_answer_is_refused() -> None:
    other = Exchange(log=SimulatedLog(), changes={"rid": random("other rid", 16)})
    with pytest.raises(ReceiptError):
        verify(replace(HONEST.record, logged=other.logged))


def test_an_event_of_another_type_is_refused() -> None:
    record = replace(HONEST.record, logged=HONEST.verdict)
    with pytest.raises(ReceiptError, match=r"infer\.receipt expected"):
        verify(record)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("rid", b64u(bytes(16))),
        ("th", b64u(bytes(32))),
        ("kid", b64u(bytes(32))),
        ("wid", "w2"),
        ("wseq", 2),
        ("model", "other"),
        ("use", {"in": 64, "out": 192}),
        ("sc", b64u(bytes(32))),
    ],
)
def test_an_event_that_disagrees_with_its_statement_is_refused(member: str, value: object) -> None:
    exchange = Exchange(event_changes={member: value})
    with pytest.raises(ReceiptError):
        verify_record(
            exchange.record, public(exchange.sig), exchange.log.origin, [exchange.log.vkey]
        )


def test_the_commitment_hides_and_binds() -> None:
    sc = statement_commitment(HONEST.statement, HONEST.blind)
    assert statement_commitment(HONEST.statement, random("other")) != sc
    assert statement_commitment(flip(HONEST.statement), HONEST.blind) != sc
    with pytest.raises(ReceiptError):
        statement_commitment(HONEST.statement, b"short")


def test_verified_types_are_made_by_their_verifiers_only() -> None:
    receipt = verify(HONEST.record)
    entry = receipt.entry
    with pytest.raises(TypeError):
        VerifiedReceipt(receipt.claims, entry)
    with pytest.raises(TypeError):
        VerifiedEntry(entry.index, entry.event, entry.event_bytes, entry.checkpoint)


def test_an_entry_survives_a_round_trip_and_verifies() -> None:
    entry = Logged.from_json(HONEST.logged.to_json())
    assert entry == HONEST.logged
    assert verify_logged(entry, LOG.origin, [LOG.vkey]).index == entry.index


@pytest.mark.parametrize("name", ["index", "leaf", "blind", "event", "checkpoint", "proof"])
def test_an_entry_without_a_member_is_refused(name: str) -> None:
    document = HONEST.logged.to_json()
    del document[name]
    with pytest.raises(ReceiptError, match=name):
        Logged.from_json(document)
