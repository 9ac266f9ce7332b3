"""What one caller learns of another's prompts from the prefix cache of a real engine: nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.generation import Answer, running

from enclave_worker.engine.engine import Engine
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

PROMPT = [3 + (i * 37) % 290 for i in range(70)]
Ask = Callable[[list[int], str, bytes], int]


def asking(engine: Engine) -> Ask:
    """Ask one request after the other; returns the tokens that came from the cache."""
    names = iter(range(10_000))

    def ask(tokens: list[int], tenant: str, salt: bytes) -> int:
        params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
        answer = Answer(tokens)
        request = GenerationRequest(
            str(next(names)), tokens, params, tenant=tenant, cache_salt=salt
        )
        engine.submit(request, answer)
        usage = answer.wait().usage
        assert usage is not None
        assert answer.finish == "length"
        return usage.cached_tokens

    return ask


def check_pairs(ask: Ask) -> None:
    """The same tenant and salt hit; any other of the two misses; so does no salt, with itself."""
    assert ask(PROMPT, "a", b"one") == 0
    assert ask(PROMPT, "a", b"two") == 0
    assert ask(PROMPT, "b", b"one") == 0
    assert ask(PROMPT, "a", b"") == 0
    assert ask(PROMPT, "a", b"") == 0
    assert ask(PROMPT, "a", b"one") == 64
    assert ask(PROMPT, "b", b"one") == 64


def holes(engine: Engine) -> list[int]:
    """Free pages with something in them."""
    runner = engine._core
    assert runner is not None
    free = set(range(engine.config.kv_pages)) - runner.pool.taken
    return [page for page in free if not runner.model.is_clean(page)]


def test_only_the_same_tenant_with_the_same_salt_hits(tiny: tuple[Path, object]) -> None:
    with running(tiny[0]) as engine:
        check_pairs(asking(engine))


def test_that_check_fails_where_nothing_is_cached(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], prefix_cache=False) as engine, pytest.raises(AssertionError):
        check_pairs(asking(engine))


@pytest.mark.parametrize("ignored", ["salt", "tenant"])
def test_that_check_fails_where_salt_or_tenant_is_ignored(
    ignored: str, tiny: tuple[Path, object]
) -> None:
    def ask_ignoring(tokens: list[int], tenant: str, salt: bytes) -> int:
        return ask(tokens, *((tenant, b"all") if ignored == "salt" else ("all", salt)))

    with running(tiny[0]) as engine:
        ask = asking(engine)
        with pytest.raises(AssertionError):
            check_pairs(ask_ignoring)


def test_a_flood_leaves_another_tenant_s_pages_in_place(tiny: tuple[Path, object]) -> None:
    with running(tiny[0], kv_pages=40) as engine:
        ask = asking(engine)
        ask(PROMPT, "modest", b"s")
        for seed in range(60):
            ask([3 + (i * 37 + seed) % 290 for i in range(90)], "flood", bytes([seed % 3 + 1]))
        assert engine.stats().evictions > 200
        assert not holes(engine)
        assert ask(PROMPT, "modest", b"s") == 64


def test_cached_pages_outlive_their_request_and_are_zeros_when_the_engine_has_stopped(
    tiny: tuple[Path, object],
) -> None:
    with running(tiny[0], kv_pages=40) as engine:
        asking(engine)(PROMPT, "a", b"s")
        assert engine.stats().cached_pages == 4
        assert engine.stats().free_pages == 36
        assert not holes(engine)
        runner = engine._core
        assert runner is not None
        assert sum(not runner.model.is_clean(page) for page in range(40)) == 4
    assert runner.pool.free == 40
    assert not holes(engine)
    runner.pages.check()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 70), st.sampled_from("ab")), min_size=2, max_size=8))
def test_a_hit_gives_the_tokens_that_are_computed_without(
    tiny: tuple[Path, object], asked: list[tuple[int, str]]
) -> None:
    def answers(caching: bool) -> list[list[int]]:
        with running(tiny[0], kv_pages=24, prefix_cache=caching) as engine:
            made = []
            for index, (length, tenant) in enumerate(asked):
                params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
                answer = Answer(PROMPT[:length])
                request = GenerationRequest(
                    str(index), PROMPT[:length], params, tenant=tenant, cache_salt=b"s"
                )
                with engine._wake:
                    engine.submit(request, answer)
                    answer.sequence_tokens = engine._streams[request.id].sequence.tokens
                made.append(answer)
            return [answer.wait().tokens for answer in made]

    assert answers(True) == answers(False)
