"""Llama, Qwen2 and Qwen3: greedy texts, long contexts, int8 weights and hidden states."""

from pathlib import Path

import pytest
import torch
from simulators.llamas import SHAPES, oracle_logits, quantise_folder, random_llama
from simulators.steps import Pages, greedy, plan_of, random_tokens, read, torch_decoder
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from enclave_worker.engine.errors import ModelError
from enclave_worker.engine.models.config_reader import ConfigReader
from enclave_worker.engine.models.rope import read_rope, rope_tables

THREE = ("gqa-untied", "qwen2", "qwen3")
PROMPTS, STEPS = 50, 128
# Two tokens nearer than this are equals in float32, in whatever order its sums were added.
EQUAL = 1e-4


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shape", THREE)
def test_greedy_tokens_equal_transformers_over_128_steps_for_50_prompts(
    shape: str, tmp_path: Path
) -> None:
    """One pass over prompt + answer: each token must be the arg-max after those before it."""
    oracle = random_llama(tmp_path, shape, num_hidden_layers=2)
    model = torch_decoder(tmp_path, pages=PROMPTS * 12)
    vocab = model.config.vocab_size
    prompts = [random_tokens(1 + n, vocab, seed=n) for n in range(PROMPTS)]
    equals = 0
    for prompt, answer in zip(prompts, greedy(model, prompts, STEPS), strict=True):
        assert len(answer) == STEPS
        logits = oracle_logits(oracle, prompt + answer[:-1])[len(prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert (logits.max(-1).values - chosen).max() < EQUAL
        equals += int((logits.argmax(-1) != torch.tensor(answer)).sum())
    assert equals <= 2  # of 6,400


@pytest.mark.parametrize("shape", [*THREE, "llama3-rope", "qwen2-untied-yarn"])
def test_logits_equal_transformers_at_8k_tokens(shape: str, tmp_path: Path) -> None:
    oracle = random_llama(tmp_path, shape, num_hidden_layers=2, max_position_embeddings=8192)
    model = torch_decoder(tmp_path, pages=512, max_len=8192)
    tokens = random_tokens(8192, model.config.vocab_size)
    with torch.inference_mode():
        expected = oracle(torch.tensor([tokens]), logits_to_keep=300).logits[0]
    text = Pages().text(tokens)
    text.tokens = tokens[:-1]
    assert (read(model, text, chunk=1024, wanted=False)[0] - expected[-2]).abs().max() < 1e-4
    text.tokens = tokens
    assert (read(model, text)[0] - expected[-1]).abs().max() < 1e-4  # one row against 512 pages


def meant_model(folder: Path, meant: dict[str, torch.Tensor]) -> PreTrainedModel:
    """Transformers' model over the numbers a quantised folder stands for."""
    oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    missing = oracle.load_state_dict(meant, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}
    return oracle


@pytest.mark.parametrize(("bits", "apart"), [(16, 0.02), (8, 0.3)])
@pytest.mark.parametrize("shape", ["biases", "qwen2", "qwen3"])
def test_int8_weights_compute_what_their_numbers_stand_for(
    shape: str, bits: int, apart: float, tmp_path: Path
) -> None:
    random_llama(tmp_path / "wide", shape)
    oracle = meant_model(tmp_path / "wide", quantise_folder(tmp_path / "wide", tmp_path / "int8"))
    model = torch_decoder(tmp_path / "int8", dtype=torch.bfloat16, bits=bits)
    tokens = random_tokens(60, model.config.vocab_size)
    found, expected = read(model, Pages().text(tokens)), oracle_logits(oracle, tokens)
    # What is left is rounding: of activations, and of keys and values to bfloat16.
    assert (found - expected).norm() / expected.norm() < apart
    assert model.describe()["dtype"] == f"w8a{bits}"


def test_sixteen_bit_activations_are_nearer_than_eight(tmp_path: Path) -> None:
    random_llama(tmp_path / "wide")
    oracle = meant_model(tmp_path / "wide", quantise_folder(tmp_path / "wide", tmp_path / "int8"))
    tokens = random_tokens(60, oracle.config.vocab_size)
    expected = oracle_logits(oracle, tokens)
    apart = [
        (
            read(
                torch_decoder(tmp_path / "int8", dtype=torch.bfloat16, bits=bits),
                Pages().text(tokens),
            )
            - expected
        ).norm()
        for bits in (8, 16)
    ]
    assert apart[1] < apart[0] / 2


def test_each_row_of_an_int8_model_is_the_same_whatever_the_chunks(tmp_path: Path) -> None:
    """Integer sums have no order; what is left of float32 differs by its last bits."""
    random_llama(tmp_path / "wide", "qwen3")
    quantise_folder(tmp_path / "wide", tmp_path / "int8")
    model = torch_decoder(tmp_path / "int8", dtype=torch.bfloat16, bits=16)
    tokens = random_tokens(70, model.config.vocab_size)
    whole, cut = (read(model, Pages().text(tokens), chunk=chunk) for chunk in (70, 7))
    assert (whole - cut).abs().max() < 0.05


def test_int8_weights_and_modes_must_fit(tmp_path: Path) -> None:
    random_llama(tmp_path / "wide")
    quantise_folder(tmp_path / "wide", tmp_path / "int8")
    with pytest.raises(ModelError, match="found int8 weights, expected dtype w8a8 or w8a16"):
        torch_decoder(tmp_path / "int8", dtype=torch.bfloat16)
    with pytest.raises(ModelError, match="found float weights, expected dtype float32 or bfloat16"):
        torch_decoder(tmp_path / "wide", dtype=torch.bfloat16, bits=8)


@pytest.mark.parametrize("shape", THREE)
def test_hidden_states_equal_transformers(shape: str, tmp_path: Path) -> None:
    oracle = random_llama(tmp_path, shape)
    model = torch_decoder(tmp_path)
    tokens = random_tokens(40, model.config.vocab_size)
    with torch.inference_mode():
        expected = oracle.model(torch.tensor([tokens])).last_hidden_state[0]
        found = model.hidden(plan_of([(Pages().text(tokens), 40, 40)]))
    assert found.shape == (40, model.config.hidden)
    assert (found - expected).abs().max() < 1e-4


def test_every_shape_names_an_architecture_the_tests_mean(tmp_path: Path) -> None:
    for shape, architecture in (("gqa-tied", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3")):
        random_llama(tmp_path / shape, shape)
        assert torch_decoder(tmp_path / shape).config.architecture == architecture
    assert {SHAPES[shape].get("model_type", "llama") for shape in THREE} == {
        "llama",
        "qwen2",
        "qwen3",
    }


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_stretched_frequencies_equal_transformers_at_the_size_of_real_models(kind: str) -> None:
    table = {"rope_type": kind, "rope_theta": 1e6, "factor": 4.0}
    if kind != "linear":
        table["original_max_position_embeddings"] = 32768
    if kind == "llama3":
        table |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = Qwen2Config(
        hidden_size=1024,
        num_attention_heads=8,
        max_position_embeddings=32768,
        rope_parameters=table,
    )
    frequency, gain = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    angle = torch.arange(5000).float()[:, None] * frequency
    cos, sin = rope_tables(read_rope(ConfigReader({"rope_parameters": table})), 128, 5000)
    assert (cos - angle.cos() * gain).abs().max() < 1e-3
    assert (sin - angle.sin() * gain).abs().max() < 1e-3
