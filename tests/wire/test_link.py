"""The link cuts a byte stream into messages and refuses the first impossible one."""

from __future__ import annotations

import pytest

from wire.errors import MalformedError
from wire.limits import JSON_MAX, LINK_ITEMS_MAX, NOTICE_MAX
from wire.link import (
    BYTES,
    CANCEL,
    CHALLENGE,
    CHALLENGE_ANSWER,
    DONE,
    FROM_STRANGERS,
    FROM_WORKERS,
    HEARTBEAT,
    HELLO,
    JOB,
    KEYS,
    NOTICE,
    PULL,
    RECEIPT,
    WITH_RID,
    Decoder,
    Message,
    MessageType,
    encode,
    hello_bytes,
    json_message,
    pull_bytes,
    raw_message,
)

RID = bytes(range(16))
SOME = [
    json_message(CHALLENGE, {"nonce": "AA", "gw": "g"}),
    json_message(HEARTBEAT, {}),
    raw_message(JOB, RID, b"AHQ1" * 1000),
    raw_message(CANCEL, RID),
    raw_message(BYTES, RID, b""),
    json_message(NOTICE, {"code": "busy"}, rid=RID),
    json_message(RECEIPT, {"event": "AA"}, rid=RID),
]


@pytest.mark.parametrize("cut", [100_000, 1, 3, 7])
def test_messages_read_back_as_written_however_they_are_cut(cut):
    stream = b"".join(encode(message) for message in SOME)
    decoder, found = Decoder(), []
    for at in range(0, len(stream), cut):
        found += decoder.feed(stream[at : at + cut])
    assert found == SOME
    assert decoder.empty


def test_the_length_counts_type_and_payload():
    assert encode(json_message(HEARTBEAT, {})).hex() == "00000003" + "09" + b"{}".hex()


def test_a_message_gives_its_parts():
    message = json_message(NOTICE, {"code": "busy"}, rid=RID)
    assert (message.rid, message.json()) == (RID, {"code": "busy"})
    job = raw_message(JOB, RID, b"data")
    assert (job.rid, job.data) == (RID, b"data")


@pytest.mark.parametrize(
    "data",
    [
        "0000000009",
        "0500000109",
        "ffffffff09",
        "0000000100",
        "0000000117",
        "00000001ff",
        "000000100b",
        "000000100e",
        "000000120c",
        "0000000a0c",
    ],
)
def test_an_impossible_message_is_refused_from_its_first_five_bytes(data):
    with pytest.raises(MalformedError, match="link"):
        Decoder().feed(bytes.fromhex(data))


def test_a_json_message_beyond_its_limit_is_refused_before_it_arrives():
    with pytest.raises(MalformedError, match="JSON message"):
        Decoder().feed((JSON_MAX + 100).to_bytes(4, "big") + bytes([PULL]))


def test_a_receiver_may_set_a_smaller_limit():
    with pytest.raises(MalformedError, match="expected 1 to 100"):
        Decoder(limit=100).feed((101).to_bytes(4, "big") + bytes([JOB]))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"a":1,"a":1}', b"\xff", b"[" * 100])
def test_a_payload_that_is_no_strict_object_is_refused(payload):
    for message in (Message(PULL, payload), Message(NOTICE, RID + payload)):
        with pytest.raises(MalformedError):
            message.json()


def test_a_message_of_evidence_or_an_event_holds_few_items_and_others_as_many_as_fit():
    few = b'{"a":[' + b"1," * (LINK_ITEMS_MAX - 2) + b"1]}"  # and two brackets
    many = few[:-2] + b",1]}"
    for kind, rid in ((HELLO, b""), (KEYS, b""), (CHALLENGE_ANSWER, b""), (RECEIPT, RID)):
        assert len(Message(kind, rid + few).json()["a"]) == LINK_ITEMS_MAX - 1
        with pytest.raises(MalformedError, match="at most 256 items, found 257"):
            Message(kind, rid + many).json()
        with pytest.raises(MalformedError, match="256 items"):  # before its form is looked at
            Message(kind, rid + b"," * (LINK_ITEMS_MAX + 1)).json()
    assert len(Message(PULL, many).json()["a"]) == LINK_ITEMS_MAX


@pytest.mark.parametrize("nested", [b'{"":' * 300 + b"0" + b"}" * 300, b"[" * 900 + b"]" * 900])
def test_what_is_nested_deeply_in_a_few_places_counts_as_many_items(nested):
    with pytest.raises(MalformedError, match="at most 256 items"):
        Message(HELLO, b'{"a":[' + b",".join([nested] * 250) + b"]}").json()


@pytest.mark.parametrize("kind", list(MessageType))
def test_a_receiver_takes_what_it_expects_and_no_more_of_it(kind):
    decoder = Decoder(expected={kind: 100})
    whole = encode(Message(kind, bytes(16 if kind == CANCEL else 100)))
    assert len(decoder.feed(whole)) == 1
    if kind != CANCEL:
        with pytest.raises(MalformedError, match="found 101 bytes, expected at most 100"):
            decoder.feed((102).to_bytes(4, "big") + bytes([kind]))
    with pytest.raises(MalformedError, match="not expected now"):
        Decoder(expected={}).feed(whole[:5])


def test_what_a_worker_sends_has_room_in_what_a_gateway_expects():
    sent = {HELLO, KEYS, PULL, HEARTBEAT, BYTES, NOTICE, RECEIPT, DONE, CHALLENGE_ANSWER}
    sent |= {MessageType.ACTIVATED, MessageType.PROVED, MessageType.GOODBYE}
    assert set(FROM_WORKERS) == sent
    assert FROM_WORKERS[NOTICE] >= 16 + NOTICE_MAX
    assert FROM_WORKERS[RECEIPT] >= 16 + len(json_message(HELLO, {"event": "A" * 21_846}).body)
    assert FROM_STRANGERS.items() <= FROM_WORKERS.items()


def test_a_decoder_says_what_it_holds():
    decoder = Decoder()
    stream = encode(raw_message(JOB, RID, b"data"))
    decoder.feed(stream[:10])
    assert decoder.held == 10
    decoder.feed(stream[10:])
    assert decoder.held == 0


def test_parts_a_type_does_not_have_cannot_be_asked_for():
    with pytest.raises(MalformedError, match="no request id"):
        _ = Message(PULL, b"{}").rid
    with pytest.raises(MalformedError, match="no request id"):
        _ = Message(PULL, b"{}").data
    with pytest.raises(MalformedError, match="not JSON"):
        raw_message(JOB, RID, b"{}").json()


def test_caller_mistakes_are_value_errors():
    with pytest.raises(ValueError, match="16 bytes"):
        raw_message(JOB, b"short")
    with pytest.raises(ValueError, match="0 bytes"):
        json_message(PULL, {}, rid=RID)
    with pytest.raises(ValueError, match="at most"):
        encode(Message(JOB, bytes(80 * 1024 * 1024)))


def test_types_and_their_numbers_are_those_of_the_specification():
    assert [kind.value for kind in MessageType] == list(range(1, 23))
    assert {kind.name for kind in WITH_RID} == {
        "JOB", "CANCEL", "BYTES", "NOTICE", "RECEIPT", "LOGGED", "DONE",
    }  # fmt: skip


def test_what_a_worker_signs_names_nonce_sequence_and_credits():
    assert hello_bytes(b"n" * 32, b"b" * 32) == b"anchorhold/1 pull\0" + b"n" * 32 + b"b" * 32
    assert pull_bytes(b"n", 1, 2) == b"anchorhold/1 pull\0n" + bytes(7) + b"\1" + bytes(3) + b"\2"
