"""Bodies of `/v1/completions`."""

from collections.abc import Mapping
from typing import Any

from evidence.commit import request_segments

from .chat import IGNORED, read_include_usage
from .errors import invalid, unsupported
from .fields import Fields, counted
from .formats import one_format, read_response_format, read_structured_outputs
from .request import CHOICES_MAX, TOKENS_MAX, ApiRequest
from .sampling import LOGPROBS_MAX, READERS, read_sampling


def read_completion(fields: Fields, model: str, members: Mapping[str, Any]) -> ApiRequest:
    """Read a completion body; `fields` are then checked for what nobody read."""
    max_tokens = fields.integer("max_tokens", 1, TOKENS_MAX)
    stream = fields.flag("stream")
    n = fields.integer("n", 1, CHOICES_MAX) or 1
    wanted = fields.integer("logprobs", 0, LOGPROBS_MAX)
    echo = fields.flag("echo")
    if echo and wanted is not None:
        raise unsupported(
            "logprobs", "found beside echo: true, this service has none of the prompt's tokens"
        )
    request = ApiRequest(
        kind="completion",
        model=model,
        prompt=_prompt(fields),
        sampling=read_sampling(fields, READERS, max_tokens=max_tokens or 1, logprobs=wanted),
        max_tokens=max_tokens,
        n=n,
        stream=stream,
        include_usage=read_include_usage(fields, stream),
        format=one_format(read_response_format(fields), read_structured_outputs(fields)),
        echo=echo,
        members=members,
        segments=tuple(request_segments(members)),
    )
    # More candidates than answers would have to be ranked.
    fields.only("best_of", n)
    fields.only("suffix", "")
    fields.ignore(IGNORED)
    return request


def _prompt(fields: Fields) -> str | tuple[int, ...]:
    raw = fields.raw("prompt")
    if isinstance(raw, list) and len(raw) == 1 and isinstance(raw[0], str | list):
        # A batch of one is one prompt; larger batches are several requests.
        raw = raw[0]
    if isinstance(raw, str):
        return raw
    ids = token_ids(raw, "prompt")
    if ids is None:
        raise invalid(
            "prompt", f"found {counted(raw)}, expected one string or one array of token ids"
        )
    return ids


def token_ids(raw: Any, name: str) -> tuple[int, ...] | None:
    """The token ids in a list of nothing else, or None."""
    if isinstance(raw, list) and raw and all(type(item) is int and item >= 0 for item in raw):
        if max(raw) >= 2**32:
            raise invalid(name, "found a token id over 32 bits, expected all below 2^32")
        return tuple(raw)
    return None
