"""Bodies of `/v1/embeddings`, and what this service needs of an encoder."""

from collections.abc import Mapping
from typing import Any, Protocol

from enclave_worker.engine.params import SamplingParams
from evidence.commit import request_segments

from .completions import token_ids
from .errors import invalid, unsupported
from .fields import Fields, counted
from .request import ApiRequest

IGNORED = ("user",)
# OpenAI's bound of a batch; the receipt commits to each input.
INPUTS_MAX = 2048
ENCODINGS = ("float", "base64")


class Vectors(Protocol):
    """A matrix of float32 [n, hidden], such as a torch tensor."""

    def tolist(self) -> list[list[float]]:
        """Return its rows."""


class Embedder(Protocol):
    """Turns token ids into vectors.

    Attributes:
        max_len: most tokens of one text.
    """

    max_len: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens the model wants around it."""

    def batches(self, tokens: list[list[int]]) -> list[list[int]]:
        """Numbers of the texts that are computed together; raises RequestInvalid."""

    def embed(self, tokens: list[list[int]]) -> Vectors:
        """One vector [hidden] for each list of token ids."""


def read_embeddings(fields: Fields, model: str, members: Mapping[str, Any]) -> ApiRequest:
    """Read an embeddings body; `fields` are then checked for what nobody read."""
    inputs = _inputs(fields)
    fields.one_of("encoding_format", ENCODINGS)
    if fields.raw("dimensions") is not None:
        raise unsupported("dimensions", "found a number, this service gives the model's own only")
    fields.ignore(IGNORED)
    return ApiRequest(
        kind="embeddings",
        model=model,
        inputs=inputs,
        sampling=SamplingParams(max_tokens=1),
        members=members,
        segments=tuple(request_segments(members)),
    )


def _inputs(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    raw = fields.raw("input")
    if isinstance(raw, str) and raw:
        return (raw,)
    one = token_ids(raw, "input")
    if one is not None:
        return (one,)
    if not isinstance(raw, list) or not 1 <= len(raw) <= INPUTS_MAX:
        found = "an empty string" if raw == "" else counted(raw)
        raise invalid(
            "input", f"found {found}, expected a text or an array of 1 to {INPUTS_MAX} of them"
        )
    return tuple(_input(item, f"input[{index}]") for index, item in enumerate(raw))


def _input(raw: Any, name: str) -> str | tuple[int, ...]:
    if isinstance(raw, str) and raw:
        return raw
    ids = token_ids(raw, name)
    if ids is None:
        raise invalid(name, "expected a text that is not empty, or an array of token ids")
    return ids
