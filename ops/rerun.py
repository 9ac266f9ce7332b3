"""Run one request alone on an engine, read and written as a worker reads and writes it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from enclave_worker.api.errors import ApiError
from enclave_worker.api.logprobs import Chosen, TokenLogprob
from enclave_worker.api.replies import shown
from enclave_worker.api.token_names import token_bytes
from enclave_worker.api.tool_reader import ToolReader
from enclave_worker.choice_writer import ChoiceWriter
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import EngineError
from enclave_worker.prompting import Prompted, prompted
from enclave_worker.statement import parameters
from wire.errors import ConfigError, ReceiptError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from enclave_worker.api.request import ApiRequest
    from enclave_worker.api.results import ChoiceResult
    from enclave_worker.engine.config import EngineConfig
    from enclave_worker.engine.events import TokenEvent

FINISHED: Final = ("stop", "length")
DIFFERS: Final = "replay_differs"


def rerun(
    model: Path, settings: EngineConfig, request: ApiRequest, par: Mapping[str, Any]
) -> tuple[list[ChoiceResult], tuple[int, int]]:
    """Run a request with the parameters that a receipt names.

    Args:
        model: the model folder.
        settings: of the engine.
        request: as parsed.
        par: of the statement.

    Returns:
        The choices, and counts of tokens in and out.

    Raises:
        ReceiptError: the request cannot have a receipt with these parameters.
        ConfigError: the engine does not start.
    """
    try:
        engine = Engine(model, settings)
    except EngineError as error:
        raise _unusable(error) from error
    try:
        limited = replace(request, max_tokens=int(par["max_tokens"]))
        adapter = str(par.get("adapter", ""))
        work = prompted(limited, engine, 0, b"replay", b"", adapter)
        if adapter and (tenants := engine.adapters[adapter].tenants):
            work = replace(work, work=replace(work.work, tenant=min(tenants)))
        if work.work.params.seed is not None:
            params = replace(work.work.params, seed=_seed(request, par))
            work = replace(work, work=replace(work.work, params=params))
    except (ApiError, EngineError, ValueError, TypeError, KeyError) as error:
        raise differs(f"request: {error}: found one that cannot have this receipt") from error
    _check_parameters(parameters(request, work.work.params), par)
    try:
        engine.start()
    except EngineError as error:
        raise _unusable(error) from error
    try:
        return _run(engine, request, work)
    finally:
        engine.stop()


def _run(
    engine: Engine, request: ApiRequest, prompt: Prompted
) -> tuple[list[ChoiceResult], tuple[int, int]]:
    """Run one request on a started engine to its end."""
    events: SimpleQueue[TokenEvent] = SimpleQueue()

    def scored(choice: Chosen) -> TokenLogprob:
        return TokenLogprob.of(
            choice, request.sampling.logprobs or 0, partial(token_bytes, engine.tokenizer)
        )

    entry = None if request.sampling.logprobs is None else scored
    form = prompt.form
    writers = [
        ChoiceWriter(index, None if form is None else ToolReader(form), str, entry)
        for index in range(request.n)
    ]
    if prompt.echo:
        for writer in writers:
            writer.begin(prompt.echo)
    tokens_in = tokens_out = 0
    # Guessing ahead only changes when tokens come: here none is guessed.
    params = replace(prompt.work.params, speculate=False)
    try:
        engine.submit(replace(prompt.work, params=params), events.put)
    except EngineError as error:
        raise differs(f"request: {error}: found one that cannot have this receipt") from error
    while not all(writer.ended for writer in writers):
        event = events.get()
        if event.finish not in (None, *FINISHED):
            raise differs(f"answer: the engine ended it with {event.finish}")
        writers[event.index].take(event)
        if event.usage is not None:
            tokens_in = max(tokens_in, event.usage.prompt_tokens)
            tokens_out += event.usage.completion_tokens
    results = [writer.result() for writer in writers]
    return results if request.stream else shown(request, results), (tokens_in, tokens_out)


def _seed(request: ApiRequest, par: Mapping[str, Any]) -> int:
    """The caller's seed, or the one the worker drew."""
    if request.sampling.seed is not None:
        return request.sampling.seed
    if par.get("seed") is None:
        raise ValueError("no seed in the receipt of a sampled answer")
    return int(par["seed"])


def _check_parameters(found: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """What the request asks for is what the receipt says was used."""
    for name, value in found.items():
        if name not in said or said[name] != value:
            raise differs(f"parameter {name}: found {value!r}, expected {said.get(name)!r}")


def _unusable(error: EngineError) -> ConfigError:
    return ConfigError(
        f"engine: {error}", hint="replay where the model fits into memory; nothing was compared"
    )


def differs(message: str) -> ReceiptError:
    """The error of an answer that is not what its receipt leads to."""
    return ReceiptError(message, code=DIFFERS)
