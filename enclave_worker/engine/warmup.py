"""Every kind of step once, before the process gives up files, sockets and new threads.

oneDNN compiles its kernels and OpenMP makes its threads at first use, Python imports some modules
at first use: all of that must lie behind us. Real requests do it, so nothing is forgotten that a
request needs.
"""

import threading
from typing import Protocol

from .config import EngineConfig
from .errors import EngineError, RequestInvalid, TemplateError
from .events import TokenEvent
from .models.adapter_folder import AdapterFolder
from .models.folder import ModelFolder
from .params import SamplingParams
from .sequence import GenerationRequest
from .stream import OnEvent
from .templates import ChatTemplate
from .tokenizer import Tokenizer

# Generous: the slowest start seen takes two seconds. Beyond it something is stuck.
WARM_UP_MAX_S = 300.0
_TOKENS = 2
# Enough rows for the kernels that read prompts, and little enough to be quick.
_CHUNK = 64
_KINDS = (
    SamplingParams(temperature=0, max_tokens=_TOKENS, stop=("\0",), ignore_eos=True),
    SamplingParams(seed=1, max_tokens=_TOKENS, ignore_eos=True),
    SamplingParams(seed=2, top_p=0.9, top_k=40, max_tokens=_TOKENS, ignore_eos=True),
    SamplingParams(seed=3, top_p=0.999, temperature=90.0, max_tokens=_TOKENS, ignore_eos=True),
    SamplingParams(seed=4, min_p=0.05, max_tokens=_TOKENS, ignore_eos=True),
)


class Warmable(Protocol):
    """What is needed of the engine."""

    config: EngineConfig
    folder: ModelFolder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    adapters: dict[str, AdapterFolder]
    max_len: int

    def submit(self, request: GenerationRequest, on_event: OnEvent) -> None:
        """Queue a request."""


def warm_up(engine: Warmable) -> None:
    """Run one request alone, then a full batch of every kind with a longer prompt among them.

    Raises:
        EngineError: a warm-up request failed or did not end.
    """
    if engine.template is not None:
        _render(engine)
    text = engine.tokenizer.encode("Warm-up: \u00e9\u4e2d\U0001f600 1 2 3.", special=True)
    vocab = engine.folder.config.vocab_size
    room = max(engine.max_len - _TOKENS, 1)
    prompt = ([token % vocab for token in text] or [0])[:room]
    _run(engine, [(prompt, _KINDS[0])])
    batch = [((prompt * _CHUNK)[: min(_CHUNK, room)], _KINDS[0])]
    count = max(engine.config.max_batch, len(_KINDS)) - 1
    batch += [(prompt[:1], _KINDS[i % len(_KINDS)]) for i in range(count)]
    _run(engine, batch)
    for name, adapter in engine.adapters.items():
        _run(engine, batch[:2], name, min(adapter.tenants or {""}))


def _run(
    engine: Warmable,
    requests: list[tuple[list[int], SamplingParams]],
    adapter: str = "",
    tenant: str = "",
) -> None:
    """Run requests together and wait for all."""
    done = threading.Semaphore(0)
    failed: list[str] = []

    def on_event(event: TokenEvent) -> None:
        if event.finish is not None:
            if event.finish not in ("length", "stop"):
                failed.append(event.finish)
            done.release()

    begun = 0
    for index, (prompt, params) in enumerate(requests):
        name = f"\0warm-up {index}"
        try:
            engine.submit(
                GenerationRequest(name, prompt, params, tenant=tenant, adapter=adapter), on_event
            )
            begun += 1
        except RequestInvalid:  # what this core never does needs no warming up
            continue
    for _ in range(begun):
        if not done.acquire(timeout=WARM_UP_MAX_S):
            raise EngineError(f"engine warm-up: found no answer within {WARM_UP_MAX_S} s")
    if failed:
        raise EngineError(f"engine warm-up: found a request that ended with {failed[0]!r}")


def _render(engine: Warmable) -> None:
    """Render the template once; one that refuses these messages has run, which is enough."""
    message = {"role": "user", "content": "Warm-up"}
    try:
        if engine.template is not None:
            engine.template.render([message])
    except TemplateError:
        return
