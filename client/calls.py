"""One API request as the client needs to know it: what to seal, what to expect back.

The worker is the strict reader of request bodies. The client reads only what decides about the
envelope: model, stream, token limit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.excerpt import json_kind, json_value
from wire.limits import BODY_DEPTH_MAX, BODY_MAX, NAME_MAX, OUT_CLASSES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Kind = Literal["chat", "completion", "responses", "messages", "embeddings"]
ENDPOINTS: Final[Mapping[str, Kind]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
}
OPS: Final[Mapping[Kind, str]] = {"completion": "completion", "embeddings": "embed"}
# Output class for callers that set no limit: the answer is cut there, and quota is charged for it.
DEFAULT_MAX_TOKENS: Final = 1024
LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Call:
    """A request the client is ready to seal.

    Attributes:
        kind: which endpoint.
        path: endpoint path inside the ciphertext.
        body: JSON bytes as the worker will read them.
        model: name in the body; once `among` has seen it, without the adapter.
        stream: whether deltas are asked for.
        include_usage: whether the rebuilt stream ends with a usage chunk.
        max_tokens: the caller's limit or the default, of all choices; decides the output class.
        members: the parsed body.
        adapter: what the body says after MODEL and a colon; only the worker is told.
    """

    kind: Kind
    path: str
    body: bytes
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int
    members: Mapping[str, Any]
    adapter: str = ""

    @property
    def op(self) -> str:
        """The header's operation."""
        return OPS.get(self.kind, "chat")

    def among(self, names: Collection[str]) -> Call:
        """Take MODEL:ADAPTER apart where MODEL is one of these names and the whole is none."""
        model, _, adapter = self.model.rpartition(":")
        if self.model in names or model not in names:
            return self
        return replace(self, model=model, adapter=adapter)


def parse_call(path: str, body: bytes) -> Call:
    """Read one request body.

    Raises:
        MalformedError: an unknown endpoint, or a body without the members the envelope needs.
    """
    kind = ENDPOINTS.get(path)
    if kind is None:
        known = ", ".join(ENDPOINTS)
        raise MalformedError(
            f"found no sealed endpoint {path[:80]!r}, expected one of {known}",
            code="unknown_endpoint",
            hint="nothing was sent: only sealed endpoints leave this process",
        )
    members = parse_strict(body, max_depth=BODY_DEPTH_MAX, max_bytes=BODY_MAX)
    if not isinstance(members, dict):
        raise MalformedError(f"request body: found {json_kind(members)}, expected a JSON object")
    model = members.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= NAME_MAX:
        found = f"{len(model)} characters" if isinstance(model, str) else json_kind(model)
        raise MalformedError(f"model: found {found}, expected a name of 1 to {NAME_MAX} characters")
    stream = members.get("stream") or False
    if not isinstance(stream, bool) or (stream and kind == "embeddings"):
        expected = "none here" if kind == "embeddings" else "true or false"
        raise MalformedError(f"stream: found {json_kind(stream)}, expected {expected}")
    options = members.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    limit = 1 if kind == "embeddings" else _max_tokens(members)
    return Call(kind, path, body, model, stream, include_usage, limit, members)


def make_call(path: str, members: Mapping[str, Any]) -> Call:
    """A call from Python values."""
    try:
        body = json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        data = body.encode()
    except (TypeError, ValueError) as cause:
        raise MalformedError("request body: holds a value JSON cannot carry") from cause
    return parse_call(path, data)


def _max_tokens(members: Mapping[str, Any]) -> int:
    """Tokens of all choices together: what the output class must hold."""
    n = members.get("n")
    choices = n if type(n) is int and n >= 1 else 1  # what else it may be, the worker refuses
    most = OUT_CLASSES[-1]
    for name in LIMITS:
        value = members.get(name)
        if value is None:
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise MalformedError(
                f"{name}: found {json_value(value)}, expected an integer from 1 to {most}"
            )
        if value * choices > most:
            raise MalformedError(
                f"{name}: found {value} for {choices} choices, expected at most {most} in all"
            )
        return value * choices
    return min(DEFAULT_MAX_TOKENS * choices, most)
