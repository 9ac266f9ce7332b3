"""Quantising: the format others read, the function kept, the arithmetic the worker's."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from simulators.encoders import random_bert
from simulators.llamas import SHAPES, oracle_logits, random_llama
from simulators.models import tiny_llama
from simulators.steps import Pages, plan_of, torch_decoder

from enclave_worker.engine.models.folder import ModelFolder
from ops.model_calibration import Activations, calibrate
from ops.model_cli import register
from ops.model_figures import Figures, Quality
from ops.model_forward import FLOAT32, INT8, KINDS, Forward, Site, float_products
from ops.model_import import import_model
from ops.model_integers import (
    BITS,
    Int8Weight,
    integer_products,
    product,
    round_nearest,
    round_together,
)
from ops.model_manifest import read
from ops.model_smoothing import smooth
from ops.model_text import calibration_text, held_out_text
from wire.errors import ConfigError

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("source") / "tiny-model", hidden=64)


@pytest.fixture(scope="module")
def quantised(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantised") / "out"
    import_model(str(source), target, quantise="w8a8")
    return target


def tokens(count: int, folder: Path) -> list[int]:
    vocab = ModelFolder.read(folder).config.vocab_size
    return torch.randint(vocab, (count,), generator=torch.Generator().manual_seed(5)).tolist()


def logits(folder: Path, tensors: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        model = Forward(ModelFolder.read(folder).decoder, tensors, FLOAT32)
        return model.logits(torch.tensor(ids), float_products(tensors, torch.float32))


# ---------------------------------------------------------------- format


def test_the_layers_become_int8_with_a_scale_a_row_and_the_rest_is_bfloat16(
    source: Path, quantised: Path
) -> None:
    before, after = load_file(source / WEIGHTS), load_file(quantised / WEIGHTS)
    assert {name for name in after if not name.endswith("_scale")} == set(before)
    for name, tensor in before.items():
        if name.endswith("_proj.weight"):
            assert after[name].dtype == torch.int8
            scale = after[f"{name}_scale"]
            assert scale.dtype == torch.float32
            assert scale.shape == (len(tensor), 1)
        else:
            assert after[name].dtype == torch.bfloat16


def test_the_configuration_names_the_format_as_vllm_reads_it(quantised: Path) -> None:
    config = json.loads((quantised / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    said = config["quantization_config"]
    assert (said["quant_method"], said["format"]) == ("compressed-tensors", "int-quantized")
    assert said["ignore"] == ["lm_head"]
    (group,) = said["config_groups"].values()
    assert group["targets"] == ["Linear"]
    kinds = ("num_bits", "type", "symmetric", "strategy", "dynamic")
    assert [group["weights"][k] for k in kinds] == [8, "int", True, "channel", False]
    assert [group["input_activations"][k] for k in kinds] == [8, "int", True, "token", True]


def test_the_worker_computes_what_the_figures_were_measured_with(quantised: Path) -> None:
    ids = tokens(90, quantised)
    stored = load_file(quantised / WEIGHTS)
    weights = {
        name.removesuffix(".weight"): Int8Weight(tensor, stored[f"{name}_scale"])
        for name, tensor in stored.items()
        if tensor.dtype == torch.int8
    }
    text = Pages().text(ids)
    for mode, bits in BITS.items():
        model = torch_decoder(quantised, dtype=torch.bfloat16, bits=bits)
        with torch.inference_mode():
            served = model.forward(plan_of([(text, len(ids), len(ids))]), whole=True).values
            measured = Forward(ModelFolder.read(quantised).decoder, stored, INT8).logits(
                torch.tensor(ids), integer_products(weights, mode)
            )
        assert served is not None
        spread = float(measured.std())
        # A value at the edge between two integers may fall to either side of it.
        assert float((served - measured).abs().mean()) < 0.01 * spread, mode
        text.computed = 0


def test_equal_sources_give_equal_int8_bytes(source: Path, quantised: Path, tmp_path: Path) -> None:
    again = import_model(str(source), tmp_path / "again", quantise="w8a8")
    assert again.encode() == read(quantised).encode()


def test_an_int8_folder_is_imported_as_it_is(quantised: Path, tmp_path: Path) -> None:
    manifest = import_model(str(quantised), tmp_path / "copy")
    before, after = load_file(quantised / WEIGHTS), load_file(tmp_path / "copy" / WEIGHTS)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(after[name].dtype == tensor.dtype for name, tensor in before.items())
    assert (manifest.quantisation, manifest.figures) == (None, None)


# ---------------------------------------------------------------- mathematics


@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_pass_agrees_with_transformers(shape: str, tmp_path: Path) -> None:
    oracle = random_llama(tmp_path, shape)
    ids = tokens(64, tmp_path)
    found = logits(tmp_path, load_file(tmp_path / WEIGHTS), ids)
    assert float((found - oracle_logits(oracle, ids)).abs().max()) < 1e-3


@pytest.mark.parametrize("strength", [0.5, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_smoothing_leaves_the_function_as_it_was(
    shape: str, strength: float | None, tmp_path: Path
) -> None:
    random_llama(tmp_path, shape)
    config, ids = ModelFolder.read(tmp_path).decoder, tokens(64, tmp_path)
    before = load_file(tmp_path / WEIGHTS)
    after = dict(before)
    with torch.inference_mode():
        seen = calibrate(config, before, torch.tensor([ids]), lambda *_: None)
        for layer in range(config.layers):
            smooth(config, after, layer, seen, strength)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(name.endswith("v_proj.weight") for name in changed)
    assert any(name.endswith("input_layernorm.weight") for name in changed)
    assert float((logits(tmp_path, after, ids) - logits(tmp_path, before, ids)).abs().max()) < 2e-3


def test_smoothing_says_what_its_sites_read_from_now_on(tmp_path: Path) -> None:
    random_llama(tmp_path, "biases")
    config = ModelFolder.read(tmp_path).decoder
    text = torch.tensor([tokens(64, tmp_path)])
    tensors = load_file(tmp_path / WEIGHTS)
    with torch.inference_mode():
        said = calibrate(config, tensors, text, lambda *_: None)
        for layer in range(config.layers):
            smooth(config, tensors, layer, said, 0.6)
        found = calibrate(config, tensors, text, lambda *_: None)
    for site, read_there in found.items():
        assert torch.allclose(said[site].peak, read_there.peak, rtol=1e-3, atol=1e-5), site
        assert torch.allclose(said[site].rows.float(), read_there.rows.float(), atol=0.1, rtol=0.1)


def test_smoothing_takes_an_outlier_out_of_what_is_rounded(tmp_path: Path) -> None:
    random_llama(tmp_path, "gqa-tied")
    config = ModelFolder.read(tmp_path).decoder
    tensors = load_file(tmp_path / WEIGHTS)
    tensors["model.layers.0.input_layernorm.weight"][3] *= 300
    with torch.inference_mode():
        seen = calibrate(config, tensors, torch.tensor([tokens(64, tmp_path)]), lambda *_: None)
        site = Site(0, "qkv")
        before = float(seen[site].peak.max() / seen[site].peak.median())
        smooth(config, tensors, 0, seen, 0.5)
    assert float(seen[site].peak.max() / seen[site].peak.median()) < before / 5


@given(
    rows=st.integers(1, 5),
    wide=st.integers(2, 300),  # torch's own product is wrong for one column
    seed=st.integers(0, 99),
    mode=st.sampled_from(sorted(BITS)),
)
def test_integer_products_are_exact(rows: int, wide: int, seed: int, mode: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, wide, generator=generator) * 10.0 ** (seed % 7 - 3)
    x[0, : wide // 2] = -x.abs().amax()  # the largest codes there are, of either sign
    codes = torch.randint(-127, 128, (7, wide), generator=generator, dtype=torch.int8)
    codes[0] = 127
    weight = Int8Weight(codes, torch.rand(7, 1, generator=generator) + 0.1)
    most = 2 ** (BITS[mode] - 1) - 1
    peak = x.abs().amax(-1, keepdim=True)
    whole = (x * (torch.tensor(float(most)) / peak)).round().double()
    expected = (whole @ codes.double().t()).float() * (peak / most * weight.scale[:, 0])
    assert torch.equal(product(x, weight, mode), expected)


def test_a_row_of_zeros_gives_zeros() -> None:
    weight = round_nearest(torch.randn(3, 8))
    for mode in BITS:
        assert not product(torch.zeros(2, 8), weight, mode).any()


def test_rounding_together_loses_less_than_rounding_each_number() -> None:
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(6, 96, generator=generator)  # channels that go together, as in models
    x = torch.randn(512, 6, generator=generator) @ basis
    x += 0.05 * torch.randn(512, 96, generator=generator)
    weight = torch.randn(40, 96, generator=generator)

    def loss(found: Int8Weight) -> float:
        return float((x @ (found.codes.float() * found.scale - weight).t()).square().mean())

    assert loss(round_together(weight, x)) < 0.5 * loss(round_nearest(weight))


@pytest.mark.parametrize("silent", [0, 5, 96])
def test_rounding_together_bears_channels_that_were_silent(silent: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 96, generator=generator)
    x[:, :silent] = 0
    weight = torch.randn(8, 96, generator=generator)
    weight[2] = 0
    found = round_together(weight, x)
    assert found.scale.isfinite().all()
    assert (found.scale > 0).all()
    error = (found.codes.float() * found.scale - weight).abs()
    assert bool((error[:, :silent] <= 0.51 * found.scale).all())
    assert not found.codes[2].any()


def test_the_text_for_figures_shares_no_paragraph_with_the_one_for_calibration() -> None:
    ours, theirs = (text.split("\n\n") for text in (calibration_text(), held_out_text()))
    assert len(ours) > 500
    assert len(theirs) > 500
    assert not set(ours) & set(theirs)


# ---------------------------------------------------------------- figures


def test_figures_are_measured_for_every_mode_and_kept(quantised: Path) -> None:
    manifest = read(quantised)
    assert manifest.quantisation is not None
    assert manifest.quantisation.mode == "w8a8"
    figures = manifest.figures
    assert figures is not None
    assert set(figures.modes) == {"float32", "bfloat16", "w8a16", "w8a8"}
    assert figures.tokens >= 3072
    assert figures.sha256 != manifest.quantisation.sha256
    exact, fine, rough = (figures.modes[mode] for mode in ("float32", "w8a16", "w8a8"))
    assert exact == Quality(exact.perplexity, 0.0, 1.0)
    assert 0 < fine.divergence < rough.divergence
    assert rough.agreement < 1


def test_perplexity_is_e_to_the_mean_surprise(source: Path, quantised: Path) -> None:
    from enclave_worker.engine.tokenizer import Tokenizer
    from ops.model_text import excerpt

    tokenizer = Tokenizer((source / "tokenizer.json").read_text())
    windows = excerpt(held_out_text(), tokenizer, 7, 512).tokens
    stored = load_file(source / WEIGHTS)
    losses = [
        torch.nn.functional.cross_entropy(logits(source, stored, row.tolist())[:-1], row[1:])
        for row in windows
    ]
    figures = read(quantised).figures
    assert figures is not None
    expected = float(torch.stack(losses).mean().exp())
    assert figures.modes["float32"].perplexity == pytest.approx(expected, rel=1e-4)


def test_the_table_shows_what_each_mode_costs() -> None:
    modes = {"bfloat16": Quality(10.0, 0.001, 0.98), "w8a8": Quality(10.2, 0.02, 0.9)}
    lines = list(Figures("a text", "0" * 64, 3577, 512, modes).table())
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].split() == ["w8a8", "10.200", "+2.00%", "0.02000", "90.0%"]


# ---------------------------------------------------------------- refusals


def changed(source: Path, target: Path, change: dict[str, torch.Tensor]) -> Path:
    shutil.copytree(source, target)
    save_file(load_file(source / WEIGHTS) | change, target / WEIGHTS, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantise": "w4a4"}, "found 'w4a4', expected one of"),
        ({"quantise": "w8a8", "dtype": "float32"}, "'float32', expected 'bfloat16' beside int8"),
        ({"quantise": "w8a8", "smoothing": 1.5}, "found 1.5, expected a number from 0 to 1"),
        ({"quantise": "w8a8", "smoothing": float("nan")}, "found nan, expected a number"),
        ({"smoothing": 0.5}, "found a strength and nothing to quantise"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    options: dict[str, Any], words: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        import_model(str(source), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_int8_is_never_quantised_again(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found int8 numbers, expected floats") as caught:
        import_model(str(quantised), tmp_path / "out", quantise="w8a8")
    assert "quantise from the original" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused_by_name(source: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    broken = load_file(source / WEIGHTS)[name]
    broken[1, 2] = torch.nan
    folder = changed(source, tmp_path / "broken", {name: broken})
    with pytest.raises(ConfigError, match=rf"{name}: found numbers that are not finite"):
        import_model(str(folder), tmp_path / "out", quantise="w8a8")


def test_an_encoder_is_imported_whole_and_never_quantised(tmp_path: Path) -> None:
    random_bert(tmp_path / "bert")
    with pytest.raises(ConfigError, match="found an encoder, expected a model that generates"):
        import_model(str(tmp_path / "bert"), tmp_path / "out", quantise="w8a8")
    manifest = import_model(str(tmp_path / "bert"), tmp_path / "out")
    assert (manifest.kind, manifest.dtype) == ("encoder", "float32")
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("bert", "out"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# ---------------------------------------------------------------- command line


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["model", *words])
    return int(arguments.run(arguments))


def test_the_command_shows_the_figures(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run("import", str(source), out, "--quantise", "w8a8", "--smoothing", "0.4") == 0
    imported = capsys.readouterr()
    table = imported.out[imported.out.index("quality on") :]
    assert {line.split()[0] for line in table.splitlines()[2:]} == {
        "float32", "bfloat16", "w8a16", "w8a8",
    }  # fmt: skip
    assert run("inspect", out) == 0
    inspected = capsys.readouterr().out
    assert table.strip() in inspected
    assert "int8, smoothing 0.4" in inspected


def test_a_loss_of_more_than_one_percent_is_said_aloud(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same function with one channel far above the others, and nothing done about it."""
    change = {}
    for name, tensor in load_file(source / WEIGHTS).items():
        if name.endswith("layernorm.weight"):
            change[name] = tensor.clone()
            change[name][5] *= 3000
        elif any(f"{kind}_proj" in name for kind in ("q", "k", "v", "gate", "up")):
            change[name] = tensor.clone()
            change[name][:, 5] /= 3000
    folder = changed(source, tmp_path / "spiky", change)
    words = ("import", str(folder), str(tmp_path / "out"), "--quantise", "w8a8")
    assert run(*words, "--smoothing", "0", "--json") == 0
    shown = capsys.readouterr()
    figures = json.loads(shown.out)["manifest"]["figures"]["modes"]
    loss = figures["w8a8"]["perplexity"] / figures["bfloat16"]["perplexity"] - 1
    assert (loss > 0.01) == ("WARNING: perplexity in w8a8 is" in shown.err)
    assert loss > 0.01


def test_kinds_cover_every_product_of_a_layer(source: Path) -> None:
    products = {n for n in load_file(source / WEIGHTS) if n.endswith("_proj.weight")}
    named = {f"{n}.weight" for i in range(2) for k in KINDS for n in Site(i, k).names}
    assert named == products


def test_activations_are_kept_narrow(source: Path) -> None:
    config = ModelFolder.read(source).decoder
    tensors = load_file(source / WEIGHTS)
    text = torch.tensor([tokens(32, source), tokens(32, source)])
    with torch.inference_mode():
        seen = calibrate(config, tensors, text, lambda *_: None)
    kept: Activations = seen[Site(1, "down")]
    assert kept.rows.dtype == torch.bfloat16
    assert kept.rows.shape == (64, config.intermediate)
    assert torch.allclose(kept.peak, kept.rows.float().abs().amax(0), rtol=0.01)
