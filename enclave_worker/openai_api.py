"""OpenAI request bodies → what the engine needs. Strict: unknown fields are refused by name.

Three lists decide about every field of the public API: read here; accepted only with the value that
describes what happens anyway (`n: 1`, `logprobs: false`, …); or ignored because it concerns billing
and bookkeeping, never the answer (`IGNORED`).
"""

from dataclasses import dataclass
from typing import Any, Literal

from evidence.commit import SEGMENTS_MAX, request_segments
from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.excerpt import json_kind, shown
from wire.limits import BODY_MAX

from .engine.errors import RequestInvalid
from .engine.params import MAX_STOP_CHARS, MAX_STOP_STRINGS, SEED_MAX, SamplingParams
from .openai_errors import ApiError, invalid
from .openai_fields import Fields

Kind = Literal["chat", "completion"]

PATHS: dict[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}

# Bookkeeping members of the public API that cannot change an answer here.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "parallel_tool_calls",
)  # fmt: skip
ROLES = ("system", "user", "assistant")
# More messages than any context window holds, and all a receipt can commit to.
MESSAGES_MAX = SEGMENTS_MAX
ROLE_MAX = 32  # characters; longer than any role there is
MODEL_NAME_MAX = 256
# OpenAI's own bound; the engine would take more, but nothing useful lies beyond it.
TEMPERATURE_MAX = 2.0


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `content` is the text parts joined."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A parsed request.

    Attributes:
        kind: which endpoint.
        model: as named in the body.
        messages: of a chat, else empty.
        prompt: of a completion: text or token ids; None for a chat.
        sampling: every sampling field; its max_tokens is the caller's, or 1 as a placeholder.
        max_tokens: the caller's limit, or None.
        stream: whether deltas are asked for.
        include_usage: whether the stream's last chunk should carry usage.
        segments: (role, bytes) of each part of the prompt, for the receipt's commitment.
    """

    kind: Kind
    model: str
    messages: tuple[ChatMessage, ...]
    prompt: str | tuple[int, ...] | None
    sampling: SamplingParams
    max_tokens: int | None
    stream: bool
    include_usage: bool
    segments: tuple[tuple[int, bytes], ...]


def parse_request(method: str, path: str, body: bytes) -> ApiRequest:
    """Parse one request.

    Args:
        method: of the sealed HEAD; only POST exists.
        path: of the sealed HEAD.
        body: JSON bytes.

    Raises:
        ApiError: anything this service cannot do exactly as asked.
    """
    kind = PATHS.get(path)
    if kind is None or method != "POST":
        known = ", ".join(f"POST {name}" for name in PATHS)
        raise ApiError(404, "unknown_endpoint", f"no such endpoint here; expected one of {known}")
    try:
        members = parse_strict(body, max_bytes=BODY_MAX)
    except MalformedError as error:
        raise ApiError(400, "invalid_json", f"request body: {error}") from None
    fields = Fields(members)
    model = fields.text("model", MODEL_NAME_MAX)
    if not model:
        raise invalid("model", "found none, expected the name of the served model")
    messages = _messages(fields) if kind == "chat" else ()
    prompt = _prompt(fields) if kind == "completion" else None
    max_tokens = _max_tokens(fields, kind)
    stream = fields.flag("stream")
    request = ApiRequest(
        kind=kind,
        model=model,
        messages=messages,
        prompt=prompt,
        sampling=_sampling(fields, max_tokens or 1),
        max_tokens=max_tokens,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        segments=tuple(request_segments(members)),
    )
    _unsupported(fields, kind)
    fields.ignore(IGNORED)
    fields.done()
    return request


def _messages(fields: Fields) -> tuple[ChatMessage, ...]:
    raw = fields.raw("messages")
    if not isinstance(raw, list) or not 1 <= len(raw) <= MESSAGES_MAX:
        raise invalid(
            "messages",
            f"found {_counted(raw)}, expected an array of 1 to {MESSAGES_MAX} messages",
        )
    return tuple(_message(item, f"messages[{index}].") for index, item in enumerate(raw))


def _message(raw: Any, where: str) -> ChatMessage:
    fields = Fields(raw, where)
    role = fields.text("role", ROLE_MAX)
    # OpenAI renamed `system` for its newer models; to a chat template they are the same.
    role = "system" if role == "developer" else role
    if role not in ROLES:
        found = shown(role, ROLE_MAX)
        raise invalid(fields.name("role"), f"found {found}, expected one of {', '.join(ROLES)}")
    content = _content(fields.raw("content"), fields.name("content"))
    fields.text("name", 64)
    # What an assistant message copied from an earlier reply carries: accepted while empty.
    for key in ("refusal", "audio", "function_call"):
        fields.only(key)
    fields.only("tool_calls", [])
    fields.only("annotations", [])
    fields.done()
    return ChatMessage(role, content)


def _content(raw: Any, name: str) -> str:
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list) or not raw:
        raise invalid(name, f"found {_counted(raw)}, expected a string or an array of text parts")
    texts = []
    for index, item in enumerate(raw):
        part = Fields(item, f"{name}[{index}].")
        found = part.raw("type")
        if found != "text":
            what = shown(found, ROLE_MAX) if isinstance(found, str) else json_kind(found)
            raise invalid(
                part.name("type"),
                f"found {what}, this service supports only text parts",
                "unsupported_value",
            )
        text = part.raw("text")
        if not isinstance(text, str):
            raise invalid(part.name("text"), f"found {json_kind(text)}, expected a string")
        part.done()
        texts.append(text)
    return "".join(texts)


def _counted(value: Any) -> str:
    """What was found where an array belongs: its type, or how many items it has."""
    return f"an array of {len(value)} items" if isinstance(value, list) else json_kind(value)


def _prompt(fields: Fields) -> str | tuple[int, ...]:
    raw = fields.raw("prompt")
    if isinstance(raw, list) and len(raw) == 1 and isinstance(raw[0], str | list):
        # A batch of one is one prompt; larger batches would need n choices.
        raw = raw[0]
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list) and raw and all(type(item) is int and item >= 0 for item in raw):
        if max(raw) >= 2**32:
            raise invalid("prompt", "found a token id over 32 bits, expected all below 2^32")
        return tuple(raw)
    raise invalid("prompt", f"found {_counted(raw)}, expected one string or one array of token ids")


def _max_tokens(fields: Fields, kind: Kind) -> int | None:
    limit = fields.integer("max_tokens", 1, 2**31 - 1)
    if kind == "chat":
        newer = fields.integer("max_completion_tokens", 1, 2**31 - 1)
        if limit is not None and newer is not None and limit != newer:
            raise invalid(
                "max_tokens",
                f"found {limit} beside max_completion_tokens {newer}, expected one of them",
            )
        limit = newer if newer is not None else limit
    return limit


def _sampling(fields: Fields, max_tokens: int) -> SamplingParams:
    temperature = fields.number("temperature", 0.0, TEMPERATURE_MAX)
    top_p = fields.number("top_p", 0.0, 1.0)
    top_k = fields.integer("top_k", -1, 2**31 - 1)
    min_p = fields.number("min_p", 0.0, 1.0)
    seed = fields.integer("seed", -(2**63), SEED_MAX)
    try:
        return SamplingParams(
            temperature=1.0 if temperature is None else temperature,
            # 0 keeps no token at all; callers who write it mean "the best one only".
            top_p=1.0 if top_p is None else (top_p or 1e-9),
            top_k=max(top_k or 0, 0),
            min_p=min_p or 0.0,
            # OpenAI's seed is signed, the engine's is one unsigned word: the same 64 bits.
            seed=None if seed is None else seed & SEED_MAX,
            stop=_stop(fields),
            max_tokens=max_tokens,
            ignore_eos=fields.flag("ignore_eos"),
        )
    except RequestInvalid as error:
        name = str(error).partition(":")[0]
        raise ApiError(400, "invalid_value", str(error), param=name) from None


def _stop(fields: Fields) -> tuple[str, ...]:
    raw = fields.raw("stop")
    if raw is None:
        return ()
    items = [raw] if isinstance(raw, str) else raw
    if not isinstance(items, list) or len(items) > MAX_STOP_STRINGS:
        raise invalid(
            "stop",
            f"found {_counted(items)}, expected a string or at most {MAX_STOP_STRINGS} strings",
        )
    for item in items:
        if not isinstance(item, str) or not 1 <= len(item) <= MAX_STOP_CHARS:
            found = f"{len(item)} characters" if isinstance(item, str) else json_kind(item)
            raise invalid(
                "stop", f"found {found}, expected strings of 1 to {MAX_STOP_CHARS} characters"
            )
    return tuple(items)


def _include_usage(fields: Fields, stream: bool) -> bool:
    raw = fields.raw("stream_options")
    if raw is None:
        return False
    if not stream:
        raise invalid(
            "stream_options", "found without stream: true, expected only together with it"
        )
    options = Fields(raw, "stream_options.")
    wanted = options.flag("include_usage")
    # Padding is the sealed channel's business and always on: the member changes nothing.
    options.ignore(("include_obfuscation",))
    options.done()
    return wanted


def _unsupported(fields: Fields, kind: Kind) -> None:
    """Accept fields of features that do not exist here only in their switched-off form."""
    fields.only("n", 1)
    for key in ("frequency_penalty", "presence_penalty"):
        fields.only(key, 0, 0.0)
    fields.only("logit_bias", {})
    if kind == "chat":
        fields.only("logprobs", False)
        fields.only("top_logprobs", 0)
        fields.only("response_format", {"type": "text"})
        fields.only("tools", [])
        fields.only("tool_choice", "none", "auto")
        fields.only("functions", [])
        fields.only("function_call", "none", "auto")
        fields.only("modalities", ["text"])
        for key in ("audio", "prediction", "web_search_options"):
            fields.only(key)
    else:
        fields.only("logprobs")
        fields.only("echo", False)
        fields.only("best_of", 1)
        fields.only("suffix", "")
