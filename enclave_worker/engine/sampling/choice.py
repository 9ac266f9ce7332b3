"""One token chosen."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, with log-probabilities where the request asked for them.

    Attributes:
        token: id.
        logprob: natural logarithm of the probability the model gave it, before bias, penalties,
            grammar, temperature and filters; None where not asked for.
        top: (token id, logprob) of the likeliest tokens, likeliest first, the lower id first among
            equals; the chosen one only if it is among them.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
