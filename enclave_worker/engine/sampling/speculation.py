"""Guessing the next tokens from what the sequence has said before (prompt lookup).

Where an answer repeats its prompt or itself (quotations, code, JSON keys), the longest n-gram that
ends the sequence has occurred before, and what followed it then is likely to follow now (Saxena
2023, prompt lookup decoding). All guesses are verified in one step. A guess never changes an
answer: every token is chosen from the logits of its own position, with that position's number.
"""

from array import array
from collections.abc import Sequence as Sequence_

from .grammar import Matcher

# Sequences at once, and tokens to guess for each: rows are nearly free while a step is bound by the
# reading of weights, and cost their share from about 16 on.
_LENGTHS = ((1, 7), (3, 5), (7, 3), (15, 1))
LENGTH_MAX = 7
# n-grams looked up, longest first.
_GRAMS = (4, 2)
# Slots for each of them, of four bytes: later n-grams overwrite earlier ones, found by comparison.
_SLOTS = 1 << 13
# Steps without a guess after several wrong ones.
_REST_MAX = 32


def draft_length(sequences: int) -> int:
    """Most tokens worth guessing for each of this many sequences in a step."""
    return next((length for most, length in _LENGTHS if sequences <= most), 0)


class Drafter:
    """Guesses for one sequence. Memory is fixed; a token costs the same however long it is."""

    def __init__(self, tokens: Sequence_[int], matcher: Matcher | None = None) -> None:
        """Look things up in `tokens`, which somebody else appends to; nothing is done yet.

        Args:
            tokens: prompt and answer so far.
            matcher: of the answer's grammar; only what it allows is guessed.
        """
        self._tokens = tokens
        self._matcher = matcher
        self._after = {n: array("i", bytes(4 * _SLOTS)) for n in _GRAMS}
        self._indexed = 0
        self._length = LENGTH_MAX
        self._misses = self._rest = 0

    def draft(self, most: int) -> tuple[int, ...]:
        """Return up to `most` tokens, none where there is nothing to go by."""
        if self._rest:
            self._rest -= 1
            return ()
        most = min(most, self._length)
        guess = self._matcher.forced()[:most] if self._matcher is not None else []
        if not guess:
            guess = self._look_up(most)
            if self._matcher is not None:
                guess = guess[: self._matcher.allowed(guess)]
        return tuple(guess)

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn how a draft fared: guess less after a wrong one, and rest after several."""
        if not drafted:
            return
        self._length = min(LENGTH_MAX, 2 * accepted + 1)
        self._misses = 0 if accepted else self._misses + 1
        self._rest = min(2**self._misses, _REST_MAX) - 1 if self._misses > 1 else 0

    def _look_up(self, most: int) -> list[int]:
        """What followed the latest occurrence of the sequence's end."""
        tokens = self._tokens
        for end in range(self._indexed, len(tokens)):
            for n, after in self._after.items():
                if end >= n:
                    after[_slot(tokens, end, n)] = end
        self._indexed = len(tokens)
        for n, after in self._after.items():
            end = after[_slot(tokens, len(tokens), n)] if len(tokens) > n else 0
            if end and tokens[end - n : end] == tokens[-n:]:
                guess = list(tokens[end : end + most])
                while len(guess) < most:  # the occurrence overlaps the end: it goes on repeating
                    guess.append(guess[len(guess) - (len(tokens) - end)])
                return guess
        return []


def _slot(tokens: Sequence_[int], end: int, n: int) -> int:
    """Where the n tokens before `end` are looked up."""
    return hash(tuple(tokens[end - n : end])) % _SLOTS
