"""What an observer sees of a shaped stream: sizes and times, and nothing of the content."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from simulators.sealed_exchange import SealedExchange

from wire.limits import FRAME_PT_MAX
from wire.padding import padme, request_size
from wire.records import DATA, ERROR, HEAD, RECEIPT, TOKENS, Record, TokenDelta
from wire.shaping import (
    BUCKET_TOKENS,
    FINAL_SIZE,
    FRAME_SIZE,
    GRID_S,
    TICK_S,
    FramePlan,
    shaper_for,
)

STATUS = Record(HEAD, b'{"s":200}')
START = 1000.0


def receipt(size: int = 3000) -> Record:
    return Record(RECEIPT, b"r" * size)


@dataclass
class Observed:
    """A finished stream: what was seen from outside, and what the client read."""

    trace: list[tuple[float, int]] = field(default_factory=list)  # (ms from start, wire bytes)
    records: list[Record] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(
            TokenDelta.decode(record.data).text for record in self.records if record.type == TOKENS
        )


def run(
    pad: str,
    script: list[tuple[float, object]],
    *,
    stream: bool = True,
    poll: float | None = None,
    proof: Record | None = None,
) -> Observed:
    """Play `script` ((seconds, record or "close")) through a shaper and real seals."""
    exchange = SealedExchange()
    writer, reader, seen = exchange.writer(), exchange.reader(), Observed()
    reader.feed(writer.prelude())
    shaper = shaper_for(pad, stream=stream, start=START)
    events = [(START + at, what) for at, what in script]
    now = START
    while not shaper.done:
        while events and events[0][0] <= now + 1e-9:
            _, what = events.pop(0)
            if what == "close":
                shaper.close(proof if proof is not None else receipt())
            else:
                shaper.push(what)
        for plan in shaper.due(now):
            data = writer.write([plan])
            seen.trace.append((round((now - START) * 1000), len(data)))
            seen.records += reader.feed(data)
        if shaper.done:
            break
        moments = [at for at, _ in events[:1]]
        if poll is not None:
            moments.append(now + poll)
        if (at := shaper.next_at(now)) is not None:
            moments.append(at)
        now = min(moments)
    assert not events
    reader.finish()
    assert shaper.next_at(now) is None
    assert shaper.due(now + 100) == []
    return seen


def tokens(words: list[str], every: float, at: float = 0.0) -> list[tuple[float, object]]:
    script: list[tuple[float, object]] = [(0.0, STATUS)]
    script += [(at + i * every, TokenDelta(word)) for i, word in enumerate(words)]
    return [*script, (at + len(words) * every, "close")]


def test_cadence_sends_one_frame_of_one_size_every_100_ms():
    seen = run("cadence", tokens(["word "] * 40, 0.03))
    times = [at for at, _ in seen.trace]
    assert times == [i * 100 for i in range(len(times))]
    assert {size for _, size in seen.trace[:-1]} == {FRAME_SIZE + 20}
    assert seen.trace[-1][1] == FINAL_SIZE + 20
    assert seen.text == "word " * 40
    assert seen.records[-1] == receipt()


@pytest.mark.parametrize(
    "words",
    [
        ["a"] * 40,
        ["a very much longer piece of text "] * 40,
        ["y" * 800] + ["x"] * 39,
        [""] * 40,
        ["żółw 🐢 "] * 40,
    ],
)
def test_cadence_looks_the_same_whatever_is_said(words):
    assert (
        run("cadence", tokens(words, 0.03)).trace
        == run("cadence", tokens(["word "] * 40, 0.03)).trace
    )


@pytest.mark.parametrize("first", [0.0, 0.05, 0.31, 0.77])
def test_cadence_hides_when_the_first_token_came(first):
    script = [(0.0, STATUS), (first, TokenDelta("late")), (1.05, "close")]
    reference = [(0.0, STATUS), (1.05, "close")]
    assert run("cadence", script).trace == run("cadence", reference).trace


@pytest.mark.parametrize("end", [3.31, 3.35, 3.39, 3.4])
def test_cadence_hides_when_within_a_bucket_the_text_ended(end):
    # 35 and 36 frames are both padded to 36.
    trace = run("cadence", [(0.0, STATUS), (1.0, TokenDelta("x")), (end, "close")]).trace
    assert trace == run("cadence", [(0.0, STATUS), (3.45, "close")]).trace


@pytest.mark.parametrize("end", [0.0, 0.25, 0.95, 2.0, 3.33, 10.0, 33.3])
def test_cadence_ends_at_a_padme_number_of_frames(end):
    frames = len(run("cadence", [(0.0, STATUS), (end, "close")]).trace)
    assert frames == padme(frames)
    assert frames <= 1.12 * (end / TICK_S + 3)


def test_the_size_of_the_receipt_does_not_show():
    script = [(0.0, STATUS), (0.5, "close")]
    traces = {
        tuple(run("cadence", script, proof=receipt(size)).trace) for size in (0, 10, 4000, 8188)
    }
    assert len(traces) == 1


def test_a_receipt_too_large_for_the_final_frame_takes_a_whole_step_more():
    script = [(0.0, STATUS), (0.5, "close")]
    assert run("cadence", script, proof=receipt(8189)).trace[-1][1] == 2 * FINAL_SIZE + 20


def test_a_stream_may_end_without_a_receipt_and_looks_the_same():
    shaper = shaper_for("cadence", stream=True, start=START)
    shaper.push(STATUS)
    shaper.close(None)
    plans = shaper.due(START + 1)
    assert plans[-1] == FramePlan((), FINAL_SIZE, final=True)


def test_cadence_works_off_a_burst_without_changing_its_frames():
    text = "long text " * 300
    seen = run("cadence", [(0.0, STATUS), (0.01, TokenDelta(text)), (0.02, "close")])
    assert seen.text == text
    assert {size for _, size in seen.trace[:-1]} == {FRAME_SIZE + 20}


def test_cadence_splits_text_only_between_characters_and_keeps_the_end():
    text = "🐢" * 500
    delta = TokenDelta(text, {"f": "stop", "i": 1})
    seen = run("cadence", [(0.0, STATUS), (0.01, delta), (0.02, "close")])
    pieces = [TokenDelta.decode(r.data) for r in seen.records if r.type == TOKENS]
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.tail == {"i": 1} for piece in pieces[:-1])
    assert pieces[-1].tail == {"f": "stop", "i": 1}


def test_cadence_keeps_choices_apart_and_in_order():
    script = [(0.0, STATUS)]
    script += [(0.01, TokenDelta(word, {"i": i % 2})) for i, word in enumerate("abcd")]
    seen = run("cadence", [*script, (0.02, "close")])
    deltas = [TokenDelta.decode(r.data) for r in seen.records if r.type == TOKENS]
    assert [(delta.text, delta.tail) for delta in deltas] == [
        (word, {"i": i % 2}) for i, word in enumerate("abcd")
    ]


def test_neighbouring_text_of_one_choice_is_merged_up_to_its_finish():
    script = [(0.0, STATUS), (0.01, TokenDelta("a")), (0.02, TokenDelta("b", {"f": "stop"}))]
    script += [(0.03, TokenDelta("c"))]
    seen = run("cadence", [*script, (0.04, "close")])
    deltas = [TokenDelta.decode(r.data) for r in seen.records if r.type == TOKENS]
    assert deltas == [TokenDelta("ab", {"f": "stop"}), TokenDelta("c")]


def test_cadence_catches_up_after_a_stall_and_never_skips_a_tick():
    shaper = shaper_for("cadence", stream=True, start=START)
    shaper.push(STATUS)
    assert len(shaper.due(START)) == 1
    assert shaper.due(START + 0.05) == []
    assert len(shaper.due(START + 1.0)) == 10
    assert shaper.next_at(START + 1.0) == pytest.approx(START + 1.1)


def test_cadence_sends_nothing_before_head_and_keeps_its_clock():
    shaper = shaper_for("cadence", stream=True, start=START)
    assert shaper.due(START + 0.25) == []
    assert shaper.next_at(START + 0.25) is None
    shaper.push(STATUS)
    assert len(shaper.due(START + 0.25)) == 3
    assert shaper.next_at(START + 0.25) == pytest.approx(START + 0.3)


def test_polling_more_often_changes_nothing():
    script = tokens(["word "] * 20, 0.03)
    assert run("cadence", script, poll=0.004).trace == run("cadence", script).trace


def test_an_error_answer_is_shaped_like_any_other():
    error = Record(DATA, b'{"error":{"message":"' + b"m" * 700 + b'"}}')
    seen = run("cadence", [(0.0, Record(HEAD, b'{"s":400}')), (0.0, error), (0.01, "close")])
    assert {size for _, size in seen.trace[:-1]} == {FRAME_SIZE + 20}
    assert b"".join(r.data for r in seen.records if r.type == DATA) == error.data


def test_text_faster_than_the_frames_waits_and_the_frames_keep_their_size():
    seen = run("cadence", tokens(["word " * 40] * 20, 0.001))
    assert {size for _, size in seen.trace[:-1]} == {FRAME_SIZE + 20}
    assert len(seen.trace) > 4000 // FRAME_SIZE
    assert seen.text == "word " * 800


def test_bucket_waits_for_eight_tokens_or_100_ms_and_pads_to_steps():
    seen = run("bucket", tokens(["word "] * 30, 0.02))
    assert all((size - 20) % FRAME_SIZE == 0 for _, size in seen.trace)
    assert seen.trace[-1][1] == FINAL_SIZE + 20
    assert seen.text == "word " * 30
    times = [at for at, _ in seen.trace]
    assert times[:3] == [0, 120, 240]


def test_bucket_sends_eight_tokens_at_once():
    script = [(0.0, STATUS), *[(0.001, TokenDelta("x"))] * BUCKET_TOKENS, (1.0, "close")]
    assert [at for at, _ in run("bucket", script).trace] == [
        0,
        1,
        1000,
    ]


def test_bucket_spreads_a_large_text_over_frames():
    text = "x" * 200_000
    script = [(0.0, STATUS)]
    script += [(0.01, TokenDelta(text[at : at + 50_000])) for at in range(0, 200_000, 50_000)]
    assert run("bucket", [*script, (0.02, "close")]).text == text


def test_off_sends_everything_as_it_is():
    seen = run("off", [(0.0, STATUS), (0.01, TokenDelta("hello")), (0.02, "close")])
    assert seen.trace == [(0, STATUS.size + 20), (10, 11 + 20), (20, receipt().size + 20)]


BODY = Record(DATA, b'{"choices":[]}')


@pytest.mark.parametrize("size", [1, 500, 1000])
def test_a_body_is_padded_and_sent_on_the_grid(size):
    script = [(0.0, STATUS), (0.3, Record(DATA, b"x" * size)), (0.31, "close")]
    seen = run("cadence", script, stream=False)
    assert seen.trace == [(500, 1024 + 20), (500, FINAL_SIZE + 20)]
    assert b"".join(r.data for r in seen.records if r.type == DATA) == b"x" * size


@pytest.mark.parametrize("end", [0.26, 0.4, 0.499, 0.5])
def test_a_body_shows_its_time_only_to_the_grid(end):
    seen = run("cadence", [(0.0, STATUS), (0.0, BODY), (end, "close")], stream=False)
    assert {at for at, _ in seen.trace} == {2 * GRID_S * 1000}


@pytest.mark.parametrize("pad", ["cadence", "bucket", "off"])
def test_a_body_sealed_before_its_moment_is_the_same_body(pad):
    def shaper():
        fresh = shaper_for(pad, stream=False, start=START)
        fresh.push(STATUS)
        fresh.push(Record(DATA, b"x" * 70_000))
        return fresh

    late, early = shaper(), shaper()
    late.close(receipt())
    body = early.settle()
    assert early.settle() == [], "nothing is planned twice"
    assert early.due(START + 1) == [], "and nothing leaves before the receipt is there"
    early.close(receipt())
    assert body + early.due(START + 1) == late.due(START + 1)


@pytest.mark.parametrize("pad", ["cadence", "bucket", "off"])
def test_a_stream_has_no_frames_to_seal_before_their_moment(pad):
    shaper = shaper_for(pad, stream=True, start=START)
    shaper.push(STATUS)
    assert shaper.settle() == []


def test_a_large_body_keeps_padme_size_over_several_frames():
    script = [(0.0, STATUS), (0.0, Record(DATA, b"x" * 300_000)), (0.1, "close")]
    seen = run("cadence", script, stream=False)
    sizes = [size - 20 for _, size in seen.trace[:-1]]
    assert sum(sizes) == request_size(sum(sizes))
    assert sizes[:-1] == [FRAME_PT_MAX] * (len(sizes) - 1)
    assert b"".join(r.data for r in seen.records if r.type == DATA) == b"x" * 300_000


def test_a_body_under_bucket_is_padded_but_leaves_at_once():
    seen = run("bucket", [(0.0, STATUS), (0.0, BODY), (0.123, "close")], stream=False)
    assert seen.trace == [(123, 1024 + 20), (123, FINAL_SIZE + 20)]


def test_a_body_under_off_is_as_it_is():
    seen = run("off", [(0.0, STATUS), (0.0, BODY), (0.123, "close")], stream=False)
    assert seen.trace == [
        (123, STATUS.size + BODY.size + 20),
        (123, receipt().size + 20),
    ]


@pytest.mark.parametrize("pad", ["cadence", "bucket", "off"])
@pytest.mark.parametrize("stream", [True, False])
def test_shapers_refuse_what_no_answer_contains(pad, stream):
    def fresh():
        return shaper_for(pad, stream=stream, start=START)

    shaper = fresh()
    with pytest.raises(ValueError, match="HEAD comes first"):
        shaper.push(TokenDelta("x"))
    with pytest.raises(RuntimeError, match="after HEAD"):
        shaper.close(receipt())
    shaper.push(STATUS)
    with pytest.raises(ValueError, match="HEAD comes first, and once"):
        shaper.push(STATUS)
    with pytest.raises(ValueError, match="given to close"):
        shaper.push(receipt())
    with pytest.raises(ValueError, match="expected a RECEIPT"):
        shaper.close(STATUS)
    with pytest.raises(ValueError, match="expected a RECEIPT"):
        shaper.close(receipt(FRAME_PT_MAX))
    shaper.close(receipt())
    with pytest.raises(RuntimeError, match="after close"):
        shaper.push(TokenDelta("x"))
    with pytest.raises(RuntimeError, match="closed once"):
        shaper.close(receipt())


def test_cadence_refuses_records_that_could_never_be_sent():
    shaper = shaper_for("cadence", stream=True, start=START)
    with pytest.raises(ValueError, match="HEAD"):
        shaper.push(Record(HEAD, b"x" * 300))
    shaper.push(STATUS)
    with pytest.raises(ValueError, match="ERROR"):
        shaper.push(Record(ERROR, b"x" * 300))
    with pytest.raises(ValueError, match="tail"):
        shaper.push(TokenDelta("", {"lp": "x" * 300}))


def test_text_may_be_pushed_as_a_record():
    script = [
        (0.0, STATUS),
        (0.01, TokenDelta("a").record()),
        (0.02, TokenDelta("b")),
        (0.03, "close"),
    ]
    assert run("cadence", script).text == "ab"


def test_data_waits_for_the_next_frame_rather_than_be_cut_to_nothing():
    head = Record(HEAD, b"x" * (FRAME_SIZE - 8))  # four bytes of the frame stay free
    body = Record(DATA, b"y" * 300)
    seen = run("cadence", [(0.0, head), (0.0, body), (0.01, "close")])
    assert [record.data for record in seen.records[:2]] == [head.data, b"y" * 252]


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_due_while_nothing_was_said(stream):
    for pad in ("cadence", "bucket", "off"):
        shaper = shaper_for(pad, stream=stream, start=START)
        assert shaper.next_at(START) is None
        assert shaper.due(START) == []


def test_bucket_says_when_waiting_text_becomes_due():
    shaper = shaper_for("bucket", stream=True, start=START)
    shaper.push(STATUS)
    assert len(shaper.due(START)) == 1
    shaper.push(TokenDelta("x"))
    assert shaper.next_at(START + 0.5) == START + 0.5
    assert shaper.due(START + 0.5) == []
    assert shaper.next_at(START + 0.5) == pytest.approx(START + 0.6)
