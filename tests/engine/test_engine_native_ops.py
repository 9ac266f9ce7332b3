"""Each operation of the compiled kernels against plain arithmetic, for every instruction set here.

Promised by each: what numpy computes, exactly so for integers; the same bits for a row whatever is
beside it; nothing touched beyond its arrays, which end in marks that must survive.
"""

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_worker.engine.ops.abi import Chunk, Form, Layer, Linear, Shape, Source, Step, Weights
from enclave_worker.engine.ops.library import Library, library_path, supported

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

FORMS = {"bf16": Form.BF16, "w8a8": Form.W8A8, "w8a16": Form.W8A16}
MOST = {Form.W8A8: 127, Form.W8A16: 32767}
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=15)


@pytest.fixture(scope="module", params=["avx512", "generic"])
def kernels(request: pytest.FixtureRequest) -> Library:
    name = request.param
    if name not in supported():
        pytest.skip(f"{name}: not compiled here, or not for this processor")
    return Library(name, library_path(name))


def at(array: Array | None) -> int | None:
    return None if array is None else array.ctypes.data


def marked(*shape: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Room for a result, and the marks behind it."""
    size = int(np.prod(shape))
    whole = np.full(size + 64, 77, dtype)
    return whole[:size].reshape(shape), whole[size:]


def bf16(x: Array) -> Floats:
    """Floats rounded to bf16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    near = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.asarray(near, np.uint32).view(np.float32)


def halves(x: Array) -> npt.NDArray[np.uint16]:
    return (bf16(x).view(np.uint32) >> 16).astype(np.uint16)


def same_bits(a: Array, b: Array) -> bool:
    return a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Matrix:
    """A packed matrix with the memory it lies in."""

    where: Linear
    memory: Array

    @classmethod
    def pack(
        cls, kernels: Library, form: int, weights: Array, scales: Floats | None = None,
        bias: Floats | None = None, source: int = Source.FLOAT32,
    ) -> "Matrix":  # fmt: skip
        n, k = weights.shape
        size = kernels.call["ah_packed_bytes"](form, n, k)
        memory = np.full(size + 128, 0x77, np.uint8)
        start = -memory.ctypes.data % 64
        packed = memory[start : start + size]
        rows = np.ascontiguousarray(weights)
        refused = kernels.call["ah_pack"](
            form, source, at(rows), at(scales), at(bias), n, k, at(packed)
        )
        assert refused == 0
        assert (memory[start + size :] == 0x77).all()
        return cls(Linear(packed=at(packed), n=n, k=k, form=form), memory)


def linear(
    kernels: Library, matrix: Matrix, x: Floats
) -> tuple[Floats, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Products, likeliest columns and whether each row is finite."""
    rows, n = len(x), matrix.where.n
    out, marks = marked(rows, n)
    best, best_marks = marked(rows, dtype=np.int32)
    finite, finite_marks = marked(rows, dtype=np.uint8)
    x = np.ascontiguousarray(x)
    kernels.call["ah_linear"](
        ctypes.addressof(matrix.where), at(x), rows, at(out), at(best), at(finite)
    )
    assert (marks == 77).all()
    assert (best_marks == 77).all()
    assert (finite_marks == 77).all()
    return out, best, finite


def whole_numbers(x: Floats, most: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Rows as whole numbers with a scale, in the float32 arithmetic that the kernels promise."""
    peak = np.abs(x).max(1)
    seen = peak >= np.float32(1e-30)
    divisor = np.where(seen, peak, np.float32(1))
    up = np.where(seen, np.float32(most) / divisor, np.float32(0)).astype(np.float32)
    scale = np.where(seen, peak / np.float32(most), np.float32(0)).astype(np.float32)
    return np.rint(x * up[:, None]).astype(np.int64), scale


# ------------------------------------------------------------------------------ products


@FEW
@given(seed=SEEDS, rows=st.integers(1, 20), n=st.integers(1, 110), k=st.integers(1, 90))
def test_a_bf16_product_is_what_double_precision_gives(
    kernels: Library, seed: int, rows: int, n: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k), np.float32)
    weights = rng.standard_normal((n, k), np.float32)
    bias = rng.standard_normal(n, np.float32)
    out, best, finite = linear(kernels, Matrix.pack(kernels, Form.BF16, weights, None, bias), x)
    wide = bf16(x).astype(np.float64)
    exact = wide @ bf16(weights).astype(np.float64).T + bias
    room = np.abs(wide) @ np.abs(bf16(weights).astype(np.float64)).T + np.abs(bias)
    assert (np.abs(out - exact) <= 1e-5 * room + 1e-30).all()
    assert (best == out.argmax(1)).all()
    assert finite.all()


@pytest.mark.parametrize("form", [Form.W8A8, Form.W8A16])
@FEW
@given(
    seed=SEEDS,
    rows=st.integers(1, 20),
    n=st.integers(1, 110),
    k=st.integers(1, 90),
    size=st.sampled_from([1e-38, 1e-29, 1e-3, 1.0, 1e30]),
)
def test_an_int8_product_is_the_exact_integer_times_its_scales(
    kernels: Library, form: int, seed: int, rows: int, n: int, k: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, k)) * size).astype(np.float32)
    x[rng.integers(rows)] = 0
    weights = rng.integers(-128, 128, (n, k)).astype(np.int8)
    scales = rng.random(n, np.float32)
    matrix = Matrix.pack(kernels, form, weights, scales, None, Source.INT8)
    out, _, finite = linear(kernels, matrix, x)
    numbers, scale = whole_numbers(x, MOST[form])
    exact = (numbers @ weights.T.astype(np.int64)).astype(np.float32)
    expected = exact * (scales[None, :] * scale[:, None])
    assert (out == expected).all()
    assert finite.all()


