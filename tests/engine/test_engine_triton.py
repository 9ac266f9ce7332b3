"""The GPU path, on a CPU: its kernel in Triton's interpreter, its staging, its captured steps.

What only a GPU can show, compiled code and CUDA graphs, is for `bench/gpu.py` to show on one.
"""

import ast
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.llamas import oracle_logits
from simulators.steps import Pages, Text, plan_of, random_tokens, read, step
from transformers import PreTrainedModel

from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
from enclave_worker.engine.errors import KernelError
from enclave_worker.engine.models.decoder import Decoder
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.graphs import Compute, Outcome, graph_sizes
from enclave_worker.engine.models.load import load
from enclave_worker.engine.models.weights import Weights
from enclave_worker.engine.ops.library import candidates, settle
from enclave_worker.engine.ops.reference import paged_attention
from enclave_worker.engine.ops.rows import CPU, TILE_ROWS, Padding, Staging, lay_out
from enclave_worker.engine.plan import Chunk, StepPlan
from enclave_worker.settled_engine import settled_engine

triton = pytest.importorskip("triton", reason="triton is not installed (extra `triton`, 290 MB)")

from enclave_worker.engine.ops.triton_attention import (  # noqa: E402 - only where there is Triton
    SPLIT,
    agrees,
    triton_attention,
)

Tiny = tuple[Path, PreTrainedModel]
# Edges of pages, of the kernel's blocks of 64 keys, and of its splits.
STARTS = [0, 1, 14, 15, 16, 17, 63, 64, SPLIT - 1, SPLIT, SPLIT + 1]


