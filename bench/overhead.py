"""What sealing costs: the same engine and requests, in process and through the whole sealed path.

    .venv/bin/python bench/overhead.py [--streams 1,8,32] [--rounds 5] [--tokens 64] [--json]

Both arms run the same model, engine settings and prompts on the same machine, in turns, so that a
busy moment hits both. In process: prompts are templated, tokenised and submitted to the engine by
the benchmark itself. Sealed: SDK client, gateway process and sandboxed worker process on loopback,
each answer with its verified, logged receipt. Throughput counts tokens until the last text arrived;
the time from there to the verified receipt is the tail. Reported are medians over the rounds, and
ratios against the in-process arm of the same round; added time to first token is the median over
all requests of a setting less the in-process one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.async_api import AsyncClient
from client.session import Options
from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.events import TokenEvent
from enclave_worker.engine.params import SamplingParams
from enclave_worker.engine.sequence import GenerationRequest
from ops.deployment import create
from ops.model_cache import ensure
from ops.stack import Stack, StackConfig

ENGINE = {"dtype": "bfloat16", "threads": 1}
WORDS = ("river", "stone", "winter", "letter", "garden", "engine", "harbour", "window")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: seconds to its first text, to its last, and to its end; tokens generated."""

    first: float
    last: float
    end: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """One arm's round: output tokens a second, and the answers."""

    rate: float
    answers: tuple[Answer, ...]


def question(number: int) -> list[dict[str, str]]:
    """A prompt of about 80 tokens, different for each request."""
    words = [WORDS[(number * 7 + k * (number % 5 + 1)) % len(WORDS)] for k in range(48)]
    return [
        {"role": "user", "content": f"Question {number}: tell a story about " + " ".join(words)}
    ]


class InProcess:
    """The engine, called directly."""

    def __init__(self, model: Path) -> None:
        self.engine = Engine(model, EngineConfig.from_dict(ENGINE))
        self.engine.start()
        self.engine.warm_up()

    async def one(self, number: int, tokens: int) -> Answer:
        """One answer; its last text is its end."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[TokenEvent]()
        began = time.perf_counter()
        text = self.engine.template.render(question(number))
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        request = GenerationRequest(
            id=f"{number}-{began}", prompt_tokens=self.engine.tokenizer.encode(text), params=params
        )
        self.engine.submit(request, lambda e: loop.call_soon_threadsafe(events.put_nowait, e))
        first = 0.0
        while True:
            event = await events.get()
            if event.text and not first:
                first = time.perf_counter() - began
            if event.finish is not None:
                spent = time.perf_counter() - began
                return Answer(first, spent, spent, tokens)


class Sealed:
    """The whole path, through one client."""

    def __init__(self, client: AsyncClient, model: str) -> None:
        self.client, self.model = client, model

    async def one(self, number: int, tokens: int) -> Answer:
        """One answer; its end is the verified receipt."""
        began = time.perf_counter()
        first = last = 0.0
        stream = await self.client.chat(
            question(number),
            self.model,
            stream=True,
            temperature=0.0,
            max_tokens=tokens,
            ignore_eos=True,
        )
        async for delta in stream:
            if delta.text and not first:
                first = time.perf_counter() - began
            last = time.perf_counter() - began
        generated = stream.receipt.usage["completion_tokens"]
        return Answer(first, last, time.perf_counter() - began, generated)


async def measure(arm: InProcess | Sealed, streams: int, tokens: int, offset: int) -> Round:
    """Run `streams` requests at once."""
    done = await asyncio.gather(*(arm.one(offset + n, tokens) for n in range(streams)))
    spent = max(answer.last for answer in done)
    return Round(sum(answer.tokens for answer in done) / spent, tuple(done))


def summary(base: list[Round], other: list[Round]) -> dict[str, float]:
    """Ratios and added milliseconds of one setting."""
    ratios = [b.rate / a.rate for a, b in zip(base, other, strict=True)]
    first = [
        statistics.median(answer.first for r in rounds for answer in r.answers)
        for rounds in (base, other)
    ]
    tails = [answer.end - answer.last for r in other for answer in r.answers]
    return {
        "in_process_tok_s": statistics.median(r.rate for r in base),
        "sealed_tok_s": statistics.median(r.rate for r in other),
        "throughput_ratio": statistics.median(ratios),
        "in_process_ttft_ms": first[0] * 1000,
        "added_ttft_p50_ms": (first[1] - first[0]) * 1000,
        "receipt_tail_p50_ms": statistics.median(tails) * 1000,
    }


async def compare(options: argparse.Namespace, stack: Stack, model: Path, name: str) -> list[Any]:
    """All settings; progress on standard error."""
    deployment, rows = stack.config.deployment, []
    direct = InProcess(model)
    for pad in ("off", "cadence"):
        settings = Options(state_dir=deployment.root / "client", pad=pad)
        async with AsyncClient(
            stack.url, deployment.api_key, policy=deployment.tenant_policy, options=settings
        ) as client:
            sealed = Sealed(client, name)
            await measure(sealed, 1, 8, 0)  # verified, connected, warm
            for streams in options.streams:
                pairs = []
                rounds = options.rounds * (4 if streams == 1 else 1)
                for number in range(rounds):
                    print(f"\rpad {pad}, {streams} streams, round {number + 1}/{rounds} ",
                          end="", file=sys.stderr)  # fmt: skip
                    offset = number * streams
                    arms: list[InProcess | Sealed] = [direct, sealed]
                    order = arms if number % 2 == 0 else arms[::-1]
                    got = {id(a): await measure(a, streams, options.tokens, offset) for a in order}
                    pairs.append((got[id(direct)], got[id(sealed)]))
                row = summary([a for a, _ in pairs], [b for _, b in pairs])
                rows.append({"pad": pad, "streams": streams, **row})
    print(file=sys.stderr)
    direct.engine.stop()
    return rows


def main() -> None:
    """Run, print a table, or JSON with the setup."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--streams", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8, 32]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="answer length of each request")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = ensure(options.model)
    with tempfile.TemporaryDirectory(prefix="anchorhold-bench-") as folder:
        deployment = create(Path(folder) / "d", aud="bench", now=int(time.time()))  # noqa: TID251
        config = StackConfig(
            deployment=deployment, model_dir=model, model_name="bench", engine=dict(ENGINE)
        )
        with Stack(config) as stack:
            rows = asyncio.run(compare(options, stack, model, "bench"))
    setup = {"cpus": os.cpu_count(), "machine": platform.machine(), "engine": ENGINE,
             "tokens": options.tokens, "rounds": options.rounds}  # fmt: skip
    if options.json:
        print(json.dumps({"setup": setup, "rows": rows}, indent=1))
        return
    print("pad      streams  in process tok/s  sealed tok/s  ratio  ttft ms  added p50 ms  tail ms")
    for row in rows:
        print(
            f"{row['pad']:8} {row['streams']:7} {row['in_process_tok_s']:17.1f}"
            f" {row['sealed_tok_s']:13.1f} {row['throughput_ratio']:6.3f}"
            f" {row['in_process_ttft_ms']:8.1f} {row['added_ttft_p50_ms']:13.1f}"
            f" {row['receipt_tail_p50_ms']:8.0f}"
        )


if __name__ == "__main__":
    main()
