"""Sampling fields of request bodies → `SamplingParams`, for every shape that has them."""

from collections.abc import Callable, Iterable
from typing import Any

from enclave_worker.engine.errors import RequestInvalid
from enclave_worker.engine.params import (
    MAX_BIASES,
    MAX_LOGPROBS,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    REPETITION_MIN,
    SEED_MAX,
    SamplingParams,
)
from wire.excerpt import json_kind, json_value

from .errors import ApiError, invalid
from .fields import Fields, counted

# OpenAI's own bounds; the engine would take more, but nothing useful lies beyond them.
TEMPERATURE_MAX = 2.0
PENALTY_MAX = 2.0
BIAS_MAX = 100.0
LOGPROBS_MAX = MAX_LOGPROBS


def read_sampling(fields: Fields, names: Iterable[str], **settled: Any) -> SamplingParams:
    """Read the sampling fields a shape has.

    Args:
        fields: the body.
        names: which of `READERS` the shape has; of the others the defaults hold.
        settled: parameters the shape has read by itself.

    Raises:
        ApiError: a value out of range.
    """
    found = {name: READERS[name](fields) for name in names}
    found = {name: value for name, value in found.items() if value is not None} | settled
    try:
        return SamplingParams(**found)
    except RequestInvalid as error:
        name = str(error).partition(":")[0]
        raise ApiError(400, "invalid_value", str(error), param=name) from None


def read_stops(fields: Fields, key: str = "stop") -> tuple[str, ...]:
    """Return the strings that end the answer."""
    raw = fields.raw(key)
    if raw is None:
        return ()
    items = [raw] if isinstance(raw, str) else raw
    if not isinstance(items, list) or len(items) > MAX_STOP_STRINGS:
        raise invalid(
            key,
            f"found {counted(items)}, expected a string or at most {MAX_STOP_STRINGS} strings",
        )
    for item in items:
        if not isinstance(item, str) or not 1 <= len(item) <= MAX_STOP_CHARS:
            found = f"{len(item)} characters" if isinstance(item, str) else json_kind(item)
            raise invalid(
                key, f"found {found}, expected strings of 1 to {MAX_STOP_CHARS} characters"
            )
    return tuple(items)


def _top_p(fields: Fields) -> float | None:
    # 0 keeps no token at all; callers who write it mean "the best one only".
    value = fields.number("top_p", 0.0, 1.0)
    return 1e-9 if value == 0 else value


def _top_k(fields: Fields) -> int | None:
    value = fields.integer("top_k", -1, 2**31 - 1)
    return None if value is None else max(value, 0)


def _seed(fields: Fields) -> int | None:
    # OpenAI's seed is signed, the engine's is one unsigned word: the same 64 bits.
    value = fields.integer("seed", -(2**63), SEED_MAX)
    return None if value is None else value & SEED_MAX


def _bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    raw = fields.raw("logit_bias")
    if raw is None:
        return ()
    if not isinstance(raw, dict) or len(raw) > MAX_BIASES:
        found = f"{len(raw)} members" if isinstance(raw, dict) else json_kind(raw)
        raise invalid(
            "logit_bias", f"found {found}, expected an object of at most {MAX_BIASES} members"
        )
    found_pairs = {}
    for key, value in raw.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10):
            raise invalid("logit_bias", f"found a key of {len(key)} characters, expected token ids")
        if type(value) not in (int, float) or not -BIAS_MAX <= value <= BIAS_MAX:
            raise invalid(
                "logit_bias",
                f"found {json_value(value)}, expected numbers from {-BIAS_MAX:g} to {BIAS_MAX:g}",
            )
        found_pairs[int(key)] = float(value)
    if len(found_pairs) != len(raw):
        raise invalid("logit_bias", "found a token id twice, expected each once")
    return tuple(sorted(found_pairs.items()))


def _number(name: str, low: float, high: float) -> Callable[[Fields], float | None]:
    return lambda fields: fields.number(name, low, high)


READERS: dict[str, Callable[[Fields], Any]] = {
    "temperature": _number("temperature", 0.0, TEMPERATURE_MAX),
    "top_p": _top_p,
    "top_k": _top_k,
    "min_p": _number("min_p", 0.0, 1.0),
    "presence_penalty": _number("presence_penalty", -PENALTY_MAX, PENALTY_MAX),
    "frequency_penalty": _number("frequency_penalty", -PENALTY_MAX, PENALTY_MAX),
    "repetition_penalty": _number("repetition_penalty", REPETITION_MIN, 10.0),
    "logit_bias": _bias,
    "seed": _seed,
    "stop": read_stops,
    "ignore_eos": lambda fields: fields.flag("ignore_eos"),
    "speculate": lambda fields: (
        None if fields.raw("speculate") is None else fields.flag("speculate")
    ),
}
