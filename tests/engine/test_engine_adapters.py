"""LoRA adapters: the same as merged weights, each for its own rows and tenants, read strictly."""

import json
import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.llamas import oracle_logits, quantise_folder, random_llama
from simulators.lora import write_adapter
from simulators.steps import Pages, Text, random_tokens, read, step, torch_decoder
from transformers import PreTrainedModel

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import KernelError, ModelConfigError, ModelError, RequestInvalid
from enclave_worker.engine.events import TokenEvent
from enclave_worker.engine.models.adapter_folder import WEIGHTS, list_adapters
from enclave_worker.engine.models.adapters import read_adapter, read_adapters
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.load import load
from enclave_worker.engine.models.native_decoder import NativeDecoder
from enclave_worker.engine.ops.library import supported
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Tiny = tuple[Path, PreTrainedModel]
LIBRARIES = tuple(f"native-{name}" for name in supported())


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj"), ("up_proj",), ("down_proj",)])
@pytest.mark.parametrize("shape", ["gqa-tied", "qwen2", "qwen3"])
def test_an_adapter_computes_what_merged_weights_compute(
    shape: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    base = random_llama(tmp_path / "model", shape)
    merged = write_adapter(tmp_path / "lora", base, targets)
    model = torch_decoder(tmp_path / "model")
    model.adapters["mine"] = read_adapter(tmp_path / "lora", model.config)
    text = Pages().text(random_tokens(40, model.config.vocab_size))
    text.adapter = "mine"
    found = read(model, text, chunk=17)
    expected = oracle_logits(merged, text.tokens)
    assert (found - expected).abs().max() < 2e-4
    assert (oracle_logits(base, text.tokens) - expected).abs().max() > 0.1  # it does something


@pytest.mark.parametrize(
    "settings", [{"r": 1}, {"r": 64, "lora_alpha": 16}, {"use_rslora": True}, {"lora_alpha": 0.5}]
)
def test_the_scale_is_alpha_by_rank_or_its_root(
    settings: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    folder, base = tiny
    merged = write_adapter(tmp_path / "lora", base, ALL, **settings)
    model = torch_decoder(folder)
    model.adapters["mine"] = read_adapter(tmp_path / "lora", model.config)
    text = Pages().text(random_tokens(20, model.config.vocab_size))
    text.adapter = "mine"
    expected = oracle_logits(merged, text.tokens)
    assert (read(model, text) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_each_row_of_a_step_has_its_own_adapter(tiny: Tiny, tmp_path: Path) -> None:
    folder, base = tiny
    models = {"": base}
    model, pages = torch_decoder(folder), Pages()
    for seed, name in enumerate(("one", "two"), 1):
        models[name] = write_adapter(tmp_path / name, base, ALL[seed:], seed)
        model.adapters[name] = read_adapter(tmp_path / name, model.config)
    vocab = model.config.vocab_size
    texts = [pages.text(random_tokens(20 + n, vocab, seed=n)) for n in range(6)]
    for text, name in zip(texts, ("one", "", "two", "two", "", "one"), strict=True):
        text.adapter = name
    for text in texts[:3]:
        step(model, [(text, len(text.tokens) - 1, 0)])
    found = step(model, [(t, len(t.tokens) - t.computed, 1) for t in texts])
    for row, text in enumerate(texts):
        expected = oracle_logits(models[text.adapter], text.tokens)[-1]
        assert (found[row] - expected).abs().max() < 2e-4


def test_an_adapter_is_added_to_int8_weights_too(tiny: Tiny, tmp_path: Path) -> None:
    folder, base = tiny
    merged = write_adapter(tmp_path / "lora", base, ALL)
    quantise_folder(folder, tmp_path / "int8")
    model = torch_decoder(tmp_path / "int8", dtype=torch.bfloat16, bits=16)
    model.adapters["mine"] = read_adapter(tmp_path / "lora", model.config)
    text = Pages().text(random_tokens(30, model.config.vocab_size))
    text.adapter = "mine"
    expected = oracle_logits(merged, text.tokens)
    assert (read(model, text) - expected).norm() / expected.norm() < 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 65}, "r: found 65, expected at most 64"),
        ({"r": 0}, "r: found 0"),
        ({"lora_alpha": 0}, "lora_alpha: found 0"),
        ({"peft_type": "IA3"}, "peft_type: found 'IA3'"),
        ({"task_type": "SEQ_CLS"}, "task_type: found 'SEQ_CLS'"),
        ({"bias": "all"}, "bias: found 'all'"),
        ({"use_dora": True}, "use_dora: found True"),
        ({"lora_bias": True}, "lora_bias: found True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out: found True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: found"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern: found"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern: found"),
        ({"layers_to_transform": [0]}, "layers_to_transform: found"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: found 'pissa'"),
        ({"target_modules": "all-linear"}, "target_modules: found 'all-linear'"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules: found"),
        ({"target_modules": []}, "target_modules: found"),
        ({"new_idea": 1}, "unknown key 'new_idea'"),
    ],
)
def test_adapters_that_would_compute_something_else_are_refused(
    change: dict[str, Any], words: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder, base = tiny
    write_adapter(tmp_path / "lora", base, ("q_proj",))
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelConfigError, match=words):
        read_adapter(tmp_path / "lora", ModelFolder.read(folder).decoder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop(min(t)), "found no tensor"),
        (lambda t: t.update({min(t): torch.ones(5, 64)}), r"found shape \(5, 64\)"),
        (lambda t: t.update({f"{min(t)}.extra": torch.ones(1)}), "does not account for"),
        (lambda t: t.update({min(t): t[min(t)].to(torch.int8)}), "found dtype torch.int8"),
    ],
)
def test_adapter_tensors_that_do_not_fit_are_refused(
    spoil: Any, words: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder, base = tiny
    write_adapter(tmp_path / "lora", base, ("q_proj", "down_proj"))
    tensors = load_file(tmp_path / "lora" / WEIGHTS)
    spoil(tensors)
    save_file(tensors, tmp_path / "lora" / WEIGHTS)
    with pytest.raises(ModelError, match=words):
        read_adapter(tmp_path / "lora", ModelFolder.read(folder).decoder)


def test_pickled_adapters_are_never_read(tiny: Tiny, tmp_path: Path) -> None:
    folder, base = tiny
    write_adapter(tmp_path / "lora", base, ("q_proj",))
    (tmp_path / "lora" / WEIGHTS).rename(tmp_path / "lora" / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"found no adapter_model\.safetensors"):
        read_adapter(tmp_path / "lora", ModelFolder.read(folder).decoder)


# ------------------------------------------------------------ on compiled kernels


def compiled(
    folder: Path, library: str, dtype: str = "bfloat16", threads: int = 1
) -> NativeDecoder:
    """A folder, adapters and all, on one library."""
    values = {"dtype": dtype, "kernels": library, "threads": threads}
    config = EngineConfig.from_dict({**values, "kv_pages": 100, "step_budget": 200})
    model = load(ModelFolder.read(folder), config, 512)
    assert isinstance(model, NativeDecoder)
    model.adapt(read_adapters(folder, model.config))
    return model


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("rank", [1, 4, 64])
@pytest.mark.parametrize("shape", ["gqa-tied", "qwen2", "qwen3"])
def test_compiled_kernels_are_as_close_to_merged_weights_as_torch_is(
    shape: str, rank: int, library: str, tmp_path: Path
) -> None:
    base = random_llama(tmp_path, shape)
    merged = write_adapter(tmp_path / "adapters" / "mine", base, ALL, r=rank, lora_alpha=rank)
    tokens = random_tokens(40, base.config.vocab_size)
    torchs = torch_decoder(tmp_path, dtype=torch.bfloat16)
    torchs.adapters["mine"] = read_adapter(tmp_path / "adapters" / "mine", torchs.config)
    found, reference = (
        read(model, Text(tokens, [0, 1, 2], adapter="mine"), chunk=17)
        for model in (compiled(tmp_path, library), torchs)
    )
    expected = oracle_logits(merged, tokens)
    without = (oracle_logits(base, tokens) - expected).norm()
    assert (found - expected).norm() < 1.2 * (reference - expected).norm() < 0.3 * without


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["w8a8", "w8a16"])
def test_compiled_int8_kernels_give_an_adapter_the_rows_before_rounding(
    dtype: str, library: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder, base = tiny
    quantise_folder(folder, tmp_path)
    write_adapter(tmp_path / "adapters" / "mine", base, ALL)
    exact = torch_decoder(tmp_path, dtype=torch.bfloat16, bits=8 if dtype == "w8a8" else 16)
    exact.adapters["mine"] = read_adapter(tmp_path / "adapters" / "mine", exact.config)
    found, expected = (
        read(model, Text(random_tokens(40, base.config.vocab_size), [5, 6, 7], adapter="mine"))
        for model in (compiled(tmp_path, library, dtype), exact)
    )
    assert (found - expected).norm() < {"w8a8": 0.06, "w8a16": 0.01}[dtype] * expected.norm()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "w8a8"])
