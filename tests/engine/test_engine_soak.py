"""The soak's short form: mixed requests twice, in other company, under memory pressure."""

from pathlib import Path

import numpy as np
import pytest
from simulators.llamas import quantise_folder, random_llama

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.ops.library import candidates
from soak.orders import Order, orders
from soak.run import Run, differences

pytestmark = pytest.mark.timeout(240)
COUNT = 300
# The longest request takes 12 of them: sequences are preempted and cached pages evicted.
PAGES = 44


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("soak")
    random_llama(source / "float", max_position_embeddings=256)
    quantise_folder(source / "float", source / "int8")
    return source / "int8"


def run(engine: Engine, made: list[Order], at_once: int) -> Run:
    done = Run(engine, at_once=at_once)
    done.all(made, lambda _number: None)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.step_errors) == (0, 0, 0)
    assert stats.free_pages + stats.cached_pages == stats.total_pages
    return done


def test_mixed_requests_give_the_same_bits_in_any_company(int8: Path) -> None:
    config = EngineConfig(dtype="w8a8", kv_pages=PAGES, max_batch=8, max_len=192)
    if not candidates(config):
        pytest.skip("no C++ compiler made the kernels")
    engine = Engine(int8, config)
    engine.start()
    try:
        made = list(orders(engine, 3, COUNT))
        first = run(engine, made, 16)
        second = run(engine, [made[i] for i in np.random.default_rng(4).permutation(COUNT)], 3)
        stats = engine.stats()
        assert engine._core is not None
        engine._core.pages.check()
    finally:
        engine.stop()
    assert differences(first, second) == []
    assert stats.preemptions
    assert stats.evictions
    assert stats.hits
    finishes = {outcome.finish for outcome in first.outcomes.values()}
    assert finishes == {"length", "stop", "cancelled"}


def test_a_difference_between_runs_is_noticed(int8: Path) -> None:
    """The comparison itself: a changed seed must show."""
    engine = Engine(int8, EngineConfig(dtype="w8a8", kv_pages=64, max_len=192))
    engine.start()
    try:
        one = run(engine, list(orders(engine, 3, 12)), 4)
        other = run(engine, list(orders(engine, 5, 12)), 4)
    finally:
        engine.stop()
    assert differences(one, other)
