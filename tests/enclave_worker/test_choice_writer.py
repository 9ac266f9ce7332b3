"""One choice: what a stream says of it, cut into any frames, is what its result holds."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from client.told import ChoiceTold
from enclave_worker.api.logprobs import Chosen, TokenLogprob
from enclave_worker.api.tool_reader import ToolReader
from enclave_worker.choice_writer import ChoiceWriter
from enclave_worker.engine.events import TokenEvent
from enclave_worker.engine.sampling.choice import Choice
from wire.packing import RecordQueue
from wire.records import TOKENS, TokenDelta
from wire.shaping import FRAME_SIZE, shaper_for

ANSWER = 'I look. <tool_call>\n{"name": "f", "arguments": {"a": "b}"}}\n</tool_call>'


def writer(index: int = 0, *, tools: bool = False, scores: bool = False) -> ChoiceWriter:
    numbers = itertools.count()

    def entry(choice: Chosen) -> TokenLogprob:
        return TokenLogprob.of(choice, 2, lambda token: b"\xff" * 3 if token else "é".encode())

    return ChoiceWriter(
        index,
        ToolReader("hermes") if tools else None,
        lambda: f"call_{next(numbers)}",
        entry if scores else None,
    )


def events(text: str, size: int, index: int = 0) -> list[TokenEvent]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    choice = Choice(1, -0.5, ((1, -0.5), (0, -1.5)))
    made = [TokenEvent("r", piece, 1, index=index, choices=(choice,)) for piece in pieces]
    return [*made, TokenEvent("r", "", 0, "stop", index=index, stop=2)]


def told(deltas: list[TokenDelta]) -> tuple[ChoiceTold, list[object]]:
    """The client's reading of them."""
    choice, scores = ChoiceTold(), []
    for delta in deltas:
        if delta.tail.get("l") == 1:
            scores += choice.scored(delta.text)
        elif "t" in delta.tail:
            choice.called(delta.tail, delta.text)
        else:
            choice.texts.append(delta.text)
        choice.finish = delta.tail.get("f", choice.finish)
    return choice, scores


@given(st.integers(1, 30), st.integers(0, 7), st.integers(60, 256))
def test_a_stream_cut_into_any_frames_tells_what_the_result_holds(
    size: int, index: int, frame: int
) -> None:
    choice = writer(index, tools=True, scores=True)
    queue = RecordQueue(256)
    for event in events(ANSWER, size, index):
        for delta in choice.take(event):
            queue.push(delta)
    read = []
    while queue:
        records = queue.take(max(frame, 100))
        assert sum(record.size for record in records) <= max(frame, 100)
        read += [TokenDelta.decode(r.data) for r in records if r.type == TOKENS]
    result = choice.result()
    heard, scores = told(read)
    assert heard.said() == result.said()
    assert result.text == "I look. "
    assert [(c.id, c.name, c.arguments) for c in result.calls] == [("call_0", "f", '{"a": "b}"}')]
    assert len(scores) == len(result.logprobs or ())
    assert (heard.finish, result.finish, result.stop) == ("stop", "stop", 2)
    assert all(delta.tail.get("i", 0) == index for delta in read)


def test_frames_of_a_cadence_are_all_alike_whatever_they_hold() -> None:
    choice = writer(tools=True, scores=True)
    shaper = shaper_for("cadence", stream=True, start=0.0)
    from enclave_worker.delivery import head_record

    shaper.push(head_record({"s": 200}))
    for event in events(ANSWER * 1, 3):
        for delta in choice.take(event):
            shaper.push(delta)
    shaper.close(None)
    plans = shaper.due(1000.0)
    assert {plan.size for plan in plans if not plan.final} == {FRAME_SIZE}
    assert shaper.done


def test_an_echo_comes_first_and_belongs_to_the_text() -> None:
    choice = writer()
    (delta,) = choice.begin("prompt ")
    assert delta == TokenDelta("prompt ")
    for event in events("answer", 2):
        choice.take(event)
    assert choice.result().text == "prompt answer"


def test_log_probabilities_travel_before_their_text() -> None:
    choice = writer(scores=True)
    first, second = choice.take(events("ab", 2)[0])
    assert first.tail == {"l": 1}
    assert json.loads(first.text) == [[255, 255, 255], -0.5, [[[255, 255, 255], -0.5], ["é", -1.5]]]
    assert second == TokenDelta("ab")
