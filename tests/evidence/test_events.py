"""Events have closed shapes without room for content; leaves hide, bind and hold exactly one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.log import flip

from evidence.events import (
    ATTEST_VERDICT,
    BODIES,
    INFER_RECEIPT,
    WORKER_SESSION,
    Source,
    attest_verdict_event,
    infer_receipt_event,
    parse_event,
    round_usage,
    stamp,
    worker_session_event,
)
from evidence.leaf import EVENT_MAX, HEAD_LEN, open_leaf, parse_leaf, public_leaf, read_public_leaf
from evidence.merkle import leaf_hash
from wire.canonical import encode, parse_evj1
from wire.errors import MalformedError, ReceiptError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = Source("gateway", "log.test", bytes(16))
BLIND = bytes(range(32))


def receipt_body(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rid": bytes(16),
        "th": bytes(32),
        "kid": bytes(32),
        "wid": "w1",
        "wseq": 1,
        "model": "m",
        "tokens_in": 1,
        "tokens_out": 65,
        "status": "stop",
        "sc": bytes(32),
    }
    return infer_receipt_event(**(facts | changes))


BODIES_MADE = {
    INFER_RECEIPT: receipt_body(),
    WORKER_SESSION: worker_session_event(
        phase="open", wid="w", bh=bytes(32), sig_pk=bytes(32), models=["m"], lease_s=10
    ),
    ATTEST_VERDICT: attest_verdict_event(
        bh=bytes(32),
        ok=False,
        kind="software",
        evidence=["sha256:" + "0" * 64],
        policy="sha256:" + "0" * 64,
        reasons=["software_not_allowed"],
        checks=[("1 form", True), ("2 chain", None)],
    ),
}


def made(event_type: str, body: dict[str, Any]) -> bytes:
    return stamp(event_type, body, eid=bytes(16), ts=1, source=SOURCE)


@pytest.mark.parametrize("event_type", sorted(BODIES_MADE))
def test_an_event_survives_a_round_trip(event_type: str) -> None:
    event = parse_event(made(event_type, BODIES_MADE[event_type]))
    assert (event.type, event.ts, event.body) == (event_type, 1, BODIES_MADE[event_type])


@pytest.mark.parametrize("event_type", sorted(BODIES_MADE))
def test_an_event_with_an_unnamed_member_is_not_written(event_type: str) -> None:
    with pytest.raises(MalformedError, match="prompt"):
        made(event_type, BODIES_MADE[event_type] | {"prompt": "hello"})


@pytest.mark.parametrize("event_type", sorted(BODIES_MADE))
def test_an_event_without_a_member_is_not_written(event_type: str) -> None:
    for name in BODIES_MADE[event_type]:
        with pytest.raises(MalformedError, match=name):
            made(event_type, {k: v for k, v in BODIES_MADE[event_type].items() if k != name})


def test_every_known_type_has_a_closed_shape() -> None:
    for event_type in BODIES:
        with pytest.raises(MalformedError):
            made(event_type, {"anything": 1})


def test_an_unknown_type_is_kept_opaque() -> None:
    assert parse_event(made("later.type", {"any": ["thing"]})).body == {"any": ["thing"]}


@pytest.mark.parametrize("event_type", ["", "one", "Upper.case", "a.b c", "a..b", "a.b\n"])
def test_a_type_that_is_not_dotted_words_is_refused(event_type: str) -> None:
    with pytest.raises(MalformedError):
        made(event_type, {})


def test_usage_in_an_event_is_rounded_up_to_64() -> None:
    assert receipt_body()["use"] == {"in": 64, "out": 128}
    assert [round_usage(count) for count in (0, 1, 64, 65)] == [0, 64, 64, 128]


@pytest.mark.parametrize(
    "value", [True, 1.5, -1, 2**53, "1", None, [1], {"n": 1}], ids=lambda v: repr(v)[:8]
)
def test_a_count_that_is_not_a_count_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        made(INFER_RECEIPT, receipt_body() | {"wseq": value})


def test_an_event_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most"):
        made("later.type", {"x": "y" * EVENT_MAX})


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"ts": "1"}, {"sev": "loud"}, {"src": {}}, {"eid": "x"}, {"body": []}, {"type": 1}],
    ids=str,
)
def test_a_frame_that_is_not_ours_is_refused(change: dict[str, Any]) -> None:
    document = parse_evj1(made("later.type", {})) | change
    with pytest.raises(MalformedError):
        parse_event(encode(document))


# ---------------------------------------------------------------- leaves


EVENT = made(INFER_RECEIPT, receipt_body())
LEAF = public_leaf(EVENT, BLIND)


def test_a_leaf_opens_to_its_event_only() -> None:
    open_leaf(LEAF, EVENT, BLIND)
    assert read_public_leaf(LEAF) == (EVENT, BLIND)
    for event, blind in ((flip(EVENT), BLIND), (EVENT, flip(BLIND)), (b"", BLIND), (EVENT, b"")):
        with pytest.raises(ReceiptError):
            open_leaf(LEAF, event, blind)


SEALED_BIT = 32  # the algorithm: flipped, it is a sealed leaf, whose body nobody here can read


@given(st.integers(0, 8 * len(LEAF) - 1).filter(lambda bit: bit != SEALED_BIT))
def test_any_flipped_bit_of_a_public_leaf_is_refused(bit: int) -> None:
    with pytest.raises(ReceiptError):
        open_leaf(flip(LEAF, bit), EVENT, BLIND)
    with pytest.raises(ReceiptError):
        read_public_leaf(flip(LEAF, bit))


@given(st.binary(max_size=600))
def test_leaf_sizes_come_in_steps(event: bytes) -> None:
    leaf = public_leaf(event, BLIND)
    assert (len(leaf) - HEAD_LEN) % 256 == 0
    assert read_public_leaf(leaf) == (event, BLIND)


def test_a_public_leaf_turned_into_a_sealed_one_is_another_leaf_of_the_tree() -> None:
    turned = flip(LEAF, SEALED_BIT)
    assert parse_leaf(turned).alg == 1
    assert leaf_hash(turned) != leaf_hash(LEAF)
    with pytest.raises(ReceiptError):
        read_public_leaf(turned)


def test_a_sealed_leaf_is_carried_and_checked_by_its_commitment_only() -> None:
    sealed = LEAF[:4] + b"\x01" + bytes(range(16)) + LEAF[21:53] + bytes(256)
    assert parse_leaf(sealed).alg == 1
    open_leaf(sealed, EVENT, BLIND)
    with pytest.raises(ReceiptError, match="public leaf"):
        read_public_leaf(sealed)
    with pytest.raises(ReceiptError, match="does not open"):
        open_leaf(sealed, flip(EVENT), BLIND)


@pytest.mark.parametrize(
    "leaf", [b"", LEAF[:53], b"EVL2" + LEAF[4:], LEAF[:4] + b"\x02" + LEAF[5:], bytes(30_000)]
)
def test_a_leaf_of_another_shape_is_refused(leaf: bytes) -> None:
    with pytest.raises(ReceiptError):
        parse_leaf(leaf)


def test_a_leaf_of_a_wrong_blind_or_event_size_is_a_caller_bug() -> None:
    with pytest.raises(ValueError, match="blind"):
        public_leaf(EVENT, b"short")
    with pytest.raises(ValueError, match="event"):
        public_leaf(bytes(EVENT_MAX + 1), BLIND)


# ---------------------------------------------------------------- official vectors


def test_canonical_form_agrees_with_rfc_8785_where_the_profile_applies(vectors: Path) -> None:
    checked, refused = [], []
    for source in sorted((vectors / "jcs/input").glob("*.json")):
        expected = (vectors / "jcs/output" / source.name).read_bytes()
        document = json.loads(source.read_text())
        try:
            assert encode(document) == expected
            checked.append(source.stem)
        except MalformedError:
            refused.append(source.stem)
    # french has non-ASCII keys and structures a float and a newline key: outside evj1, so refused
    assert (checked, refused) == (["arrays", "unicode"], ["french", "structures"])
