"""The text that calibration and quality figures use: the language reference that Python ships with.

It is on every machine that can import a model, and in no need of a licence. Topics repeat each
other, so each paragraph counts once; the first half of what is left calibrates, the second half is
held out for the figures: no paragraph is in both.
"""

import hashlib
import platform
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from enclave_worker.engine.tokenizer import Tokenizer
from wire.errors import ConfigError

_MODULE = "pydoc_data.topics"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Windows of text that do not overlap.

    Attributes:
        tokens: int64 [windows, length].
        sha256: of the text they are from, in hex: figures compare where it is equal.
    """

    tokens: torch.Tensor
    sha256: str


def calibration_text() -> str:
    """The half for calibration; raises ConfigError where this Python came without the text."""
    return _halves()[0]


def held_out_text() -> str:
    """The half for figures; raises ConfigError where this Python came without the text."""
    return _halves()[1]


def excerpt(text: str, tokenizer: Tokenizer, windows: int, length: int) -> Excerpt:
    """Take windows of `length` tokens, spread evenly over a text.

    Raises:
        ConfigError: the text is shorter than that.
    """
    ids = tokenizer.encode(text)
    if len(ids) < windows * length:
        raise ConfigError(
            f"text of {_MODULE}: found {len(ids)} tokens, expected at least {windows * length}"
        )
    starts = [index * len(ids) // windows for index in range(windows)]
    tokens = torch.tensor([ids[start : start + length] for start in starts])
    return Excerpt(tokens, hashlib.sha256(text.encode()).hexdigest())


def origin() -> str:
    """Where the text is from, for people."""
    return f"{_MODULE} of Python {platform.python_version()}"


def _halves() -> tuple[str, str]:
    try:
        topics: dict[str, Any] = import_module(_MODULE).topics
    except ImportError:
        raise ConfigError(
            f"text for calibration: found no {_MODULE} in Python {platform.python_version()}",
            hint="install the whole standard library: quantising needs text to calibrate with",
        ) from None
    whole = "\n\n".join(str(topics[name]) for name in sorted(topics))
    paragraphs = list(dict.fromkeys(whole.split("\n\n")))
    middle = len(paragraphs) // 2
    return "\n\n".join(paragraphs[:middle]), "\n\n".join(paragraphs[middle:])
