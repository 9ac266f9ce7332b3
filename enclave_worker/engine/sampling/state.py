"""What sampling remembers of one sequence."""

import hashlib
from collections.abc import Sequence as Sequence_

import numpy as np

from enclave_worker.engine.params import SamplingParams

from .grammar import Matcher
from .penalties import Bias, Penalties, Row

_UNIT = 2.0**-53


class SamplerState:
    """Parameters, seed and everything that depends on the tokens so far.

    Attributes:
        params: of the request.
        seed: of the random draws.
        position: of the token to be chosen next: how long the sequence is.
        matcher: where the grammar stands, or None.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        prompt_tokens: Sequence_[int],
        matcher: Matcher | None = None,
    ) -> None:
        """Start after the prompt."""
        self.params = params
        self.seed = seed
        self.position = len(prompt_tokens)
        self.matcher = matcher
        self._bias = Bias(params.logit_bias) if params.logit_bias else None
        self._penalties = Penalties(params, prompt_tokens) if params.penalised else None

    @property
    def adjusts(self) -> bool:
        """Whether the model's logits are changed before a token is chosen."""
        return not (self._bias is None and self._penalties is None and self.matcher is None)

    @property
    def needs_values(self) -> bool:
        """Whether the arg-max is not enough."""
        return not self.params.greedy or self.params.logprobs is not None or self.adjusts

    @property
    def uniform(self) -> float:
        """The random number of this position in [0, 1): a hash of seed and position."""
        counter = self.seed.to_bytes(8, "little") + self.position.to_bytes(8, "little")
        digest = hashlib.blake2b(counter, digest_size=8, person=b"token draw").digest()
        return (int.from_bytes(digest, "little") >> 11) * _UNIT

    def accept(self, token: int) -> None:
        """Move on by a token of the answer."""
        self.position += 1
        if self._penalties is not None:
            self._penalties.accept(token)
        if self.matcher is not None:
            self.matcher.accept(token)

    def adjust(self, row: Row) -> bool:
        """Apply bias, penalties and grammar to logits, in place.

        Args:
            row: float32 [vocab].

        Returns:
            False where the grammar can allow no token: it hit a limit.
        """
        if self._bias is not None:
            self._bias.apply(row)
        if self._penalties is not None:
            self._penalties.apply(row)
        if self.matcher is not None:
            allowed = self.matcher.mask()
            if allowed is None:
                return False
            np.putmask(row, ~allowed, -np.inf)
        return True