@pytest.mark.parametrize("form", [Form.W8A8, Form.W8A16])
def test_the_largest_integers_of_a_wide_row_do_not_overflow(kernels: Library, form: int) -> None:
    k = 12_000
    weights = np.stack([np.full(k, 127), np.full(k, -128)]).astype(np.int8)
    x = np.stack([np.ones(k), -np.ones(k)]).astype(np.float32)
    matrix = Matrix.pack(kernels, form, weights, np.ones(2, np.float32), None, Source.INT8)
    out, _, _ = linear(kernels, matrix, x)
    exact = MOST[form] * k * np.array([[127, -128], [-127, 128]])
    assert (out == exact.astype(np.float32) * np.float32(1 / np.float32(MOST[form]))).all()


@pytest.mark.parametrize("source", [Source.FLOAT32, Source.BF16])
@pytest.mark.parametrize("form", [Form.W8A8, Form.W8A16])
def test_floats_are_rounded_to_int8_by_their_row(kernels: Library, form: int, source: int) -> None:
    rng = np.random.default_rng(3)
    weights = bf16(rng.standard_normal((50, 30)))
    weights[7] = 0
    scales = (np.abs(weights).max(1) / np.float32(127)).astype(np.float32)
    divisor = np.where(scales > 0, scales, 1)[:, None]
    rounded = np.rint(weights / divisor).astype(np.int8)
    x = rng.standard_normal((3, 30), np.float32)
    raw = weights if source == Source.FLOAT32 else halves(weights)
    ours, _, _ = linear(kernels, Matrix.pack(kernels, form, raw, source=source), x)
    theirs = Matrix.pack(kernels, form, rounded, scales, None, Source.INT8)
    assert same_bits(ours, linear(kernels, theirs, x)[0])


@FEW
@given(seed=SEEDS, n=st.integers(1, 110), k=st.integers(1, 90))
def test_bf16_weights_are_laid_out_as_they_are(kernels: Library, seed: int, n: int, k: int) -> None:
    weights = bf16(np.random.default_rng(seed).standard_normal((n, k)))
    x = np.random.default_rng(seed + 1).standard_normal((3, k), np.float32)
    ours = Matrix.pack(kernels, Form.BF16, halves(weights), source=Source.BF16)
    rounded = Matrix.pack(kernels, Form.BF16, weights)
    assert same_bits(linear(kernels, ours, x)[0], linear(kernels, rounded, x)[0])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@FEW
