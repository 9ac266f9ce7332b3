"""The decoder on compiled kernels: transformers' logits, and the same bits in any company."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from simulators.llamas import SHAPES, oracle_logits, quantise_folder, random_llama
from simulators.steps import Pages, Text, greedy, plan_of, random_tokens, read, step, torch_decoder
from transformers import PreTrainedModel

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.errors import KernelError, ModelError
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.load import load
from enclave_worker.engine.models.native_decoder import NativeDecoder
from enclave_worker.engine.ops.library import supported
from enclave_worker.engine.pages import PagePool

INT8 = ("w8a8", "w8a16")
MODES = ("bfloat16", *INT8)
LIBRARIES = tuple(f"native-{name}" for name in supported())
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="no C++ compiler, so nothing was built")


def native(folder: Path, dtype: str = "bfloat16", **changes: object) -> NativeDecoder:
    """A folder on native kernels."""
    values = {"dtype": dtype, "kernels": "native", "kv_pages": 400, "step_budget": 600, **changes}
    model = load(ModelFolder.read(folder), EngineConfig.from_dict(values), 512)
    assert isinstance(model, NativeDecoder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random model for each mode: heads of 64 and 3 to a key head, no size a round number."""
    source = tmp_path_factory.mktemp("wide")
    random_llama(
        source, hidden_size=72, intermediate_size=100, num_attention_heads=6, head_dim=64,
        num_key_value_heads=2, num_hidden_layers=2,
    )  # fmt: skip
    int8 = tmp_path_factory.mktemp("int8")
    quantise_folder(source, int8)
    return {"bfloat16": source, "w8a8": int8, "w8a16": int8}


@pytest.fixture(scope="module")
def decoders(folders: dict[str, Path]) -> dict[str, NativeDecoder]:
    return {dtype: native(folder, dtype) for dtype, folder in folders.items()}


