"""One run of an engine, from the times of its tokens to figures; and the text that runs are fed."""

from __future__ import annotations

import itertools
import pydoc_data.topics
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Tokens between the beginnings of two prompts; prime, so that a beginning hardly ever comes back.
STRIDE = 7919


class Text:
    """Prompts cut from the language reference that ships with Python, no two of them alike.

    Each begins at another token, so that no prefix cache answers for an engine by chance.
    """

    def __init__(self, folder: Path) -> None:
        """Tokenise with the model's tokenizer.json."""
        from tokenizers import Tokenizer

        topics = pydoc_data.topics.topics
        whole = "\n".join(topics[name] for name in sorted(topics))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokens = tokenizer.encode(whole, add_special_tokens=False).ids
        self._taken = 0

    def take(self, count: int, length: int) -> list[list[int]]:
        """`count` prompts of `length` tokens."""
        prompts = []
        for _ in range(count):
            begin = self._taken * STRIDE % (len(self._tokens) - length)
            self._taken += 1
            prompts.append(self._tokens[begin : begin + length])
        return prompts


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run shows; rates in tokens a second, times in ms, nan where an engine says none.

    Attributes:
        decode: tokens after the last request's first token, over that time.
        out: all generated tokens over the whole time, prefill included.
        prefill: prompt tokens over the time to the last request's first token: less than the truth
            where an engine decodes meanwhile.
        ttft_p50: time to first token, over the requests.
        itl_p50: time between tokens, over all gaps.
        others: cores that everything else on the machine used meanwhile.
    """

    decode: float
    out: float
    prefill: float
    ttft_p50: float
    ttft_p95: float
    itl_p50: float
    itl_p95: float
    others: float

    @classmethod
    def of(cls, answer: dict[str, Any], prompt: int, out: int, others: float) -> Figures:
        """From a driver's answer; raises ValueError when tokens are missing."""
        nan = float("nan")
        if "rates" in answer:
            rates = answer["rates"]
            return cls(rates["decode"], rates["out"], rates["prefill"], nan, nan, nan, nan, others)
        began, times = answer["began"], answer["times"]
        # A server that ends a stream on an incomplete character may keep its last tokens back.
        if min(len(row) for row in times) < out - 2:
            raise ValueError(f"found {min(map(len, times))} tokens, expected {out} a stream")
        first, last = max(row[0] for row in times), max(row[-1] for row in times)
        after = sum(1 for row in times for at in row if at > first)
        ttft = [(row[0] - began) * 1e3 for row in times]
        gaps = [(b - a) * 1e3 for row in times for a, b in itertools.pairwise(row)]
        return cls(
            decode=after / (last - first) if last > first else nan,
            out=sum(map(len, times)) / (last - began),
            prefill=len(times) * prompt / (first - began),
            ttft_p50=quantile(ttft, 0.5),
            ttft_p95=quantile(ttft, 0.95),
            itl_p50=quantile(gaps, 0.5),
            itl_p95=quantile(gaps, 0.95),
            others=others,
        )

    @classmethod
    def median(cls, runs: Sequence[Figures]) -> Figures:
        """Field by field."""
        rows = [asdict(run) for run in runs]
        return cls(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
