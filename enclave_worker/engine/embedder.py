"""A model that turns texts into vectors: an encoder, or a decoder whose folder says how to pool.

Texts are computed in batches of bounded size, one batch at a time; any thread may ask.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from .config import PAGE_SIZE, EngineConfig
from .errors import EngineStopped, KernelError, RequestInvalid, RequestTooLong
from .models.back_end import BackEnd
from .models.encoder import Encoder
from .models.encoder_config import EncoderConfig
from .models.folder import ModelFolder
from .models.load import load, load_encoder
from .pages import PagePool, pages_for
from .params import SamplingParams
from .plan import Work, plan_step
from .sampling.state import SamplerState
from .sequence import GenerationRequest
from .sequence import Sequence as Sequence_
from .tokenizer import Tokenizer


class Embedder:
    """Texts as vectors.

    Attributes:
        max_len: most tokens of one text.
    """

    def __init__(self, model_dir: Path, config: EngineConfig) -> None:
        """Read the folder's JSON; raises KernelError or ModelError. No weights yet."""
        if config.back_end != "anchorhold":
            raise KernelError(
                f"engine back_end: found {config.back_end!r}, expected 'anchorhold' for embeddings"
            )
        self._config = config
        self._folder = ModelFolder.read(model_dir)
        self._tokenizer = Tokenizer(self._folder.tokenizer_json)
        room = self._folder.longest
        if not isinstance(self._folder.config, EncoderConfig):
            room = min(room, config.kv_pages * PAGE_SIZE)
        self.max_len = min(config.max_len, room)
        self._turn = threading.Lock()
        self._model: Encoder | BackEnd | None = None

    def start(self) -> None:
        """Load the weights; raises ModelError."""
        with torch.inference_mode():
            if isinstance(self._folder.config, EncoderConfig):
                self._model = load_encoder(self._folder)
            else:
                self._model = load(self._folder, self._config, self.max_len)

    def warm_up(self) -> None:
        """Embed once alone and in a batch; afterwards no file is opened and no thread is made."""
        text = self.encode("Warm-up: \u00e9\u4e2d\U0001f600 1 2 3.")[: self.max_len]
        self.embed([text])
        self.embed([text[:1], text, text])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens the model wants around it."""
        return self._tokenizer.encode(text, special=True)

    def embed(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """One vector for each text: float32 [texts, hidden], in their order.

        Callers take turns batch by batch.

        Raises:
            EngineStopped: before `start`.
            RequestInvalid: an empty text, or a token the model does not have.
            RequestTooLong: a text beyond `max_len`.
        """
        vectors = torch.empty(len(tokens), self._folder.config.hidden)
        for batch in self.batches(tokens):
            with self._turn, torch.inference_mode():
                vectors[batch] = self._embed([tokens[index] for index in batch])
        return vectors

    def batches(self, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
        """Numbers of the texts to compute together: like lengths, within a step's budget of rows.

        Padding counts; a text longer than the budget is alone. Raises as `embed` does.
        """
        self._check(tokens)
        batches: list[list[int]] = []
        for index in sorted(range(len(tokens)), key=lambda index: len(tokens[index])):
            if batches and (len(batches[-1]) + 1) * len(tokens[index]) <= self._config.step_budget:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    def _check(self, tokens: Sequence[Sequence[int]]) -> None:
        """Refuse what would fail in the middle of a batch."""
        vocab, longest = self._folder.config.vocab_size, max(map(len, tokens), default=0)
        if longest > self.max_len:
            raise RequestTooLong(f"embedding: found {longest} tokens, expected <= {self.max_len}")
        if not tokens or not all(tokens):
            raise RequestInvalid("embedding: found an empty text, expected at least one token")
        if not all(type(t) is int and 0 <= t < vocab for text in tokens for t in text):
            raise RequestInvalid(f"embedding: found a token id, expected ids from 0 to {vocab - 1}")

    def _embed(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Embed one batch."""
        model = self._model
        if model is None:
            raise EngineStopped("embedder: found it not started")
        if isinstance(model, Encoder):
            return model.embed(texts)
        return torch.stack([self._pooled(model, list(text)) for text in texts])

    def _pooled(self, decoder: BackEnd, tokens: list[int]) -> torch.Tensor:
        """Read one text with a decoder, in chunks, and pool its last hidden states."""
        request = GenerationRequest("embedding", tokens, SamplingParams(max_tokens=1))
        sampler = SamplerState(request.params, 0, tokens)
        sequence = Sequence_(request, sampler, tokens, len(tokens), len(tokens))
        pool = PagePool(self._config.kv_pages, decoder.scrub)
        sequence.pages = pool.take(pages_for(len(tokens)))
        try:
            states = []
            while sequence.pending:
                count = min(sequence.pending, self._config.step_budget)
                states.append(decoder.hidden(plan_step([Work(sequence, count, wanted=count)])))
                sequence.computed += count
        finally:
            pool.give_back(sequence.pages)
        return self._folder.pooling(torch.cat(states))
