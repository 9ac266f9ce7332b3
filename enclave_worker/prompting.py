"""A parsed API request → what the engine runs: template, token ids, final limits."""

from dataclasses import replace

from .engine.engine import Engine
from .engine.errors import TemplateError
from .engine.sequence import GenerationRequest
from .engine.templates import TemplateRefusal
from .openai_api import ApiRequest
from .openai_errors import ApiError


def generation_request(
    request: ApiRequest, engine: Engine, out_class: int, rid: bytes, salt: bytes
) -> GenerationRequest:
    """Tokenise and settle `max_tokens`.

    Without a limit of the caller's the answer may fill its output class or the context, whichever
    ends first; with one, prompt and limit must fit the context together.

    Args:
        request: parsed body.
        engine: for its tokenizer, template and context length.
        out_class: output class of the clear header, in tokens.
        rid: names the sequence.
        salt: prefix-cache salt.

    Raises:
        ApiError: no or a refusing template, an empty prompt, a prompt beyond the context.
    """
    tokens = _tokens(request, engine)
    room = engine.max_len - len(tokens)
    if not tokens:
        raise ApiError(400, "invalid_value", "prompt: found no token, expected at least one")
    wanted = request.max_tokens or min(out_class, max(room, 1))
    if wanted > room:
        raise ApiError(
            400,
            "context_length_exceeded",
            f"context: found {len(tokens)} prompt tokens and max_tokens {wanted}, "
            f"expected at most {engine.max_len} together",
            param="messages" if request.kind == "chat" else "prompt",
        )
    return GenerationRequest(
        id=rid.hex(),
        prompt_tokens=tokens,
        params=replace(request.sampling, max_tokens=wanted),
        cache_salt=salt,
    )


def _tokens(request: ApiRequest, engine: Engine) -> list[int]:
    if request.kind == "chat":
        return _chat_tokens(request, engine)
    if isinstance(request.prompt, str):
        return engine.tokenizer.encode(request.prompt, special=True)
    tokens = list(request.prompt or ())
    if any(token >= engine.tokenizer.vocab_size for token in tokens):
        raise ApiError(
            400,
            "invalid_value",
            f"prompt: expected token ids below {engine.tokenizer.vocab_size}",
            param="prompt",
        )
    return tokens


def _chat_tokens(request: ApiRequest, engine: Engine) -> list[int]:
    if engine.template is None:
        raise ApiError(
            400, "no_chat_template", "messages: this model has no chat template; use completions"
        )
    messages = [{"role": item.role, "content": item.content} for item in request.messages]
    try:
        text = engine.template.render(messages)
    except TemplateRefusal as error:
        raise ApiError(
            400, "invalid_value", f"messages: {error.reason}", param="messages"
        ) from None
    except TemplateError as error:
        raise ApiError(400, "invalid_value", f"messages: {error}", param="messages") from None
    return engine.tokenizer.encode(text)