# ------------------------------------------------------------ what transformers computes


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_logits_are_as_close_to_transformers_as_torchs(
    shape: str, library: str, tmp_path: Path
) -> None:
    oracle = random_llama(tmp_path, shape)
    tokens = random_tokens(70, oracle.config.vocab_size)
    expected = oracle_logits(oracle, tokens)
    found = read(native(tmp_path, kernels=library), Pages().text(tokens))
    torchs = read(torch_decoder(tmp_path, dtype=torch.bfloat16), Pages().text(tokens))
    assert (found - expected).norm() < 1.05 * (torchs - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", INT8)
@pytest.mark.parametrize("shape", ["gqa-tied", "biases", "qwen3-untied-biases"])
def test_int8_logits_are_those_of_the_exact_reference(
    shape: str, dtype: str, library: str, tmp_path: Path
) -> None:
    source = random_llama(tmp_path / "source", shape)
    quantise_folder(tmp_path / "source", tmp_path / "int8")
    tokens = random_tokens(70, source.config.vocab_size)
    found = read(native(tmp_path / "int8", dtype, kernels=library), Pages().text(tokens))
    exact = torch_decoder(tmp_path / "int8", dtype=torch.bfloat16, bits=8 * INT8.index(dtype) + 8)
    expected = read(exact, Pages().text(tokens))
    # Attention and head in bfloat16 are left; with 8 bits, also rows that round another way.
    assert (found - expected).norm() < {"w8a8": 0.06, "w8a16": 0.01}[dtype] * expected.norm()


def test_greedy_answers_agree_with_transformers(tiny: tuple[Path, PreTrainedModel]) -> None:
    folder, oracle = tiny
    prompts = [random_tokens(n, oracle.config.vocab_size, seed=n) for n in range(3, 23)]
    answers = greedy(native(folder), prompts, 24)
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = oracle_logits(oracle, prompt + answer)[len(prompt) - 1 : -1]
        # Each token is the likeliest, or so close to it that bfloat16 cannot tell.
        behind = logits.amax(1) - logits[torch.arange(24), answer]
        assert behind.max() < 0.05 * logits.std()


# ------------------------------------------------------------ the same bits in any company


@pytest.mark.parametrize("dtype", MODES)
def test_a_row_has_the_same_bits_alone_and_among_31_others(
    dtype: str, decoders: dict[str, NativeDecoder]
) -> None:
    model, pages = decoders[dtype], Pages()
    vocab = model.config.vocab_size
    texts = [pages.text(random_tokens(9 + 5 * n, vocab, seed=n)) for n in range(32)]
    alone = torch.cat([read(model, text)[-1:] for text in texts])
    for text in texts:
        text.computed = len(text.tokens) - 1
    assert_same_bits(step(model, [(text, 1, 1) for text in texts]), alone)


@pytest.mark.parametrize("dtype", MODES)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_chunking_any_pages_and_any_neighbours_give_the_same_bits(
    dtype: str, decoders: dict[str, NativeDecoder], data: st.DataObject
) -> None:
    model = decoders[dtype]
    vocab = model.config.vocab_size
    length = data.draw(st.integers(1, 130), "length")
    tokens = random_tokens(length, vocab)
    expected = read(model, Text(tokens, list(range(200, 240))))
    pages = data.draw(st.permutations(range(9)), "pages")
    text = Text(tokens, list(pages))
    found = []
    while text.computed < length:
        count = data.draw(st.integers(1, length - text.computed), "chunk")
        singles = data.draw(st.integers(0, 5), "decoding neighbours")
        prompt = data.draw(st.integers(2, 60), "a prompt beside")
        aside = [Text([3 + n], [20 + n]) for n in range(singles)]
        work = [(other, 1, 0) for other in aside]
        work += [
            (text, count, count),
            (Text(random_tokens(prompt, vocab, 1), [30, 31, 32, 33]), prompt, 1),
        ]
        found.append(step(model, sorted(work, key=lambda item: item[1] > 1))[:count])
    assert_same_bits(torch.cat(found), expected)


@pytest.mark.parametrize("dtype", MODES)
def test_recomputing_after_preemption_gives_the_same_bits(
    dtype: str, decoders: dict[str, NativeDecoder]
) -> None:
    model = decoders[dtype]
    text = Text(random_tokens(40, model.config.vocab_size), list(range(10)))
    pieces = [read(model, text, chunk=16)]
    for token in random_tokens(20, model.config.vocab_size, seed=9):  # decoded one by one
        text.tokens.append(token)
        pieces.append(step(model, [(text, 1, 1)]))
    model.scrub(text.pages)
    again = read(model, Text(text.tokens, list(range(50, 60))))  # all of it, like a prompt
    assert_same_bits(again, torch.cat(pieces))


@pytest.mark.parametrize("dtype", MODES)
def test_two_threads_and_one_give_the_same_bits(
    dtype: str, folders: dict[str, Path], decoders: dict[str, NativeDecoder]
) -> None:
    two = native(folders[dtype], dtype, threads=2)
    vocab = two.config.vocab_size
    for model_text in ((300, 1), (37, 2), (1, 3)):
        tokens = random_tokens(model_text[0], vocab, seed=model_text[1])
        mine, other = (read(m, Pages().text(tokens)) for m in (two, decoders[dtype]))
        assert_same_bits(mine, other)


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


# ------------------------------------------------------------ what a step gives and leaves


@pytest.mark.parametrize("dtype", MODES)
def test_the_likeliest_token_and_finiteness_come_without_logits(
    dtype: str, decoders: dict[str, NativeDecoder]
) -> None:
    model = decoders[dtype]
    text = Pages().text(random_tokens(30, model.config.vocab_size))
    plan = plan_of([(text, 30, 30)])
    brief, whole = model.forward(plan, whole=False), model.forward(plan, whole=True)
    assert brief.values is None
    assert whole.values is not None
    assert brief.best.tolist() == whole.best.tolist() == whole.values.argmax(1).tolist()
    assert brief.finite.all()
    assert brief.finite.dtype == bool


def test_a_prompts_middle_wants_no_logits(decoders: dict[str, NativeDecoder]) -> None:
    model = decoders["bfloat16"]
    text = Pages().text(random_tokens(30, model.config.vocab_size))
    logits = model.forward(plan_of([(text, 20, 0)]), whole=True)
    assert logits.values is not None
    assert logits.values.shape == (0, model.config.vocab_size)
    assert len(logits.best) == len(logits.finite) == 0


def test_weights_that_overflow_are_seen_as_not_finite(tmp_path: Path) -> None:
    random_llama(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.inf
    save_file(tensors, tmp_path / "model.safetensors")
    model = native(tmp_path)
    text = Pages().text(random_tokens(5, model.config.vocab_size))
    assert not model.forward(plan_of([(text, 5, 2)]), whole=False).finite.any()


def test_the_last_hidden_state_is_that_of_torch(
    folders: dict[str, Path], decoders: dict[str, NativeDecoder]
) -> None:
    model = decoders["bfloat16"]
    text = Pages().text(random_tokens(30, model.config.vocab_size))
    plan = plan_of([(text, 30, 4)])
    expected = torch_decoder(folders["bfloat16"], dtype=torch.float32).hidden(plan)
    found = model.hidden(plan)
    assert found.shape == (4, model.config.hidden)
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_freed_pages_hold_nothing_but_zeros(decoders: dict[str, NativeDecoder]) -> None:
    model = decoders["bfloat16"]
    pool = PagePool(400, model.scrub)
    pages = pool.take(3)
    read(model, Text(random_tokens(48, model.config.vocab_size), pages))
    assert not any(model.is_clean(page) for page in pages)
    pool.give_back(pages)
    assert all(model.is_clean(page) for page in range(400) if page < 3)
    layers, heads, dim = model.config.layers, model.config.kv_heads, model.config.head_dim
    assert model.page_bytes == 16 * layers * heads * dim * 2 * 2


def test_a_step_outside_of_the_store_or_the_vocabulary_is_refused_and_stores_nothing(
    decoders: dict[str, NativeDecoder],
) -> None:
    model = decoders["bfloat16"]
    model.scrub([7])
    for text in (Text([1, 2], [400]), Text([1, 1 << 20], [7]), Text([1, -1], [7])):
        with pytest.raises(KernelError, match="refused for reason"):
            step(model, [(text, 2, 1)])
    with pytest.raises(KernelError, match="refused for reason"):
        step(model, [(Text(random_tokens(601, 90), list(range(40))), 601, 1)])
    assert model.is_clean(7)


def test_an_adapter_is_refused_rather_than_left_out(decoders: dict[str, NativeDecoder]) -> None:
    model = decoders["bfloat16"]
    plan = plan_of([(Text([1, 2], [0]), 2, 1)])
    adapted = replace(plan, chunks=tuple(replace(c, adapter="theirs") for c in plan.chunks))
    with pytest.raises(KernelError, match="found an adapter that is not loaded"):
        model.forward(adapted, whole=False)


# ------------------------------------------------------------ loading


def test_what_computes_is_described(decoders: dict[str, NativeDecoder]) -> None:
    for dtype, model in decoders.items():
        said = model.describe()
        assert said["dtype"] == dtype
        assert f"native-{said['kernels'].removeprefix('native ')}" == LIBRARIES[0]
        assert said["library"].startswith("sha256:")


@pytest.mark.parametrize(("folder", "dtype"), [("bfloat16", "w8a8"), ("w8a8", "bfloat16")])
def test_weights_of_another_kind_than_the_dtype_are_refused(
    folder: str, dtype: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ModelError, match=r"found (no )?int8 weights .* expected"):
        native(folders[folder], dtype)


def test_a_tensor_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    random_llama(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "model.layers.0.extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="1 tensors config"):
        native(tmp_path)
