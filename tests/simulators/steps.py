"""A back end driven by hand: steps written out, without scheduler, sampler or cache."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from enclave_worker.engine.models.back_end import BackEnd
from enclave_worker.engine.models.decoder import Decoder
from enclave_worker.engine.models.folder import ModelFolder
from enclave_worker.engine.models.weights import Weights
from enclave_worker.engine.plan import Chunk, StepPlan

PAGE = 16


def torch_decoder(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    pages: int = 64,
    max_len: int = 512,
    bits: int | None = None,
) -> Decoder:
    """The reference decoder over a folder."""
    with Weights(folder, dtype) as weights:
        config = ModelFolder.read(folder).decoder
        return Decoder(config, weights, dtype, pages, max_len, bits=bits)


@dataclass
class Text:
    """Tokens, the pages that hold their keys, how many have been computed, and the adapter."""

    tokens: list[int]
    pages: list[int]
    computed: int = 0
    adapter: str = ""


@dataclass
class Pages:
    """Page numbers handed out once."""

    free: list[int] = field(default_factory=lambda: list(range(100_000)))

    def text(self, tokens: Sequence[int], room: int = 0) -> Text:
        """Pages for these tokens and `room` more."""
        count = -(-(len(tokens) + room) // PAGE)
        taken, self.free = self.free[:count], self.free[count:]
        return Text(list(tokens), taken)


def plan_of(work: Sequence[tuple[Text, int, int]]) -> StepPlan:
    """Compute `count` tokens of each text and want the last `wanted` rows; single rows first."""
    ordered = sorted(work, key=lambda item: item[1] > 1)
    assert list(ordered) == list(work), "single rows come first"
    tokens: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    chunks: list[Chunk] = []
    for text, count, rows in work:
        first, start = len(tokens), text.computed
        chunks.append(Chunk(first, count, start, text.pages, text.adapter))
        tokens += text.tokens[start : start + count]
        positions += range(start, start + count)
        wanted += range(first + count - rows, first + count)
    as_int = [np.array(values, np.int32) for values in (tokens, positions, wanted)]
    return StepPlan(as_int[0], as_int[1], tuple(chunks), as_int[2], ())


def step(model: BackEnd, work: Sequence[tuple[Text, int, int]]) -> torch.Tensor:
    """Compute one step: float32 [wanted, vocab]."""
    with torch.inference_mode():
        values = model.forward(plan_of(work), whole=True).values
    assert values is not None
    for text, count, _ in work:
        text.computed += count
    return values


def read(model: BackEnd, text: Text, *, chunk: int = 512, wanted: bool = True) -> torch.Tensor:
    """Compute what is left of a text in chunks: logits of every row, or of the last one."""
    parts = []
    while text.computed < len(text.tokens):
        count = min(chunk, len(text.tokens) - text.computed)
        last = text.computed + count == len(text.tokens)
        parts.append(step(model, [(text, count, count if wanted else int(last))]))
    return torch.cat(parts)


def greedy(model: BackEnd, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """`count` likeliest tokens after each prompt, all prompts in one batch."""
    pages = Pages()
    texts = [pages.text(prompt, count) for prompt in prompts]
    for text in texts:
        if len(text.tokens) > 1:
            step(model, [(text, len(text.tokens) - 1, 0)])
    for _ in range(count):
        best = step(model, [(text, 1, 1) for text in texts]).argmax(-1).tolist()
        for text, token in zip(texts, best, strict=True):
            text.tokens.append(token)
    return [text.tokens[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def random_tokens(count: int, vocab: int, seed: int = 5) -> list[int]:
    """Token ids, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(0, vocab, (count,), generator=generator).tolist()
    return found
