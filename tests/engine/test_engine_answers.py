"""Several answers to one request: one reading of the prompt, seeds of their own, one end each."""

import threading
from pathlib import Path

import pytest
import torch
from simulators.generation import generate, running

from enclave_worker.engine.engine import ANSWERS_MAX, Engine, answer_seed
from enclave_worker.engine.errors import EngineBusy, RequestInvalid
from enclave_worker.engine.events import TokenEvent, Usage
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

DRAWN = SamplingParams(seed=11, max_tokens=6, ignore_eos=True)
LENGTH = 40  # two full pages and a bit


def prompt(seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 300, (LENGTH,), generator=generator).tolist()


class Answers:
    """Events of one request with several answers."""

    def __init__(self, count: int) -> None:
        self.events: list[TokenEvent] = []
        self._left = count
        self._over = threading.Event()

    def __call__(self, event: TokenEvent) -> None:
        self.events.append(event)
        if event.finish is not None:
            self._left -= 1
            if not self._left:
                self._over.set()

    def wait(self) -> "Answers":
        assert self._over.wait(50)
        return self

    def text(self, index: int) -> str:
        return "".join(e.text for e in self.events if e.index == index)

    def usage(self, index: int) -> Usage:
        (last,) = [e for e in self.events if e.index == index and e.finish is not None]
        assert last.usage is not None
        return last.usage


def ask(engine: Engine, n: int, params: SamplingParams = DRAWN, **more: object) -> Answers:
    answers = Answers(n)
    engine.submit(GenerationRequest("many", prompt(), params, n=n, **more), answers)  # type: ignore[arg-type]
    return answers


def test_each_answer_is_what_its_own_seed_gives_alone(tiny: tuple[Path, object]) -> None:
    with running(tiny[0]) as engine:
        answers = ask(engine, 4).wait()
        for index in range(4):
            params = SamplingParams(seed=answer_seed(11, index), max_tokens=6, ignore_eos=True)
            alone = generate(engine, [prompt()], params)[0]
            assert answers.text(index) == alone.text
    assert len({answers.text(index) for index in range(4)}) == 4
    assert all(event.id == "many" for event in answers.events)


def test_the_first_answer_has_the_requests_own_seed() -> None:
    assert answer_seed(11, 0) == 11
    assert len({answer_seed(11, index) for index in range(ANSWERS_MAX)}) == ANSWERS_MAX


@pytest.mark.parametrize("salt", [b"", b"a salt"])
def test_the_prompt_is_read_once_also_without_a_salt(
    tiny: tuple[Path, object], salt: bytes
) -> None:
    with running(tiny[0]) as engine:
        answers = ask(engine, 3, cache_salt=salt).wait()
        stats = engine.stats()
    assert answers.usage(0).cached_tokens == 0
    assert [answers.usage(i).cached_tokens for i in (1, 2)] == [32, 32]
    assert stats.hits == 2
    assert stats.computed_tokens < 2 * LENGTH + 3 * 6


def test_an_answer_that_ends_with_its_first_token_holds_up_no_other(
    tiny: tuple[Path, object],
) -> None:
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    with running(tiny[0]) as engine:
        answers = ask(engine, 3, one).wait()
        assert engine.stats().running == engine.stats().waiting == 0
    assert [answers.usage(i).completion_tokens for i in range(3)] == [1, 1, 1]


def test_a_cancel_ends_all_of_them(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    with running(tiny[0], max_len=512) as engine:
        answers = ask(engine, 4, long)
        engine.cancel("many")
        answers.wait()
        stats = engine.stats()
    assert [e.finish for e in answers.events if e.finish is not None] == ["cancelled"] * 4
    assert stats.running == stats.waiting == 0


def test_too_many_answers_are_refused_and_each_takes_a_place(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], max_batch=2, max_waiting=3) as engine:
        for n in (0, ANSWERS_MAX + 1):
            with pytest.raises(RequestInvalid, match="expected 1 to 8"):
                ask(engine, n)
        with pytest.raises(EngineBusy, match="found 0 answers held and 6 more"):
            ask(engine, 6)
        ask(engine, 5).wait()