@given(seed=SEEDS, n=st.integers(1, 60), k=st.integers(1, 70))
def test_a_row_is_the_same_alone_and_among_33_others(
    kernels: Library, form: int, seed: int, n: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((34, k), np.float32)
    matrix = Matrix.pack(kernels, form, rng.standard_normal((n, k), np.float32))
    together, _, _ = linear(kernels, matrix, x)
    for rows in (slice(0, 1), slice(5, 6), slice(33, 34), slice(2, 11)):
        assert same_bits(linear(kernels, matrix, x[rows])[0], together[rows])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_row_that_is_not_finite_is_flagged_and_hurts_no_other(
    kernels: Library, form: int, bad: float
) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((10, 33), np.float32)
    matrix = Matrix.pack(kernels, form, rng.standard_normal((70, 33), np.float32))
    clean, clean_best, _ = linear(kernels, matrix, x)
    x[4, 20] = bad
    out, best, finite = linear(kernels, matrix, x)
    others = np.arange(10) != 4
    assert list(finite) == [int(row) for row in others]
    assert same_bits(out[others], clean[others])
    assert (best[others] == clean_best[others]).all()
    assert 0 <= best[4] < 70


def test_the_lowest_of_equal_columns_wins(kernels: Library) -> None:
    weights = np.zeros((100, 4), np.float32)
    weights[[99, 61, 17, 65], 0] = 1
    x = np.array([[1, 0, 0, 0], [-1, 0, 0, 0]], np.float32)
    _, best, _ = linear(kernels, Matrix.pack(kernels, Form.BF16, weights), x)
    assert list(best) == [17, 0]


def test_what_cannot_be_packed_is_refused(kernels: Library) -> None:
    room, scales = np.zeros(10_000, np.uint8), np.ones(2, np.float32)
    for form, source, from_, scale in (
        (3, 0, room, None), (0, 3, room, None), (1, 2, room, None), (1, 0, None, None),
        (1, 0, room, scales), (0, 2, room, scales),
    ):  # fmt: skip
        call = form, source, at(from_), at(scale), None, 2, 2, at(room)
        assert kernels.call["ah_pack"](*call) == 1
    assert kernels.call["ah_packed_bytes"](0, 0, 5) == -1


# ---------------------------------------------------------------------------------- rows


@FEW
@given(seed=SEEDS, rows=st.integers(1, 4), count=st.integers(1, 70), size=st.sampled_from([1, 1e9]))
def test_rms_norm_is_as_published(
    kernels: Library, seed: int, rows: int, count: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, count)) * size).astype(np.float32)
    weight = rng.standard_normal(count, np.float32)
    out, marks = marked(rows, count)
    kernels.call["ah_rms_norm"](at(x), at(weight), 1e-5, rows, count, at(out))
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(out, exact, rtol=3e-6, atol=1e-12)
    assert (marks == 77).all()


@FEW
@given(seed=SEEDS, rows=st.integers(1, 4), count=st.integers(1, 70), size=st.sampled_from([1, 100]))
def test_silu_times_up_is_within_float_rounding(
    kernels: Library, seed: int, rows: int, count: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, 2 * count)) * size).astype(np.float32)
    out, marks = marked(rows, count)
    kernels.call["ah_silu_mul"](at(x), rows, count, at(out))
    gate, up = np.split(x.astype(np.float64), 2, 1)
    np.testing.assert_allclose(out, gate / (1 + np.exp(-gate)) * up, rtol=2e-6, atol=1e-30)
    assert (marks == 77).all()


