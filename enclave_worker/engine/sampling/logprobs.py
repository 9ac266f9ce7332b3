"""Log-probabilities of the model's own distribution, as the OpenAI API reports them.

They are taken before bias, penalties, grammar, temperature and filters: what the model thought of a
token, not how it came to be chosen (vLLM: raw_logprobs).
"""

import math

from .choice import Choice
from .filters import CANDIDATES, Row, likeliest, weigh


def with_logprobs(token: int, row: Row, alternatives: int) -> Choice:
    """The choice of a token, with its log-probability and those of the likeliest.

    Args:
        token: chosen.
        row: float32 [vocab], the model's logits.
        alternatives: how many of the likeliest tokens to report.
    """
    norm = float(row.max()) + math.log(weigh(row)[1][-1])
    ids = likeliest(row, CANDIDATES)[0][:alternatives] if alternatives else ()
    top = tuple((int(other), float(row[other]) - norm) for other in ids)
    return Choice(token, float(row[token]) - norm, top)
