"""The network computes what transformers computes, however a sequence is cut into steps."""

from pathlib import Path

import pytest
import torch
from simulators.llamas import SHAPES, oracle_logits, random_llama
from simulators.steps import Pages, Text, random_tokens, read, step, torch_decoder
from transformers import PreTrainedModel

Tiny = tuple[Path, PreTrainedModel]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(shape: str, tmp_path: Path) -> None:
    oracle = random_llama(tmp_path, shape)
    model = torch_decoder(tmp_path)
    tokens = random_tokens(150, model.config.vocab_size)
    expected = oracle_logits(oracle, tokens)
    for cut in (1, 2, 16, 17, 47, 149, 150):  # around the edges of pages
        text = Text(tokens[:cut], list(range(10)))
        assert (read(model, text) - expected[:cut]).abs().max() < 1e-4
    assert (step(model, [(Text(tokens, text.pages, 149), 1, 1)]) - expected[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("chunk", [1, 3, 16, 31])
def test_chunking_does_not_change_logits(chunk: int, tiny: Tiny) -> None:
    folder, oracle = tiny
    model = torch_decoder(folder)
    tokens = random_tokens(83, model.config.vocab_size)
    found = read(model, Pages().text(tokens), chunk=chunk)
    assert (found - oracle_logits(oracle, tokens)).abs().max() < 1e-4


def test_only_wanted_rows_have_logits(tiny: Tiny) -> None:
    model = torch_decoder(tiny[0])
    text = Pages().text(random_tokens(40, model.config.vocab_size))
    assert step(model, [(text, 20, 0)]).shape == (0, model.config.vocab_size)
    assert step(model, [(text, 20, 3)]).shape == (3, model.config.vocab_size)


def test_one_step_serves_decoding_and_prompts_together(tiny: Tiny) -> None:
    folder, oracle = tiny
    model, pages = torch_decoder(folder), Pages()
    vocab = model.config.vocab_size
    texts = [pages.text(random_tokens(n, vocab, seed=n)) for n in (15, 16, 17, 33, 70, 5)]
    for text in texts[:4]:
        step(model, [(text, len(text.tokens) - 1, 0)])
    found = step(model, [(t, len(t.tokens) - t.computed, 1) for t in texts])  # 4 rows, 2 chunks
    for row, text in enumerate(texts):
        assert (found[row] - oracle_logits(oracle, text.tokens)[-1]).abs().max() < 1e-4


def test_scattered_pages_give_the_same_logits_whatever_lies_in_the_others(tiny: Tiny) -> None:
    folder, oracle = tiny
    model = torch_decoder(folder)
    text = Text(random_tokens(40, model.config.vocab_size), [60, 2, 31])
    model.store.keys.fill_(torch.nan)
    model.store.values.fill_(torch.nan)
    model.scrub(text.pages)
    step(model, [(text, 39, 0)])
    expected = oracle_logits(oracle, text.tokens)[-1]
    assert (step(model, [(text, 1, 1)])[0] - expected).abs().max() < 1e-4


def test_bfloat16_follows_float32(tiny: Tiny) -> None:
    folder, oracle = tiny
    model = torch_decoder(folder, dtype=torch.bfloat16)
    tokens = random_tokens(60, model.config.vocab_size)
    found = read(model, Pages().text(tokens))
    assert found.dtype == torch.float32
    expected = oracle_logits(oracle, tokens)
    alike = torch.nn.functional.cosine_similarity(found, expected, dim=1)
    assert alike.mean() > 0.999
    assert alike.min() > 0.99
