"""Requests run to their end on a real engine, with what came out collected."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.events import TokenEvent, Usage
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest

# Far above what the slowest test needs: a hang fails with a message, not with the suite's timeout.
WAIT_S = 50.0


@dataclass
class Answer:
    """What one request produced, in order."""

    prompt: list[int]
    events: list[TokenEvent] = field(default_factory=list)
    sequence_tokens: list[int] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: TokenEvent) -> None:
        """Take an event: an Answer is its own listener."""
        self.events.append(event)
        if event.finish is not None:
            self.done.set()

    def wait(self) -> "Answer":
        """Block until the answer has ended."""
        assert self.done.wait(WAIT_S), "the request did not end"
        return self

    @property
    def text(self) -> str:
        """All text."""
        return "".join(event.text for event in self.events)

    @property
    def tokens(self) -> list[int]:
        """Generated token ids."""
        return self.sequence_tokens[len(self.prompt) :]

    @property
    def finish(self) -> str | None:
        """Why it ended."""
        return self.events[-1].finish if self.events else None

    @property
    def usage(self) -> Usage | None:
        """Totals, from the last event."""
        return self.events[-1].usage if self.events else None


@contextmanager
def running(folder: Path, **sizes: object) -> Iterator[Engine]:
    """A started engine; float32 and small unless told otherwise."""
    config = EngineConfig.from_dict({"dtype": "float32", "kv_pages": 256, **sizes})
    engine = Engine(folder, config)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def submit(
    engine: Engine, prompt: Sequence[int], params: SamplingParams, name: str = "request"
) -> Answer:
    """Submit one request and return its answer, still being written."""
    answer = Answer(list(prompt))
    # Holding the engine's lock, the stream cannot be finished and forgotten before it is looked up.
    with engine._wake:
        engine.submit(GenerationRequest(name, list(prompt), params), answer)
        answer.sequence_tokens = engine._streams[name].sequence.tokens
    return answer


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
) -> list[Answer]:
    """Run prompts together and wait for all."""
    each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
    answers = [
        submit(engine, prompt, p, f"request-{index}")
        for index, (prompt, p) in enumerate(zip(prompts, each, strict=True))
    ]
    return [answer.wait() for answer in answers]