@FEW
@given(seed=SEEDS, heads=st.integers(1, 3), half=st.integers(1, 70))
def test_rotation_turns_the_halves_of_a_head(
    kernels: Library, seed: int, heads: int, half: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((heads, 2, half), np.float32)
    angle = rng.standard_normal(half)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    out, marks = marked(heads, 2, half)
    kernels.call["ah_rotate"](at(x), at(cos), at(sin), heads, 2 * half, at(out))
    turned = np.stack([x[:, 0] * cos - x[:, 1] * sin, x[:, 1] * cos + x[:, 0] * sin], 1)
    np.testing.assert_allclose(out, turned, rtol=1e-6, atol=1e-6)
    assert (marks == 77).all()


# ----------------------------------------------------------------------------- attention


def store_tokens(kernels: Library, keys: Floats, values: Floats, table: Array, pages: int) -> Array:
    """A store [pages, kv_heads, 2 * dim * 16] with [tokens, kv_heads, dim] in it."""
    tokens, heads, dim = keys.shape
    store = np.zeros((pages, heads, 2 * dim * 16), np.uint16)
    for token, head in itertools.product(range(tokens), range(heads)):
        key, value = (np.ascontiguousarray(x[token, head]) for x in (keys, values))
        page = store[table[token // 16], head]
        kernels.call["ah_store"](at(key), at(value), dim, token % 16, at(page))
    return store


def attend(
    kernels: Library, q: Floats, start: int, store: Array, table: Array, kv_heads: int
) -> Floats:
    rows, heads, dim = q.shape
    out, marks = marked(rows, heads, dim)
    query = halves(q)
    kernels.call["ah_attention"](
        at(query), rows, start, heads, kv_heads, dim, at(store), at(table), at(out)
    )
    assert (marks == 77).all()
    return out


@FEW
@given(seed=SEEDS, slot=st.integers(0, 15), dim=st.sampled_from([2, 10, 16, 64, 80]))
def test_a_token_is_stored_in_its_slot_and_nowhere_else(
    kernels: Library, seed: int, slot: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    key, value = rng.standard_normal((2, dim), np.float32)
    page, marks = marked(2 * dim * 16, dtype=np.uint16)
    kernels.call["ah_store"](at(key), at(value), dim, slot, at(page))
    keys = page[: dim * 16].reshape(dim // 2, 16, 2)
    values = page[dim * 16 :].reshape(8, dim, 2)
    assert (keys[:, slot].ravel() == halves(key)).all()
    assert (values[slot // 2, :, slot % 2] == halves(value)).all()
    assert (page == 77).sum() >= 2 * dim * 15
    assert (marks == 77).all()


@FEW
@given(
    seed=SEEDS,
    start=st.sampled_from([0, 1, 15, 16, 17, 31, 250, 255, 256]),
    rows=st.sampled_from([1, 2, 5, 16, 17, 40]),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 2, 3, 7, 17]),
    dim=st.sampled_from([2, 10, 16, 32, 64, 80, 96, 128]),
)
def test_attention_is_softmax_over_the_tokens_so_far_whatever_the_chunks(
    kernels: Library, seed: int, start: int, rows: int, kv_heads: int, group: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    tokens, heads = start + rows, kv_heads * group
    pages = (tokens + 15) // 16
    keys, values = rng.standard_normal((2, tokens, kv_heads, dim), np.float32)
    q = bf16(rng.standard_normal((rows, heads, dim)) / np.sqrt(dim))
    table = rng.permutation(pages + 2)[:pages].astype(np.int32)
    store = store_tokens(kernels, keys, values, table, pages + 2)
    out = attend(kernels, q, start, store, table, kv_heads)
    # Plain arithmetic.
    k, v = (np.repeat(bf16(x).astype(np.float64), group, 1) for x in (keys, values))
    scores = np.einsum("rhd,thd->rht", q.astype(np.float64), k)
    hidden = np.arange(tokens)[None, None, :] > start + np.arange(rows)[:, None, None]
    e = np.exp(np.where(hidden, -np.inf, scores - scores.max(-1, keepdims=True)))
    exact = np.einsum("rht,thd->rhd", e / e.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(out, exact, atol=0.02)
    # The same bits in other chunks.
    cuts = sorted({0, rows, *rng.integers(0, rows + 1, 3).tolist()})
    parts = [
        attend(kernels, q[a:b], start + a, store, table, kv_heads)
        for a, b in itertools.pairwise(cuts)
    ]
    assert same_bits(np.concatenate(parts), out)


def test_attention_picks_out_one_token_among_many(kernels: Library) -> None:
    """Weights of one and zero: nothing is rounded, so every value must come back as stored."""
    rng = np.random.default_rng(5)
    tokens, dim = 300, 64
    keys = np.zeros((tokens, 1, dim), np.float32)
    values = rng.standard_normal((tokens, 1, dim), np.float32)
    table = np.arange(19, dtype=np.int32)
    for chosen in (0, 15, 16, 255, 256, 299):
        keys[:] = 0
        keys[chosen] = 100
        store = store_tokens(kernels, keys, values, table, 19)
        out = attend(kernels, np.ones((1, 1, dim), np.float32), tokens - 1, store, table, 1)
        assert same_bits(out[0, 0], bf16(values[chosen, 0]))


# --------------------------------------------------------------------------------- steps


class Model:
    """A random model where no size is a round number; keeps what the kernels point into."""

    LAYERS, HIDDEN, HEADS, KV, DIM, WIDE, VOCAB, LENGTH, PAGES, ROWS = (
        2,
        34,
        6,
        2,
        10,
        50,
        77,
        60,
        9,
        40,
    )

    def __init__(self, kernels: Library, form: int, threads: int = 1, **changes: int) -> None:
        rng, self.kernels, self.kept = np.random.default_rng(9), kernels, list[Any]()
        both = (self.HEADS + 2 * self.KV) * self.DIM

        def matrix(n: int, k: int) -> Linear:
            weights, bias = rng.standard_normal((n, k)) / np.sqrt(k), rng.standard_normal(n) / 9
            bias32: Floats = bias.astype(np.float32)
            self.kept += [
                made := Matrix.pack(kernels, form, weights.astype(np.float32), None, bias32),
                bias,
            ]
            return made.where

        def values(*shape: int) -> int:
            self.kept.append(1 + rng.standard_normal(shape).astype(np.float32) / 5)
            return int(self.kept[-1].ctypes.data)

        layers = (Layer * self.LAYERS)(*(
            Layer(
                matrix(both, self.HIDDEN), matrix(self.HIDDEN, self.HEADS * self.DIM),
                matrix(2 * self.WIDE, self.HIDDEN), matrix(self.HIDDEN, self.WIDE),
                values(self.HIDDEN), values(self.HIDDEN), values(self.DIM), values(self.DIM),
            )
            for _ in range(self.LAYERS)
        ))  # fmt: skip
        # The last token is poison: its embedding is not a number.
        embedding = halves(rng.standard_normal((self.VOCAB, self.HIDDEN)))
        embedding[-1, 5] = 0x7FC0
        store = np.zeros((self.PAGES, self.LAYERS * self.KV * 2 * self.DIM * 16), np.uint16)
        self.store = store
        self.kept += [layers, embedding]
        shape = {
            "layers": self.LAYERS, "hidden": self.HIDDEN, "heads": self.HEADS, "kv_heads": self.KV,
            "head_dim": self.DIM, "intermediate": self.WIDE, "vocab": self.VOCAB,
            "positions": self.LENGTH, "pages": self.PAGES, "max_rows": self.ROWS,
            "threads": threads, **changes,
        }  # fmt: skip
        weights = Weights(
            ctypes.addressof(layers), matrix(self.VOCAB, self.HIDDEN), at(embedding),
            values(self.HIDDEN), values(self.LENGTH, self.DIM // 2),
            values(self.LENGTH, self.DIM // 2), at(store),
        )  # fmt: skip
        sizes = Shape(**shape, eps=1e-5)
        self.model = kernels.call["ah_model"](ctypes.addressof(sizes), ctypes.addressof(weights))

    def close(self) -> None:
        self.kernels.call["ah_free"](self.model)

    def step(
        self, *chunks: tuple[Sequence[int], int, Sequence[int]], **changes: Any
    ) -> tuple[int, Floats, Array, Floats]:
        """Rows of (tokens, start, pages): the code, logits, flags and hidden states of all."""
        tokens = np.array([t for chunk in chunks for t in chunk[0]], np.int32)
        table = np.array([p for chunk in chunks for p in chunk[2]], np.int32)
        wanted = np.array(changes.pop("wanted", range(len(tokens))), np.int32)
        each, first, pages = (Chunk * len(chunks))(), 0, 0
        for slot, chunk in zip(each, chunks, strict=True):
            slot.first, slot.count, slot.start = first, len(chunk[0]), chunk[1]
            slot.pages, slot.adapter = pages, -1
            first, pages = first + len(chunk[0]), pages + len(chunk[2])
        for name in changes.keys() & {"first", "count", "adapter"}:
            setattr(each[0], name, changes.pop(name))
        logits, logit_marks = marked(len(wanted), self.VOCAB)
        hidden, hidden_marks = marked(len(wanted), self.HIDDEN)
        best, _ = marked(len(wanted), dtype=np.int32)
        finite, _ = marked(len(wanted), dtype=np.uint8)
        step = Step(
            tokens=at(tokens), chunks=ctypes.addressof(each), table=at(table), wanted=at(wanted),
            **{
                "rows": len(tokens), "chunk_count": len(chunks), "table_count": len(table),
                "wanted_count": len(wanted), "best": at(best), "finite": at(finite),
                "logits": at(logits), "hidden": at(hidden), **changes,
            },
        )  # fmt: skip
        code = self.kernels.call["ah_step"](self.model, ctypes.addressof(step))
        assert (logit_marks == 77).all()
        assert (hidden_marks == 77).all()
        if code == 0 and changes.get("best", 1) and finite.all():
            assert (best == logits.argmax(1)).all()
        return code, logits, finite, hidden


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_step_gives_the_same_bits_in_any_chunks_company_and_threads(
    kernels: Library, form: int
) -> None:
    one, other = Model(kernels, form), Model(kernels, form, threads=3)
    text = [3 * i % 76 for i in range(37)]
    code, whole, _, states = one.step((text, 0, [4, 1, 6]))
    assert code == 0
    parts = []
    for a, b in itertools.pairwise([0, 1, 17, 18, 33, 37]):
        # A neighbour of another length, a poisoned one, and none at all.
        beside = [(text[:b], 0, [0, 2, 8])] if b <= 3 else [([76], 0, [7])]
        code, logits, finite, hidden = other.step((text[a:b], a, [3, 5, 1]), *beside)
        assert code == 0
        assert finite[: b - a].all()
        parts.append((logits[: b - a], hidden[: b - a]))
    assert same_bits(np.concatenate([logits for logits, _ in parts]), whole)
    assert same_bits(np.concatenate([hidden for _, hidden in parts]), states)
    one.close()
    other.close()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_poisoned_row_is_flagged_and_leaves_nothing_behind(kernels: Library, form: int) -> None:
    model = Model(kernels, form)
    _, clean, _, _ = model.step(([1, 2, 3], 0, [0]), ([4], 0, [1]))
    for _ in range(2):
        _, logits, finite, _ = model.step(([1, 2, 3], 0, [0]), ([76], 0, [1]))
        assert list(finite) == [1, 1, 1, 0]
        assert same_bits(logits[:3], clean[:3])
    # The row that was poisoned before, in the same place.
    _, logits, finite, _ = model.step(([1, 2, 3], 0, [0]), ([4], 0, [1]))
    assert finite.all()
    assert same_bits(logits, clean)
    model.close()


def test_only_what_is_wanted_is_given(kernels: Library) -> None:
    model = Model(kernels, Form.BF16)
    _, whole, _, states = model.step(([1, 2, 3, 4], 0, [0]))
    _, some, _, hidden = model.step(([1, 2, 3, 4], 0, [0]), wanted=[3, 1])
    assert same_bits(some, whole[[3, 1]])
    assert same_bits(hidden, states[[3, 1]])
    nothing = {"best": None, "finite": None, "logits": None}
    code, untouched, _, hidden = model.step(([1, 2, 3, 4], 0, [0]), **nothing)
    assert code == 0
    assert (untouched == 77).all()
    assert same_bits(hidden, states)
    assert model.step(([1], 4, [0]), wanted=[], hidden=None)[0] == 0
    model.close()


@pytest.mark.parametrize(
    ("code", "tokens", "start", "pages", "changes"),
    [
        (1, [1] * 41, 0, [0, 1, 2], {}),
        (1, [], 0, [0], {}),
        (2, [1, 2], 0, [0], {"first": 1}),
        (2, [1, 2], 0, [0], {"count": 1}),
        (2, [1, 2], 0, [0], {"count": 3}),
        (2, [1, 2], 0, [0], {"count": -1}),
        (2, [1, 2], 0, [0], {"chunk_count": 0}),
        (3, [1, 2], 59, [0, 1, 2, 3], {}),
        (3, [1, 2], -1, [0], {}),
        (4, [1, 2], 15, [0], {}),
        (4, [1, 2], 0, [9], {}),
        (4, [1, 2], 0, [-1], {}),
        (5, [1, 77], 0, [0], {}),
        (5, [-1, 7], 0, [0], {}),
        (6, [1, 2], 0, [0], {"wanted": [2]}),
        (6, [1, 2], 0, [0], {"wanted": [-1]}),
        (6, [1, 2], 0, [0], {"wanted": [0, 1, 1]}),
        (7, [1, 2], 0, [0], {"adapter": 0}),
    ],
)
def test_an_impossible_step_is_refused_and_changes_nothing(
    kernels: Library, code: int, tokens: list[int], start: int, pages: list[int],
    changes: dict[str, Any],
) -> None:  # fmt: skip
    model = Model(kernels, Form.W8A8)
    found, logits, _, _ = model.step((tokens, start, pages), **changes)
    assert found == code
    assert (logits == 77).all()
    assert not model.store.any()
    model.close()


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"head_dim": 9}, {"hidden": 35}, {"layers": 0}, {"max_rows": -1}, {"vocab": 76}],
    ids=lambda change: next(iter(change)),
)
def test_a_model_whose_parts_do_not_fit_is_refused(
    kernels: Library, change: dict[str, int]
) -> None:
    assert Model(kernels, Form.BF16, **change).model is None
