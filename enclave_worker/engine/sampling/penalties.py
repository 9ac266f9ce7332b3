"""Penalties for tokens seen before, and the caller's own bias: what is added to logits.

Order as in vLLM: bias, repetition (prompt and answer), then frequency and presence (answer only).
Only the tokens concerned are touched, so a step costs as much as there are different tokens.
"""

from collections.abc import Sequence as Sequence_

import numpy as np
import numpy.typing as npt

from enclave_worker.engine.params import SamplingParams

Row = npt.NDArray[np.float32]


class Penalties:
    """Which tokens one sequence has seen, how often it generated each, and what that costs them."""

    def __init__(self, params: SamplingParams, prompt_tokens: Sequence_[int]) -> None:
        """Start with the prompt, which only the repetition penalty looks at."""
        self._repetition = np.float32(params.repetition_penalty)
        self._presence = np.float32(params.presence_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        seen = dict.fromkeys(prompt_tokens) if params.repetition_penalty != 1 else {}
        self._slots = {token: slot for slot, token in enumerate(seen)}
        self._ids = np.array([*seen, 0], np.int64)
        self._counts = np.zeros(len(self._ids), np.float32)

    def accept(self, token: int) -> None:
        """Count a generated token."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token
        self._counts[slot] += 1

    def apply(self, row: Row) -> None:
        """Change the logits of the tokens seen, in place; float32 [vocab]."""
        ids, counts = self._ids[: len(self._slots)], self._counts[: len(self._slots)]
        found = row[ids]
        if self._repetition != 1:
            found = np.where(found > 0, found / self._repetition, found * self._repetition)
        found -= counts * self._frequency
        found -= (counts > 0) * self._presence
        row[ids] = found


class Bias:
    """The caller's logit_bias."""

    def __init__(self, pairs: Sequence_[tuple[int, float]]) -> None:
        """Take (token id, number) pairs; the ids are of the vocabulary and differ."""
        self._ids = np.array([token for token, _ in pairs], np.int64)
        self._added = np.array([number for _, number in pairs], np.float32)

    def apply(self, row: Row) -> None:
        """Add to the logits, in place; float32 [vocab]."""
        row[self._ids] += self._added