def test_a_row_has_the_same_bits_alone_and_beside_other_adapters(
    dtype: str, library: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder, base = tiny
    if dtype == "w8a8":
        quantise_folder(folder, tmp_path)
    else:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    plain = compiled(tmp_path, library, dtype)
    for seed, name in enumerate(("one", "two"), 1):
        write_adapter(tmp_path / "adapters" / name, base, ALL[seed:], seed, r=5 * seed)
    model, pages = compiled(tmp_path, library, dtype, threads=3), Pages()
    vocab = model.config.vocab_size
    texts = [pages.text(random_tokens(20 + n, vocab, seed=n)) for n in range(6)]
    for text, name in zip(texts, ("one", "", "two", "two", "", "one"), strict=True):
        text.adapter = name
    alone = []
    for text in texts:
        alone.append(read(plain if not text.adapter else model, text, chunk=7)[-1])
        text.computed = len(text.tokens) - 1
    for text in texts[1:]:  # one that decodes, and prompts after it; some keys are in `plain`
        text.computed = 0
    found = step(model, [(t, len(t.tokens) - t.computed, 1) for t in texts])
    for row, expected in zip(found, alone, strict=True):
        assert torch.equal(row, expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_step_with_an_adapter_that_is_not_loaded_is_refused(library: str, tiny: Tiny) -> None:
    model = compiled(tiny[0], library)
    with pytest.raises(KernelError, match="not loaded"):
        step(model, [(Text([1, 2], [0], adapter="mine"), 2, 1)])
    assert model.is_clean(0)


# ------------------------------------------------------------ the folder, the engine, the tenants


@pytest.fixture
def served(tiny: Tiny, tmp_path: Path) -> Path:
    """A model folder with an adapter for everybody and one for two tenants."""
    folder, base = tiny
    model = tmp_path / "served"
    shutil.copytree(folder, model)
    for seed, name in enumerate(("open", "theirs"), 1):
        write_adapter(model / "adapters" / name, base, ALL, seed)
    allow(model, {"tenants": ["a", "b"]})
    return model


def allow(model: Path, document: object) -> None:
    (model / "adapters" / "theirs" / "tenants.json").write_text(json.dumps(document))


def answered(engine: Engine, *requests: GenerationRequest) -> list[TokenEvent]:
    """The last events of requests that run together."""
    ends: list[queue.Queue[TokenEvent]] = [queue.Queue() for _ in requests]

    def listener(end: queue.Queue[TokenEvent]) -> Callable[[TokenEvent], None]:
        return lambda event: end.put(event) if event.finish is not None else None

    for request, end in zip(requests, ends, strict=True):
        engine.submit(request, listener(end))
    return [end.get(timeout=60) for end in ends]


def asking(name: str, adapter: str = "", tenant: str = "") -> GenerationRequest:
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    prompt = [3 * n % 90 for n in range(40)]
    return GenerationRequest(
        name, prompt, params, tenant=tenant, cache_salt=b"salt", adapter=adapter
    )


def test_adapters_are_refused_to_others_and_share_no_pages_while_requests_run(served: Path) -> None:
    engine = Engine(served, EngineConfig(dtype="float32", kernels="reference", kv_pages=64))
    engine.start()
    try:
        assert sorted(engine.adapters) == ["open", "theirs"]
        engine.warm_up()
        first = answered(engine, asking("1", tenant="a"), asking("2", "open", "a"))
        assert [event.finish for event in first] == ["length", "length"]
        for adapter, tenant in (("theirs", "c"), ("theirs", ""), ("none", "a"), ("../open", "a")):
            running = asking("running", "theirs", "a")
            end: queue.Queue[TokenEvent] = queue.Queue()
            engine.submit(running, end.put)
            with pytest.raises(RequestInvalid, match="does not have for this tenant"):
                engine.submit(asking("refused", adapter, tenant), end.put)
            while (event := end.get(timeout=60)).finish is None:
                pass
            assert (event.id, event.finish) == ("running", "length")
        again = answered(
            engine,
            asking("3", tenant="a"),
            asking("4", "open", "a"),
            asking("5", "theirs", "b"),
            asking("6", "open", "b"),
        )
        cached = [event.usage and event.usage.cached_tokens for event in again]
        assert cached == [32, 32, 0, 0]
    finally:
        engine.stop()


@pytest.mark.parametrize(
    "document",
    [
        {}, [], "a", {"tenants": []}, {"tenants": "a"}, {"tenants": ["a", "a"]},
        {"tenants": [1]}, {"tenants": [""]}, {"tenants": ["a"], "more": 1},
        {"tenants": ["a" * 257]},
    ],
)  # fmt: skip
def test_a_list_of_tenants_that_is_not_clear_keeps_the_model_from_loading(
    document: object, served: Path
) -> None:
    allow(served, document)
    with pytest.raises(ModelError, match=r"tenants\.json"):
        list_adapters(served)


@pytest.mark.parametrize("name", ["Upper", ".hidden", "a:b", "a b", "n" * 65, "__pycache__"])
def test_adapter_names_have_a_strict_alphabet(name: str, served: Path) -> None:
    (served / "adapters" / "open").rename(served / "adapters" / name)
    with pytest.raises(ModelError, match=r"adapters: found"):
        list_adapters(served)


def test_files_beside_adapters_and_in_them_and_too_many_are_refused(served: Path) -> None:
    beside = served / "adapters" / "notes"
    beside.write_text("")
    with pytest.raises(ModelError, match="found 'notes', expected folders"):
        list_adapters(served)
    beside.unlink()
    (served / "adapters" / "open" / "README.md").write_text("")
    with pytest.raises(ModelError, match=r"adapter open: found 'README\.md'"):
        list_adapters(served)
    (served / "adapters" / "open" / "README.md").unlink()
    for number in range(63):
        (served / "adapters" / f"n{number}").mkdir()
    with pytest.raises(ModelError, match="found 65, expected at most 64"):
        list_adapters(served)


def test_a_model_without_adapters_has_none(tiny: Tiny) -> None:
    assert list_adapters(tiny[0]) == {}
