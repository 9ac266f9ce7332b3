"""One step on the model: plan, forward, sample. Owned by the engine thread."""

from collections.abc import Sequence as Sequence_

import torch

from .blocks import PagedKeyValues, PagePool
from .config import EngineConfig
from .folder import ModelFolder
from .models.llama import Llama
from .plan import Work, plan_step
from .sampler import Draw, sample
from .sequence import Sequence
from .weights import Weights

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Runner:
    """The model with its KV pool.

    Attributes:
        model: the network.
        cache: keys and values.
        pool: which of its pages are free.
    """

    def __init__(self, folder: ModelFolder, config: EngineConfig, max_len: int) -> None:
        """Load the weights; raises ModelError."""
        shape, dtype = folder.config, _DTYPES[config.dtype]
        with Weights(folder.path, dtype) as weights:
            self.model = Llama(shape, weights, dtype, max_len)
        self.cache = PagedKeyValues(
            shape.layers, config.kv_pages, shape.kv_heads, shape.head_dim, dtype
        )
        self.pool = PagePool(self.cache)

    def run(self, work: Sequence_[Work]) -> list[tuple[Sequence, int | None]]:
        """Compute the work and return the next token of each sequence that is up to date.

        None instead of a token means that the row's logits were not finite.
        """
        shape = self.model.config
        plan = plan_step(work, shape.heads, shape.kv_heads)
        logits = self.model.forward(plan, self.cache)
        for item in work:
            item.sequence.computed += item.count
        draws = [Draw(s.request.params, s.seed, len(s.tokens)) for s in plan.sampled]
        return list(zip(plan.sampled, sample(logits, draws), strict=True)) if draws else []
