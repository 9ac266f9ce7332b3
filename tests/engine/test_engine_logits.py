"""The network computes what transformers computes, however a sequence is cut into steps."""

from pathlib import Path

import pytest
import torch
from simulators.llamas import SHAPES, oracle_logits, random_llama

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.ops.rows import lay_out
from enclave_worker.engine.plan import Work, plan_step
from enclave_worker.engine.runner import Runner
from enclave_worker.engine.sequence import GenerationRequest, Sequence


def make_runner(folder: Path, pages: int = 64) -> Runner:
    config = EngineConfig(dtype="float32", kv_pages=pages)
    return Runner(ModelFolder.read(folder), config, 512)


def make_sequence(runner: Runner, tokens: list[int], pages: list[int] | None = None) -> Sequence:
    sequence = Sequence(GenerationRequest("s", tokens), 0, list(tokens), len(tokens), 512)
    sequence.pages = runner.pool.take(-(-len(tokens) // 16)) if pages is None else pages
    return sequence


def last_logits(runner: Runner, work: list[Work]) -> torch.Tensor:
    logits = runner.model.forward(plan_step(work), whole=True).values
    assert logits is not None
    for item in work:
        item.sequence.computed += item.count
    return logits


def random_tokens(count: int, vocab: int, seed: int = 5) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (count,), generator=generator).tolist()


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(shape: str, tmp_path: Path) -> None:
    oracle = random_llama(tmp_path, shape)
    runner = make_runner(tmp_path)
    tokens = random_tokens(150, oracle.config.vocab_size)
    expected = oracle_logits(oracle, tokens)
    for cut in (1, 2, 16, 17, 47, 149, 150):  # one chunk up to `cut`, then the rest, then one token
        sequence = make_sequence(runner, tokens[:cut])
        found = last_logits(runner, [Work(sequence, cut)])
        assert (found[0] - expected[cut - 1]).abs().max() < 1e-4
        runner.pool.give_back(sequence.pages)


@pytest.mark.parametrize("step", [1, 3, 16, 31])
def test_chunking_does_not_change_logits(step: int, tiny: tuple[Path, object]) -> None:
    folder, oracle = tiny
    runner = make_runner(folder)
    tokens = random_tokens(83, runner.model.config.vocab_size)
    expected = oracle_logits(oracle, tokens)
    sequence = make_sequence(runner, tokens)
    while sequence.pending > step:
        assert (
            last_logits(runner, [Work(sequence, step, wanted=0)]).shape[0] == 0
        )  # nobody asked for them
    found = last_logits(runner, [Work(sequence, sequence.pending)])
    assert (found[0] - expected[-1]).abs().max() < 1e-4


def test_one_step_serves_decoding_and_prompts_together(tiny: tuple[Path, object]) -> None:
    folder, oracle = tiny
    runner = make_runner(folder)
    vocab = runner.model.config.vocab_size
    texts = [random_tokens(n, vocab, seed=n) for n in (15, 16, 17, 33, 70, 5)]
    sequences = [make_sequence(runner, tokens) for tokens in texts]
    for sequence in sequences[:4]:
        last_logits(runner, [Work(sequence, sequence.pending - 1)])
    work = [Work(s, s.pending) for s in sequences]  # four single rows, two chunks
    found = last_logits(runner, work)
    for row, tokens in enumerate(texts):
        assert (found[row] - oracle_logits(oracle, tokens)[-1]).abs().max() < 1e-4


def test_scattered_pages_give_the_same_logits(tiny: tuple[Path, object]) -> None:
    """Far apart, pages are copied out instead of read in place."""
    folder, oracle = tiny
    runner = make_runner(folder)
    tokens = random_tokens(40, runner.model.config.vocab_size)
    sequence = make_sequence(runner, tokens, pages=[60, 2, 31])
    last_logits(runner, [Work(sequence, 39)])
    singles = lay_out(plan_step([Work(sequence, 1)]), 4, 2).singles
    assert singles is not None
    assert singles.stretch is None
    found = last_logits(runner, [Work(sequence, 1)])
    assert (found[0] - oracle_logits(oracle, tokens)[-1]).abs().max() < 1e-4


def test_a_foreign_page_full_of_nan_between_ours_changes_nothing(
    tiny: tuple[Path, object],
) -> None:
    folder, oracle = tiny
    runner = make_runner(folder)
    tokens = random_tokens(40, runner.model.config.vocab_size)
    sequence = make_sequence(runner, tokens, pages=[4, 6, 8])
    last_logits(runner, [Work(sequence, 39)])
    runner.model.store.keys[:, [5, 7]] = torch.nan
    runner.model.store.values[:, [5, 7]] = torch.nan
    singles = lay_out(plan_step([Work(sequence, 1)]), 4, 2).singles
    assert singles is not None
    assert singles.stretch == (4, 9)
    found = last_logits(runner, [Work(sequence, 1)])
    assert (found[0] - oracle_logits(oracle, tokens)[-1]).abs().max() < 1e-4


def test_bfloat16_follows_float32(tiny: tuple[Path, object]) -> None:
    folder, oracle = tiny
    config = EngineConfig(dtype="bfloat16", kv_pages=64)
    runner = Runner(ModelFolder.read(folder), config, 512)
    tokens = random_tokens(60, runner.model.config.vocab_size)
    sequence = make_sequence(runner, tokens)
    found = last_logits(runner, [Work(sequence, 60)])[0]
    expected = oracle_logits(oracle, tokens)[-1]
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999
