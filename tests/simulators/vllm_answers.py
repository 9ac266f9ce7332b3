"""Run by a Python that has vLLM: requests on the engine with that back end, answers as JSON.

python vllm_answers.py MODEL < requests.json > answers.json
"""

import json
import sys
import threading
from pathlib import Path

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.errors import EngineError
from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sequence import GenerationRequest


def main() -> None:
    """Run the requests one after another, those of one list together."""
    config = EngineConfig(back_end="vllm", kv_pages=256, max_len=1024, max_batch=8)
    engine = Engine(Path(sys.argv[1]), config)
    engine.start()
    engine.warm_up()
    answers = [_together(engine, group) for group in json.load(sys.stdin)]
    stats = engine.stats()
    described = engine.describe()
    engine.stop()
    json.dump(
        {"answers": answers, "describe": described, "running": stats.running,
         "waiting": stats.waiting, "steps": stats.steps}, sys.stdout,
    )  # fmt: skip


def _together(engine: Engine, group: list[dict[str, object]]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    over = threading.Semaphore(0)
    for number, order in enumerate(group):
        answer: dict[str, object] = {"text": "", "tokens": [], "logprobs": [], "finish": []}
        found.append(answer)
        try:
            _submit(engine, f"r{number}", order, answer, over)
        except EngineError as error:
            answer["error"] = error.code
            over.release()
    for _ in group:
        assert over.acquire(timeout=120)
    return found


def _submit(
    engine: Engine, name: str, order: dict[str, object], answer: dict[str, object],
    over: threading.Semaphore,
) -> None:  # fmt: skip
    params = dict(order["params"])
    if "grammar" in params:
        params["grammar"] = Grammar(*params["grammar"])
    if "stop" in params:
        params["stop"] = tuple(params["stop"])
    n = order.get("n", 1)

    def listen(event: object) -> None:
        answer["text"] += event.text
        answer["tokens"] += [choice.token for choice in event.choices]
        answer["logprobs"] += [[choice.logprob, choice.top] for choice in event.choices]
        if order.get("leaves") is not None and len(answer["tokens"]) >= order["leaves"]:
            engine.cancel(name)
        if event.finish is not None:
            answer["finish"].append(event.finish)
            answer["cached"] = event.usage.cached_tokens
            if len(answer["finish"]) == n:
                over.release()

    engine.submit(
        GenerationRequest(
            name, order["prompt"], SamplingParams(**params), tenant=order.get("tenant", ""),
            cache_salt=order.get("salt", "").encode(), n=n,
        ),
        listen,
    )  # fmt: skip


if __name__ == "__main__":
    main()