def scattered(chunks: list[tuple[int, int]], seed: int = 1) -> tuple[StepPlan, int]:
    """A step of (rows, rows before them), its pages shuffled; and how many there are."""
    need = [-(-(count + start) // PAGE_SIZE) for count, start in chunks]
    pages = np.random.default_rng(seed).permutation(sum(need)).tolist()
    positions: list[int] = []
    laid: list[Chunk] = []
    for (count, start), n in zip(chunks, need, strict=True):
        laid.append(Chunk(len(positions), count, start, pages[:n]))
        positions += range(start, start + count)
        del pages[:n]
    at, none = np.array(positions, np.int32), np.zeros(0, np.int32)
    return StepPlan(np.zeros_like(at), at, tuple(laid), none, ()), sum(need)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=25, deadline=None)
@given(
    singles=st.lists(st.sampled_from(STARTS), max_size=3),
    chunks=st.lists(st.tuples(st.integers(2, 40), st.sampled_from(STARTS)), max_size=2),
    shape=st.sampled_from([(2, 2, 16), (4, 2, 24), (6, 2, 8), (5, 1, 40)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_kernel_computes_what_the_reference_does(
    singles: list[int],
    chunks: list[tuple[int, int]],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    heads, kv_heads, dim = shape
    plan, pages = scattered([(1, start) for start in singles] + chunks or [(1, 0)])
    rows = lay_out(plan, heads, kv_heads)
    k, v = numbers(2, pages, kv_heads, PAGE_SIZE, dim, dtype=dtype)
    q = numbers(len(plan.tokens), heads, dim, dtype=dtype, seed=4)
    found = triton_attention(q, k, v, rows, dim**-0.5)
    expected = paged_attention(q, k, v, rows, dim**-0.5)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


@settings(max_examples=10, deadline=None)
@given(
    start=st.sampled_from(STARTS),
    count=st.integers(1, 50),
    cuts=st.sets(st.integers(1, 49), max_size=3),
    beside=st.lists(st.sampled_from([(1, 3), (1, SPLIT + 9), (20, 0), (33, 70)]), max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_row_has_the_same_bits_in_any_batch_and_any_chunking(
    start: int,
    count: int,
    cuts: set[int],
    beside: list[tuple[int, int]],
    dtype: torch.dtype,
) -> None:
    heads, kv_heads, dim = 6, 2, 24
    plan, pages = scattered([(count, start), *beside])
    k, v = numbers(2, pages, kv_heads, PAGE_SIZE, dim, dtype=dtype)
    q = numbers(len(plan.tokens), heads, dim, dtype=dtype)
    together = triton_attention(q, k, v, lay_out(plan, heads, kv_heads), 0.3)[:count]
    edges = [0, *sorted(cut for cut in cuts if cut < count), count]
    for first, last in pairwise(edges):
        at = plan.positions[first:last]
        chunk = Chunk(0, last - first, start + first, plan.chunks[0].pages)
        alone = StepPlan(np.zeros_like(at), at, (chunk,), plan.wanted, ())
        found = triton_attention(q[first:last], k, v, lay_out(alone, heads, kv_heads), 0.3)
        assert torch.equal(found, together[first:last])


def test_a_row_reads_nothing_behind_its_own_position_nor_of_other_sequences() -> None:
    plan, pages = scattered([(1, 20), (3, 14)])
    rows = lay_out(plan, 2, 1)
    k, v = numbers(2, pages, 1, PAGE_SIZE, 16)
    q = numbers(4, 2, 16)
    before = triton_attention(q, k, v, rows, 0.25)
    for chunk in plan.chunks:  # NaN in every slot that holds no key yet
        end = chunk.start + chunk.count
        for tensor in (k, v):
            tensor[chunk.pages[end // PAGE_SIZE], :, end % PAGE_SIZE :] = torch.nan
    assert torch.equal(triton_attention(q, k, v, rows, 0.25), before)
    for tensor in (k, v):
        tensor[list(plan.chunks[1].pages)] = torch.nan
    after = triton_attention(q, k, v, rows, 0.25)
    assert torch.equal(after[:1], before[:1])
    assert after[1:].isnan().all()


def test_the_self_test_finds_the_kernel_right() -> None:
    assert agrees(CPU, torch.float32)


def test_a_step_is_one_upload_with_the_pages_last() -> None:
    plan = plan_of([(Text([5, 6, 7], [3], 2), 1, 1), (Text([8] * 40, [9, 4, 1], 15), 20, 1)])
    staging = Staging(CPU, 500)
    rows = lay_out(plan, 4, 2, staging)
    assert rows.tokens.tolist() == [7] + [8] * 20
    assert rows.positions.tolist() == [2, *range(15, 35)]
    where = [(3, 2), (9, 15), *((4, p) for p in range(16)), *((1, p) for p in range(3))]
    slots = [(page * 2 + head) * 16 + slot for page, slot in where for head in (0, 1)]
    assert rows.slots.tolist() == slots
    assert rows.wanted.tolist() == [0, 20]
    assert rows.tiles.tolist() == [[0, 1, 2, 0], [1, 20, 15, 1]]
    assert rows.pages.tolist() == [3, 9, 4, 1]
    assert rows.longest == 35
    parts = (rows.tokens, rows.positions, rows.slots, rows.wanted, rows.tiles, rows.pages)
    assert all(part.is_contiguous() for part in parts)
    for part, following in pairwise(parts):
        assert part.data_ptr() + part.nbytes == following.data_ptr()
    larger = lay_out(scattered([(600, 0)])[0], 4, 2, staging)  # more than there was room for
    assert larger.positions.tolist() == list(range(600))
    most = TILE_ROWS // 2
    assert larger.tiles[:2].tolist() == [[0, most, 0, 0], [most, most, most, 0]]


def test_padding_adds_rows_of_a_page_that_is_nobodys() -> None:
    plan = plan_of([(Text([5, 6, 7], [3], 2), 1, 1), (Text([4], [2]), 1, 0)])
    staging = Staging(CPU, 100)
    rows = lay_out(plan, 4, 2, staging, padding=Padding(4, 11, 64), by_chunk=False)
    assert rows.tokens.tolist() == [7, 4, 0, 0]
    assert rows.wanted.tolist() == [0, 0, 0, 0]
    assert rows.tiles.tolist() == [[0, 1, 2, 0], [1, 1, 0, 1], [2, 1, 0, 2], [3, 1, 0, 2]]
    assert rows.pages.tolist() == [3, 2, 11]
    assert rows.slots.tolist()[4:] == [11 * 32, 11 * 32 + 16] * 2
    assert (rows.longest, rows.chunks) == (64, ())
    other = lay_out(
        plan_of([(Text([1] * 40, [0, 1, 2], 39), 1, 1)]),
        4,
        2,
        staging,
        padding=Padding(4, 11, 64),
    )
    for name in ("tokens", "positions", "slots", "wanted", "tiles", "pages"):
        assert getattr(other, name).data_ptr() == getattr(rows, name).data_ptr()


def test_graphs_are_made_for_1_2_4_multiples_of_8_and_the_largest_batch() -> None:
    assert graph_sizes(1) == (1,)
    assert graph_sizes(3) == (1, 2, 3)
    assert graph_sizes(8) == (1, 2, 4, 8)
    assert graph_sizes(32) == (1, 2, 4, 8, 16, 24, 32)
    assert graph_sizes(30) == (1, 2, 4, 8, 16, 24, 30)


class Replays:
    """A capture without a GPU: replaying computes again, into what capturing computed into."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, compute: Compute) -> Compute:
        held = compute()
        size = len(held[0])
        self.sizes.append(size)

        def replay() -> Outcome:
            self.replayed.append(size)
            for kept, found in zip(held, compute(), strict=True):
                kept.copy_(found)
            return held

        return replay


def gpu_like(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Replays]:
    """The decoder as it is made on a GPU, but for the device."""
    replays = Replays()
    with Weights(folder, dtype) as weights:
        model = Decoder(
            ModelFolder.read(folder).decoder,
            weights,
            dtype,
            64,
            256,
            attention=triton_attention,
            capture=replays,
            max_batch=5,
        )
    return model, replays


def test_the_gpus_decoder_computes_what_transformers_does(tiny: Tiny) -> None:
    folder, oracle = tiny
    model, replays = gpu_like(folder)
    assert replays.sizes == [5, 4, 2, 1]
    assert model.describe() == {"dtype": "float32", "kernels": "triton"}
    vocab, pages = model.config.vocab_size, Pages()
    texts = [pages.text(random_tokens(n, vocab, seed=n)) for n in (1, 16, 17, 70, 33)]
    read(model, Text(texts[3].tokens[:69], texts[3].pages), chunk=31)
    texts[3].computed = 69
    for text in texts[1:3]:
        step(model, [(text, len(text.tokens) - 1, 0)])
    assert replays.replayed == []  # prompts are read step by step
    expected = torch.stack([oracle_logits(oracle, text.tokens)[-1] for text in texts])
    found = step(model, [(text, 1, 1) for text in texts[:3]])
    assert (found - expected[:3]).abs().max() < 1e-4
    assert replays.replayed == [4]  # three rows, padded
    found = step(model, [(texts[3], 1, 1), (texts[4], 33, 1)])
    assert (found - expected[3:]).abs().max() < 1e-4
    assert replays.replayed == [4]  # a chunk among them: not captured
    assert model.store.keys[:, 64].any()  # padding went to the page behind the pool's
    assert all(model.is_clean(page) for page in range(12, 64))


def test_the_likeliest_token_and_what_is_not_finite_come_without_logits(tiny: Tiny) -> None:
    folder, oracle = tiny
    model, replays = gpu_like(folder)
    tokens = random_tokens(4, model.config.vocab_size)
    with torch.inference_mode():
        for text in (Text(tokens[:1], [3]), Text(tokens, [4])):
            logits = model.forward(plan_of([(text, len(text.tokens), 1)]), whole=False)
            assert logits.values is None
            best = oracle_logits(oracle, text.tokens)[-1].argmax()
            assert (logits.best.tolist(), logits.finite.tolist()) == ([best], [True])
        kept = logits.best
        model.store.values[:, 4] = torch.nan
        broken = plan_of([(Text([*tokens, 1], [4], 4), 1, 1), (Text([2], [5]), 1, 1)])
        assert model.forward(broken, whole=False).finite.tolist() == [False, True]
        assert kept.tolist() == [best]  # not a view of what the next step wrote
    assert replays.replayed == [1, 2]


def test_what_the_configuration_names_is_settled_or_refused(tiny: Tiny, tmp_path: Path) -> None:
    gpu = EngineConfig(device="cuda")
    assert settle(gpu, tmp_path).kernels == "triton"
    assert settle(replace(gpu, kernels="reference"), tmp_path).kernels == "reference"
    assert settle(replace(gpu, dtype="float32"), tmp_path).kernels == "triton"
    with pytest.raises(KernelError, match=r"found 'native', expected .* with device cuda"):
        settle(replace(gpu, kernels="native"), tmp_path)
    with pytest.raises(KernelError, match="found 'triton' on device 'cpu', expected 'cuda'"):
        candidates(EngineConfig(kernels="triton"), tmp_path)
    with pytest.raises(ValueError, match="engine device: found 'tpu', expected cpu or cuda"):
        EngineConfig.from_dict({"device": "tpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_does_not_see_is_refused_by_launcher_and_worker(tiny: Tiny) -> None:
    chosen: dict[str, Any] = {"device": "cuda"}
    with pytest.raises(KernelError, match="found no CUDA device that torch sees here"):
        settled_engine(chosen, tiny[0])
    with pytest.raises(KernelError, match="found no CUDA device that torch sees"):
        load(ModelFolder.read(tiny[0]), EngineConfig.from_dict(chosen), 128)


def test_triton_is_imported_only_where_a_gpu_computes() -> None:
    root = Path(__file__).parents[2] / "enclave_worker"
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:  # the top level of each module
            if isinstance(node, ast.Import | ast.ImportFrom) and "triton" in ast.unparse(node):
                found.add(path.name)
    assert found == {"triton_attention.py"}
