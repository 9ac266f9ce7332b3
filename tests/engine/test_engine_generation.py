"""What a caller sees: the same tokens in any batch, endings, limits, and nothing left over."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.generation import Answer, generate, running, submit
from simulators.llamas import oracle_logits

from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import (
    EngineBusy,
    EngineStopped,
    RequestInvalid,
    RequestTooLong,
)
from enclave_worker.engine.events import TokenEvent
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return torch.randint(3, 300, (length,), generator=generator).tolist()


def all_free(engine: Engine) -> bool:
    stats = engine.stats()
    return stats.free_pages == stats.total_pages and not stats.running and not stats.waiting


def all_zero(engine: Engine) -> bool:
    return all(engine._core.model.is_clean(page) for page in range(engine.config.kv_pages))


@pytest.mark.parametrize("length", [1, 2, 14, 15, 16, 17, 31, 32, 33, 48])
def test_greedy_equals_transformers_across_page_edges(
    length: int, tiny: tuple[Path, object]
) -> None:
    folder, oracle = tiny
    with running(folder) as engine:
        answer = generate(engine, [prompt(length)], GREEDY)[0]
    whole = answer.prompt + answer.tokens
    expected = oracle_logits(oracle, whole[:-1])[length - 1 :].argmax(-1).tolist()
    assert answer.tokens == expected


def test_batch_composition_does_not_change_greedy_tokens(tiny: tuple[Path, object]) -> None:
    prompts = [prompt(n, seed=1) for n in (3, 16, 17, 40, 64, 65, 90, 7)]
    with running(tiny[0]) as engine:
        together = generate(engine, prompts, GREEDY)
        for text, answer in zip(prompts, together, strict=True):
            assert generate(engine, [text], GREEDY)[0].tokens == answer.tokens
        assert all_free(engine)


def test_small_step_budget_gives_the_same_tokens(tiny: tuple[Path, object]) -> None:
    prompts = [prompt(n, seed=2) for n in (40, 64, 9)]
    with running(tiny[0]) as engine:
        expected = [a.tokens for a in generate(engine, prompts, GREEDY)]
    with running(tiny[0], step_budget=5, max_batch=3) as engine:
        assert [a.tokens for a in generate(engine, prompts, GREEDY)] == expected


def test_seeded_sampling_is_the_same_alone_and_in_a_batch(tiny: tuple[Path, object]) -> None:
    kinds = [
        SamplingParams(seed=1, max_tokens=24, ignore_eos=True),
        SamplingParams(seed=2, temperature=0.7, top_p=0.9, max_tokens=24, ignore_eos=True),
        SamplingParams(seed=3, top_k=12, max_tokens=24, ignore_eos=True),
        SamplingParams(seed=4, min_p=0.02, temperature=1.5, max_tokens=24, ignore_eos=True),
        GREEDY,
    ]
    prompts = [prompt(20 + i, seed=3) for i in range(len(kinds))]
    with running(tiny[0]) as engine:
        together = [a.tokens for a in generate(engine, prompts, kinds)]
        alone = [generate(engine, [p], k)[0].tokens for p, k in zip(prompts, kinds, strict=True)]
        assert alone == together
        other = generate(engine, [prompts[0]], SamplingParams(seed=9, max_tokens=24))[0]
        assert other.tokens != together[0]


def test_without_a_seed_answers_differ(tiny: tuple[Path, object]) -> None:
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    with running(tiny[0]) as engine:
        first, second = generate(engine, [prompt(8)] * 2, params)
    assert first.tokens != second.tokens


def test_preemption_gives_the_same_tokens(tiny: tuple[Path, object]) -> None:
    prompts = [prompt(n, seed=4) for n in (30, 28, 33, 25)]
    kinds = [
        SamplingParams(temperature=0, max_tokens=60, ignore_eos=True),
        SamplingParams(seed=5, max_tokens=60, ignore_eos=True),
        SamplingParams(seed=6, top_p=0.8, max_tokens=60, ignore_eos=True),
        SamplingParams(temperature=0, max_tokens=60, ignore_eos=True),
    ]
    with running(tiny[0]) as engine:
        expected = [a.tokens for a in generate(engine, prompts, kinds)]
        assert engine.stats().preemptions == 0
    with running(tiny[0], kv_pages=14) as engine:  # room for about two of the four at full length
        found = generate(engine, prompts, kinds)
        assert engine.stats().preemptions > 0
        assert [a.tokens for a in found] == expected
        assert all_free(engine)
        assert all_zero(engine)


def test_freed_pages_are_zero(tiny: tuple[Path, object]) -> None:
    with running(tiny[0]) as engine:
        generate(engine, [prompt(50), prompt(3)], GREEDY)
        assert engine.stats().sampled_tokens == 40
        assert all_zero(engine)


def test_cancel_frees_all_pages_within_a_step(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    with running(tiny[0]) as engine:
        steps_at_cancel = []
        answer = Answer(prompt(30))

        def listener(event: TokenEvent) -> None:
            if len(answer.events) == 5:  # on the engine thread, in the middle of a step
                engine.cancel("a")
                steps_at_cancel.append(engine.stats().steps)
            answer(event)

        engine.submit(GenerationRequest("a", answer.prompt, long), listener)
        answer.wait()
        assert answer.finish == "cancelled"
        assert engine.stats().steps == steps_at_cancel[0]
        assert answer.usage is not None
        assert answer.usage.completion_tokens < 20
        assert all_free(engine)
        assert all_zero(engine)


def test_a_waiting_request_can_be_cancelled(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    with running(tiny[0], max_batch=1) as engine:
        first = submit(engine, prompt(5), long, "first")
        second = submit(engine, prompt(5), long, "second")
        engine.cancel("second")
        assert second.wait().finish == "cancelled"
        assert second.text == ""
        assert first.finish is None
        engine.cancel("first")
        first.wait()


def test_requests_join_while_others_run(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    with running(tiny[0]) as engine:
        first = submit(engine, prompt(5), long, "first")
        second = submit(engine, prompt(6), GREEDY, "second").wait()
        assert second.finish == "length"
        assert first.finish is None  # the later, shorter request did not wait for it
        engine.cancel("first")
        first.wait()


def test_an_end_token_ends_the_answer_unless_ignored(tiny: tuple[Path, object]) -> None:
    # A high temperature draws from 384 tokens about evenly, so the end token comes up soon.
    hot = SamplingParams(temperature=90.0, seed=1, max_tokens=470)
    with running(tiny[0]) as engine:
        answer = generate(engine, [prompt(5)], hot)[0]
        assert answer.finish == "stop"
        assert answer.tokens[-1] == 2
        assert 2 not in answer.tokens[:-1]
        assert "<|im_end|>" not in answer.text
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(answer.tokens)
        ignored = SamplingParams(temperature=90.0, seed=1, max_tokens=470, ignore_eos=True)
        assert generate(engine, [prompt(5)], ignored)[0].finish == "length"


def test_text_arrives_in_pieces_that_make_the_whole(tiny: tuple[Path, object]) -> None:
    params = SamplingParams(seed=7, temperature=3.0, max_tokens=200, ignore_eos=True)
    with running(tiny[0]) as engine:
        answer = generate(engine, [prompt(9)], params)[0]
        assert answer.text == engine.tokenizer.decode(answer.tokens)
        assert sum(event.tokens for event in answer.events) == 200
        assert [event.finish for event in answer.events[:-1]] == [None] * (len(answer.events) - 1)


@pytest.fixture(scope="module")
def kept_engine(tiny: tuple[Path, object]) -> Iterator[Engine]:
    """One engine for all examples of the test below."""
    with running(tiny[0]) as engine:
        yield engine


@settings(deadline=None, max_examples=15)
@given(start=st.integers(0, 60), size=st.integers(1, 12), cut=st.integers(1, 8))
def test_a_stop_string_ends_the_answer_and_never_shows(
    start: int, size: int, cut: int, kept_engine: Engine
) -> None:
    """Any stretch of the free-running text, taken as the stop string, cuts it before itself."""
    engine = kept_engine
    params = {"seed": 8, "temperature": 2.0, "max_tokens": 80, "ignore_eos": True}
    free = generate(engine, [prompt(9)], SamplingParams(**params))[0].text
    stop = free[start : start + size]
    if not stop or "\ufffd" in stop:
        return
    answer = generate(engine, [prompt(9)], SamplingParams(stop=(stop, "\ue000" * cut), **params))[0]
    assert answer.finish == "stop"
    assert answer.text == free[: free.index(stop)]


def test_nan_logits_fail_their_own_request_only(tiny: tuple[Path, object]) -> None:
    with running(tiny[0]) as engine:
        poison = 299
        with torch.inference_mode():
            engine._core.model._embedding[poison] = torch.nan
        # The head is a packed copy made before, so only prompts holding the token are affected.
        good, bad = generate(engine, [prompt(7), [4, poison, 6]], GREEDY)
        assert poison not in good.prompt
        assert good.finish == "length"
        assert bad.finish == "error"
        assert bad.text == ""
        assert all_free(engine)
        assert all_zero(engine)


def test_a_failing_step_fails_its_requests_and_the_engine_goes_on(
    tiny: tuple[Path, object], caplog: pytest.LogCaptureFixture
) -> None:
    with running(tiny[0]) as engine:
        model = engine._core.model
        cos, model._cos = model._cos, model._cos[:10]  # positions from 10 on are out of range
        first, second = generate(engine, [prompt(12), prompt(13)], GREEDY)
        assert first.finish == second.finish == "error"
        assert engine.stats().step_errors >= 1
        assert all_free(engine)
        model._cos = cos
        assert generate(engine, [prompt(12)], GREEDY)[0].finish == "length"
    assert "engine step failed: IndexError" in caplog.text


def test_a_listener_that_raises_loses_its_own_request_only(
    tiny: tuple[Path, object], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: TokenEvent) -> None:
        raise RuntimeError(event.text)

    with running(tiny[0]) as engine:
        engine.submit(GenerationRequest("broken", prompt(4), GREEDY), broken)
        assert generate(engine, [prompt(12)], GREEDY)[0].finish == "length"
        assert all_free(engine)
    assert "engine listener failed: RuntimeError" in caplog.text


def test_a_full_engine_is_busy_and_recovers(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    with running(tiny[0], max_batch=2, max_waiting=3) as engine:
        answers = [submit(engine, prompt(4), long, str(i)) for i in range(5)]
        with pytest.raises(EngineBusy, match="found 5 answers held and 1 more"):
            submit(engine, prompt(4), GREEDY, "one too many")
        for index, answer in enumerate(answers):
            engine.cancel(str(index))
            answer.wait()
        assert generate(engine, [prompt(4)], GREEDY)[0].finish == "length"


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        ([], RequestInvalid, "expected one or more"),
        ([-1], RequestInvalid, "each from 0 to"),
        ([100_000], RequestInvalid, "each from 0 to"),
        ([True], RequestInvalid, "each from 0 to"),
        ([3] * 493, RequestTooLong, "found 493 prompt tokens and max_tokens 20, expected at most"),
    ],
)
def test_requests_that_cannot_run_are_refused(
    tokens: list[int], error: type[Exception], words: str, tiny: tuple[Path, object]
) -> None:
    with running(tiny[0]) as engine, pytest.raises(error, match=words):
        submit(engine, tokens, GREEDY)


def test_the_longest_request_fits(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], kv_pages=32) as engine:
        assert engine.max_len == 512
        assert generate(engine, [prompt(492)], GREEDY)[0].finish == "length"


def test_the_pool_bounds_the_length(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], kv_pages=3) as engine:
        assert engine.max_len == 48
        assert generate(engine, [prompt(28)], GREEDY)[0].finish == "length"
        with pytest.raises(RequestTooLong, match="at most 48 together"):
            submit(engine, prompt(29), GREEDY)


def test_an_id_in_use_is_refused(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    with running(tiny[0]) as engine:
        answer = submit(engine, prompt(4), long, "same")
        with pytest.raises(RequestInvalid, match="in use"):
            submit(engine, prompt(4), long, "same")
        engine.cancel("same")
        answer.wait()
        submit(engine, prompt(4), GREEDY, "same").wait()


def test_the_prompt_is_copied(tiny: tuple[Path, object]) -> None:
    tokens = prompt(9)
    with running(tiny[0]) as engine:
        expected = generate(engine, [tokens], GREEDY)[0].tokens
        request = GenerationRequest("r", list(tokens), GREEDY)
        answer = Answer(list(tokens))
        engine.submit(request, answer)
        request.prompt_tokens.clear()
        assert answer.wait().usage is not None
        assert answer.usage.prompt_tokens == 9
        assert answer.text == engine.tokenizer.decode(expected)


def test_stop_joins_the_thread_and_cancels_what_runs(tiny: tuple[Path, object]) -> None:
    long = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    with running(tiny[0]) as engine:
        answers = [submit(engine, prompt(4), long, str(i)) for i in range(3)]
        engine.stop()
        assert [answer.finish for answer in answers] == ["cancelled"] * 3
        assert not engine._thread.is_alive()
        assert all_free(engine)
        with pytest.raises(EngineStopped):
            submit(engine, prompt(4), GREEDY)


def test_an_idle_engine_uses_no_processor_time(tiny: tuple[Path, object]) -> None:
    with running(tiny[0]) as engine:
        generate(engine, [prompt(4)], GREEDY)
        clock = time.pthread_getcpuclockid(engine._thread.ident)
        before = time.clock_gettime(clock)
        time.sleep(0.3)
        assert time.clock_gettime(clock) - before < 0.01


def test_submitting_from_many_threads_at_once(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], max_batch=8) as engine:
        expected = generate(engine, [prompt(6)], GREEDY)[0].tokens
        answers: list[Answer] = []

        def work(name: int) -> None:
            mine = [submit(engine, prompt(6), GREEDY, f"{name}-{index}") for index in range(4)]
            answers.extend(answer.wait() for answer in mine)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.tokens for answer in answers] == [expected] * 24
        assert all_free(engine)
