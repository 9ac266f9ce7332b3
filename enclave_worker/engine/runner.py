"""One step on the model: plan, forward, sample. Owned by the engine thread."""

from collections.abc import Sequence as Sequence_

from .config import EngineConfig
from .models.folder import ModelFolder
from .models.load import load
from .pages import PagePool
from .plan import Work, plan_step
from .sampling.sampler import Draw, sample
from .sequence import Sequence


class Runner:
    """The model with its KV pool.

    Attributes:
        model: the network with its pages.
        pool: which of them are free.
    """

    def __init__(self, folder: ModelFolder, config: EngineConfig, max_len: int) -> None:
        """Load the weights; raises ModelError."""
        self.model = load(folder, config, max_len)
        self.pool = PagePool(config.kv_pages, self.model.scrub)

    def run(self, work: Sequence_[Work]) -> list[tuple[Sequence, int | None]]:
        """Compute the work and return the next token of each sequence that is up to date.

        None instead of a token means that the row's logits were not finite.
        """
        plan = plan_step(work)
        sampled = [item.sequence for item in plan.work if item.wanted]
        logits = self.model.forward(plan, whole=not all(s.request.params.greedy for s in sampled))
        for item in work:
            item.sequence.computed += item.count
        draws = [Draw(s.request.params, s.seed, len(s.tokens)) for s in sampled]
        return list(zip(sampled, sample(logits, draws), strict=True)) if draws else []
