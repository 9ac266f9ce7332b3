"""A parsed API request → what the engine runs: template, token ids, grammar, final limits."""

import secrets
from dataclasses import dataclass, replace

from .api.errors import ApiError
from .api.request import ApiRequest
from .api.tool_forms import Form, answer_grammar, form_of, prompt_values
from .engine.engine import Engine
from .engine.errors import TemplateError
from .engine.sequence import GenerationRequest
from .engine.templates import TemplateRefusal


@dataclass(frozen=True, slots=True)
class Prompted:
    """What the engine runs, and how its text is to be read.

    Attributes:
        work: for the engine.
        form: how the answer writes tool calls; None where it may hold none.
        echo: text the answer begins with.
    """

    work: GenerationRequest
    form: Form | None
    echo: str


def prompted(
    request: ApiRequest,
    engine: Engine,
    out_class: int,
    rid: bytes,
    salt: bytes,
    adapter: str = "",
) -> Prompted:
    """Tokenise, settle `max_tokens`, and draw the seed where the caller gave none.

    Without a limit of the caller's the answers together may fill the output class, or each the
    context, whichever ends first; with one, prompt and limit must fit the context together.

    Args:
        request: parsed body.
        engine: for its tokenizer, template and context length.
        out_class: output class of the clear header, in tokens of all choices.
        rid: names the sequence.
        salt: prefix-cache salt.
        adapter: name of the LoRA adapter; empty for none.

    Raises:
        ApiError: no or a refusing template, an empty prompt, a prompt beyond the context.
    """
    form = form_of(engine.folder.template or "")
    tokens = _chat_tokens(request, engine, form) if request.turns else _tokens(request, engine)
    room = engine.max_len - len(tokens)
    if not tokens:
        raise ApiError(400, "invalid_value", "prompt: found no token, expected at least one")
    wanted = request.max_tokens or max(1, min(out_class // request.n, room))
    if wanted > room:
        raise ApiError(
            400,
            "context_length_exceeded",
            f"context: found {len(tokens)} prompt tokens and max_tokens {wanted}, "
            f"expected at most {engine.max_len} together",
            param=_PROMPT_FIELDS.get(request.kind, "messages"),
        )
    grammar = answer_grammar(form, request.tools, request.format)
    params = replace(request.sampling, max_tokens=wanted, grammar=grammar)
    if params.seed is None and not params.greedy:
        # Drawn here and not in the engine: the receipt names it, so the answer can be replayed.
        params = replace(params, seed=secrets.randbits(64))
    work = GenerationRequest(
        id=rid.hex(),
        prompt_tokens=tokens,
        params=params,
        cache_salt=salt,
        n=request.n,
        adapter=adapter,
    )
    echo = ""
    if request.echo:
        given = request.prompt
        echo = given if isinstance(given, str) else engine.tokenizer.decode(tokens)
    return Prompted(work, form if request.tools.active else None, echo)


_PROMPT_FIELDS = {"completion": "prompt", "responses": "input"}


def _tokens(request: ApiRequest, engine: Engine) -> list[int]:
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


def _chat_tokens(request: ApiRequest, engine: Engine, form: Form) -> list[int]:
    name = _PROMPT_FIELDS.get(request.kind, "messages")
    if engine.template is None:
        raise ApiError(
            400, "no_chat_template", f"{name}: this model has no chat template; use completions"
        )
    messages, tools = prompt_values(form, request.turns, request.tools)
    try:
        text = engine.template.render(messages, tools)
    except TemplateRefusal as error:
        raise ApiError(400, "invalid_value", f"{name}: {error.reason}", param=name) from None
    except TemplateError as error:
        raise ApiError(400, "invalid_value", f"{name}: {error}", param=name) from None
    return engine.tokenizer.encode(text)
