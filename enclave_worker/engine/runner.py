"""Our own core: schedule, forward, sample."""

import logging
import secrets
from collections.abc import Sequence as Sequence_

from .config import EngineConfig
from .core import Levels, Result
from .models.adapters import read_adapters
from .models.folder import ModelFolder
from .models.load import load
from .order import Fifo
from .pages import KvCache, PagePool
from .plan import Work, plan_step
from .sampling.sampler import verify
from .sampling.speculation import draft_length
from .scheduler import Scheduler
from .sequence import GenerationRequest, Sequence

_log = logging.getLogger(__name__)


class Runner:
    """The model, its KV pool and its scheduler.

    Attributes:
        model: the network with its pages.
        pool: which of them are free.
        pages: who holds the others.
        scheduler: who runs when.
    """

    def __init__(self, folder: ModelFolder, config: EngineConfig, max_len: int) -> None:
        """Load the weights; raises ModelError or KernelError."""
        self.model = load(folder, config, max_len)
        self.model.adapt(read_adapters(folder.path, folder.decoder))
        self.pool = PagePool(config.kv_pages, self.model.scrub)
        self.pages = KvCache(
            self.pool,
            secrets.token_bytes(32),
            newcomer_weight=config.newcomer_weight,
            caching=config.prefix_cache,
        )
        self.scheduler = Scheduler(
            self.pages,
            Fifo(),
            max_batch=config.max_batch,
            step_budget=config.step_budget,
            draft_length=draft_length,
        )
        self._steps = self._computed = self._errors = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.scheduler.idle

    def check(self, request: GenerationRequest) -> None:
        """Whatever `SamplingParams` allows can be done."""

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        self.scheduler.add(sequence)

    def remove(self, sequence: Sequence, *, faulty: bool = False) -> None:
        """Take a sequence out, wherever it is."""
        self.scheduler.remove(sequence, faulty=faulty)

    def step(self) -> list[Result]:
        """Schedule, run, account."""
        work = self.scheduler.schedule()
        if not work:
            return []
        self._steps += 1
        try:
            results = self._run(work)
        except Exception as error:
            self._errors += 1
            _log.error("engine step failed: %s", type(error).__name__)
            return [(item.sequence, [None]) for item in work]
        self._computed += sum(item.count for item in work)
        accepted = {sequence: len(choices) - 1 for sequence, choices in results}
        for item in work:
            self.scheduler.advance(item.sequence, accepted.get(item.sequence, 0))
        return results

    def levels(self) -> Levels:
        """Counters and levels as of about now."""
        return Levels(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            free_pages=self.pool.free,
            cached_pages=self.pages.cached,
            total_pages=self.pool.total,
            steps=self._steps,
            computed_tokens=self._computed,
            preemptions=self.scheduler.preemptions,
            hits=self.pages.hits,
            hit_tokens=self.pages.hit_tokens,
            evictions=self.pages.evictions,
            step_errors=self._errors,
        )

    def describe(self) -> dict[str, str]:
        """What computes."""
        return self.model.describe()

    def close(self) -> None:
        """Scrub what is cached."""
        self.pages.flush()

    def _run(self, work: Sequence_[Work]) -> list[Result]:
        """Compute the work; return the next tokens of each sequence that is up to date.

        One more than were guessed right; None instead of one as `choose` has it, the last then.
        """
        plan = plan_step(work)
        sampled = [item for item in plan.work if item.wanted]
        whole = any(item.sequence.sampler.needs_values for item in sampled)
        logits = self.model.forward(plan, whole=whole)
        for item in work:
            item.sequence.computed += item.count
        first, drafts = 0, []
        for item in sampled:
            drafts.append((first, item.sequence.sampler, item.draft))
            first += item.wanted
        results: list[Result] = []
        for item, choices in zip(sampled, verify(logits, drafts), strict=True):
            if choices[-1] is None:
                _log.error("engine: found a row no token can be chosen from")
            right = len(choices) - 1
            item.sequence.computed += right
            if item.sequence.drafter is not None:
                item.sequence.drafter.observe(len(item.draft), right)
            results.append((item.sequence, choices))
        return results
