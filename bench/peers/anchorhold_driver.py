"""The project's own engine, called directly: Engine.submit with all requests at once.

Its text side is on: every token is detokenised, held back for stop strings and delivered.
"""

from __future__ import annotations

import importlib.metadata
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loop

if TYPE_CHECKING:
    from argparse import Namespace

    from enclave_worker.engine.events import TokenEvent

#: One salt for all requests, so that a prefix may be found again.
SALT = b"bench"


class Anchorhold:
    """An Engine, started and warmed up."""

    def __init__(self, given: Namespace) -> None:
        from enclave_worker.engine.config import PAGE_SIZE, EngineConfig
        from enclave_worker.engine.engine import Engine

        pages = -(-given.tokens // PAGE_SIZE)
        self.engine = Engine(
            Path(given.model),
            EngineConfig(
                dtype=given.precision,
                threads=given.threads,
                max_batch=given.streams,
                kv_pages=pages,
            ),
        )
        self.engine.start()
        self.engine.warm_up()
        config = self.engine.folder.config
        width = 4 if given.precision == "float32" else 2
        row = config.layers * 2 * config.kv_heads * config.head_dim * width
        self.arena = pages * PAGE_SIZE * row
        self.version = f"anchorhold {importlib.metadata.version('anchorhold-server')}"
        self.requests = 0
        self.now = given.now

    def run(self, prompts: list[list[int]], out: int, speculate: bool = False) -> dict[str, Any]:
        """Submit all, wait for the last; tokens are timed on the engine's thread."""
        from enclave_worker.engine.params import SamplingParams
        from enclave_worker.engine.sequence import GenerationRequest

        params = SamplingParams(temperature=0, max_tokens=out, ignore_eos=True, speculate=speculate)
        times: list[list[float]] = [[] for _ in prompts]
        cached = [0] * len(prompts)
        left, done, failed = len(prompts), threading.Event(), []

        def listen(index: int, event: TokenEvent) -> None:
            nonlocal left
            times[index] += [self.now()] * event.tokens
            if event.finish is not None:
                if event.usage is not None:
                    cached[index] = event.usage.cached_tokens
                if event.finish != "length":
                    failed.append(event.finish)
                left -= 1
                if left == 0:
                    done.set()

        for index, prompt in enumerate(prompts):
            self.requests += 1
            request = GenerationRequest(
                id=f"bench-{self.requests}",
                prompt_tokens=prompt,
                params=params,
                cache_salt=SALT,
            )
            self.engine.submit(request, lambda event, index=index: listen(index, event))
        done.wait()
        if failed:
            raise SystemExit(f"engine: found answers that ended with {failed}, expected length")
        return {"times": times, "cached": sum(cached)}

    def close(self) -> None:
        """Stop the engine's thread."""
        self.engine.stop()


if __name__ == "__main__":
    loop.serve(Anchorhold, loop.options())
