"""What sealing costs: the same engine and requests, in process and through the whole sealed path.

    .venv/bin/python bench/overhead.py [--streams 1,8,32] [--rounds 3] [--tokens 128] [--json]

Both arms run the same model, engine settings and prompts on the same machine, in turns, so that a
busy moment hits both. In process: prompts are templated, tokenised and submitted to the engine by
the benchmark itself. Sealed: SDK client, gateway process and sandboxed worker process on loopback,
each answer with its verified, logged receipt.

The load is closed: each stream sends its next request when the answer before it is complete (in
the sealed arm: when its receipt is verified), so requests join and leave a running batch. Streams
begin some time apart and think for up to a tenth of a second before each request, both by a fixed
list: were all of them to start at once, or always at the end of a step, one millisecond would
decide which step a prompt gets into, and the figure would be about that. Throughput is all tokens
over all time. Reported are medians over the rounds of the ratio to the in-process arm of the same
round; added time to first token is the difference of the medians over all requests of a setting,
with a 95 % interval (McGill's notches of the two). With several streams a request waits for the
running step and for other prompts, hence the wide interval there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
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
#: Seconds between the starts of two streams, for each token of the middle length: more than a
#: prompt takes.
STAGGER_S = 0.005
#: One hundredth of the longest pause before a request.
THINK_S = 0.001
WORDS = ("river", "stone", "winter", "letter", "garden", "engine", "harbour", "window")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: seconds to its first text, to its last and to its end; tokens generated."""

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


def length(number: int, tokens: int) -> int:
    """Answer length of a request: from half to one and a half times `tokens`, in a fixed order."""
    return tokens // 2 + (number * 5 % 8) * tokens // 7


async def measure(arm: InProcess | Sealed, streams: int, options: argparse.Namespace) -> Round:
    """Keep `streams` requests in flight until each stream has had its share of answers."""

    async def one_stream(place: int) -> list[Answer]:
        await asyncio.sleep(place * STAGGER_S * options.tokens)
        answers = []
        for number in range(place * options.requests, (place + 1) * options.requests):
            await asyncio.sleep(number * 37 % 101 * THINK_S)
            answers.append(await arm.one(number, length(number, options.tokens)))
        return answers

    began = time.perf_counter()
    done = await asyncio.gather(*(one_stream(place) for place in range(streams)))
    spent = time.perf_counter() - began
    answers = tuple(answer for answers in done for answer in answers)
    return Round(sum(answer.tokens for answer in answers) / spent, answers)


def notch(values: list[float]) -> float:
    """Half the width of a 95 % interval of the median (McGill, Tukey and Larsen, 1978)."""
    low, _, high = statistics.quantiles(values, n=4)
    return 1.58 * (high - low) / math.sqrt(len(values))


def summary(base: list[Round], other: list[Round]) -> dict[str, float]:
    """Ratios and added milliseconds of one setting."""
    ratios = [b.rate / a.rate for a, b in zip(base, other, strict=True)]
    firsts = [[answer.first for r in rounds for answer in r.answers] for rounds in (base, other)]
    first = [statistics.median(values) for values in firsts]
    tails = [answer.end - answer.last for r in other for answer in r.answers]
    return {
        "in_process_tok_s": statistics.median(r.rate for r in base),
        "sealed_tok_s": statistics.median(r.rate for r in other),
        "throughput_ratio": statistics.median(ratios),
        "in_process_ttft_ms": first[0] * 1000,
        "added_ttft_p50_ms": (first[1] - first[0]) * 1000,
        "added_ttft_interval_ms": math.hypot(*map(notch, firsts)) * 1000,
        "receipt_tail_p50_ms": statistics.median(tails) * 1000,
    }


async def compare(options: argparse.Namespace, stack: Stack, model: Path, name: str) -> list[Any]:
    """All settings; progress on standard error."""
    deployment, rows = stack.config.deployment, []
    direct = InProcess(model)
    for pad in options.pads:
        settings = Options(state_dir=deployment.root / "client", pad=pad)
        async with AsyncClient(
            stack.url, deployment.api_key, policy=deployment.tenant_policy, options=settings
        ) as client:
            sealed = Sealed(client, name)
            await sealed.one(0, 8)  # verified, connected, warm
            for streams in options.streams:
                pairs = []
                for number in range(options.rounds):
                    print(f"\rpad {pad}, {streams} streams, round {number + 1}/{options.rounds} ",
                          end="", file=sys.stderr)  # fmt: skip
                    arms: list[InProcess | Sealed] = [direct, sealed]
                    order = arms if number % 2 == 0 else arms[::-1]
                    got = {id(a): await measure(a, streams, options) for a in order}
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="middle length of the answers")
    parser.add_argument("--requests", type=int, default=3, help="answers of each stream and round")
    parser.add_argument(
        "--pads", type=lambda s: s.split(","), default=["off", "cadence"], help="profiles"
    )
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
    setup = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "engine": ENGINE,
        "tokens": options.tokens,
        "requests": options.requests,
        "rounds": options.rounds,
    }
    if options.json:
        print(json.dumps({"setup": setup, "rows": rows}, indent=1))
        return
    print(
        "pad      streams  in process tok/s  sealed tok/s  ratio  ttft ms   added p50 ms  tail ms"
    )
    for row in rows:
        print(
            f"{row['pad']:8} {row['streams']:7} {row['in_process_tok_s']:11.1f}"
            f" {row['sealed_tok_s']:13.1f} {row['throughput_ratio']:6.3f}"
            f" {row['in_process_ttft_ms']:8.1f} {row['added_ttft_p50_ms']:6.1f}"
            f" ± {row['added_ttft_interval_ms']:5.1f}"
            f" {row['receipt_tail_p50_ms']:8.0f}"
        )


if __name__ == "__main__":
    main()
