"""A real answer of a real engine, stated in a genuine receipt, with the opening beside it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from simulators.bundles import bundled
from simulators.exchange import Exchange, random

from attestation.binding import Model
from attestation.collect.tree import digest_tree
from client.opening import Opening
from enclave_worker.api.endpoints import parse_request
from enclave_worker.api.logprobs import rounded
from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.events import TokenEvent
from enclave_worker.engine.ops.library import settle
from enclave_worker.engine.sequence import GenerationRequest
from enclave_worker.model_folder import model_digests
from enclave_worker.prompting import prompted
from enclave_worker.statement import ENGINE_NAME, engine_version, parameters
from evidence.commit import commit_segments, response_segments
from evidence.receipt import Side
from wire.ids import b64u

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "the quick brown fox jumps over the lazy dog and asks"}]
SALT_Q, SALT_R = random("salt q"), random("salt r")


class Replayable:
    """One answered request.

    Attributes:
        changes: members of the honest claims that fit this answer.
        opening: of it.
    """

    def __init__(self, folder: Path, dtype: str, **members: Any) -> None:
        """Answer a request in a full batch, as a worker would: twice, so that the cache is hit."""
        members = {"model": "tiny", "messages": QUESTION, "max_tokens": 24, **members}
        body = json.dumps(members).encode()
        request = parse_request("POST", PATH, body)
        config = settle(EngineConfig.from_dict({"dtype": dtype, "kv_pages": 256, "threads": 2}))
        engine = Engine(folder, config)
        engine.start()
        try:
            work = prompted(request, engine, 1024, b"request", b"salt")
            noise = [replace(work.work, id=f"n{i}", cache_salt=b"", n=1) for i in range(5)]
            _run(engine, [work.work])
            events = _run(engine, [*noise, replace(work.work, id="again")])
        finally:
            engine.stop()
        self.texts = ["".join(e.text for e in events if e.index == i) for i in range(request.n)]
        scores = [
            tuple(rounded(c.logprob) for e in events if e.index == i for c in e.choices)
            for i in range(request.n)
        ]
        self.tree = digest_tree(folder)
        digests = model_digests(folder, self.tree)
        used = [event.usage for event in events if event.usage is not None]
        finishes = {event.finish for event in events if event.finish is not None}
        answer = response_segments(self.texts)
        self.opening = Opening(
            rid=b64u(random("rid", 16)),
            path=PATH,
            body=body,
            salt_q=SALT_Q,
            salt_r=SALT_R,
            answer=tuple(answer),
            logprobs=tuple(scores) if members.get("logprobs") else (),
        )
        self.changes: dict[str, Any] = {
            "req": Side(
                commit_segments(SALT_Q, request.segments), len(request.segments), 64, random("q")
            ),
            "resp": Side(commit_segments(SALT_R, answer), len(answer), 64, random("r")),
            "finish": "length" if "length" in finishes else "stop",
            "trunc": "length" in finishes,
            "model_digest": self.tree,
            "weights": digests["weights"],
            "tokenizer": digests["tokenizer"],
            "template": digests["template"],
            "dtype": dtype,
            "engine": ENGINE_NAME,
            "engine_version": engine_version(config.kernels),
            "deterministic": True,
            "par": parameters(request, work.work.params),
            "tokens_in": used[0].prompt_tokens,
            "tokens_out": sum(usage.completion_tokens for usage in used),
        }

    def exchange(self, **changes: Any) -> Exchange:
        """The exchange, its statement signed with these claims changed."""
        return Exchange(
            changes=self.changes | changes,
            binding_changes={"models": [Model("tiny", self.tree)]},
            policy_changes={"models": [{"name": "tiny", "digest": self.tree}]},
        )

    def receipt(self, **changes: Any) -> bytes:
        """The bundle of `exchange`."""
        return bundled(self.exchange(**changes))

    def lying(self, text: str) -> tuple[bytes, Opening]:
        """A genuine receipt for another text than the model gave, and its opening."""
        answer = response_segments([text, *self.texts[1:]])
        side = Side(commit_segments(SALT_R, answer), len(answer), 64, random("r"))
        return self.receipt(resp=side), replace(self.opening, answer=tuple(answer))


def _run(engine: Engine, work: Sequence[GenerationRequest]) -> list[TokenEvent]:
    """Run requests side by side; returns the events of the last."""
    events: dict[str, list[TokenEvent]] = {item.id: [] for item in work}
    ended: SimpleQueue[str] = SimpleQueue()

    def take(name: str, event: TokenEvent) -> None:
        events[name].append(event)
        if event.finish is not None:
            ended.put(name)

    for item in work:
        engine.submit(item, partial(take, item.id))
    for _ in range(sum(item.n for item in work)):
        ended.get(timeout=50)
    return events[work[-1].id]
