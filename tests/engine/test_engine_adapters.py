"""LoRA adapters: the same as merged weights, each for its own rows, read strictly."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulators.llamas import oracle_logits, quantise_folder, random_llama
from simulators.lora import write_adapter
from simulators.steps import Pages, random_tokens, read, step, torch_decoder
from transformers import PreTrainedModel

from enclave_worker.engine.errors import ModelConfigError, ModelError
from enclave_worker.engine.models.adapters import WEIGHTS, read_adapter
from enclave_worker.engine.models.folder import ModelFolder

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Tiny = tuple[Path, PreTrainedModel]


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
