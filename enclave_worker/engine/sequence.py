"""A request, and the running state the engine keeps for it."""

from dataclasses import dataclass, field

from .params import SamplingParams


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of the engine.

    Attributes:
        id: unique among the requests the engine holds.
        prompt_tokens: token ids, at least one.
        params: sampling.
        tenant: opaque handle, carried for fair scheduling and page quotas; never a name.
        weight: the tenant's share, carried for fair scheduling.
        cache_salt: keys the prefix cache: the caller's sealed salt, or one drawn for this request.
    """

    id: str
    prompt_tokens: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    tenant: str = ""
    weight: int = 1
    cache_salt: bytes = b""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside the engine: its tokens, its pages, and how far it has been computed.

    `computed` tokens have keys and values in `pages`; the step computes from there on. After a
    preemption `computed` is 0 and the generated tokens are recomputed like a prompt.

    Attributes:
        request: as submitted.
        seed: of the random draws, chosen by the engine where the request names none.
        tokens: prompt and generated tokens so far.
        prompt_len: how many of `tokens` were given.
        limit: longest length `tokens` may reach.
        pages: page ids of the KV pool, one for each 16 tokens, in order.
        computed: tokens whose keys and values are stored.
    """

    request: GenerationRequest
    seed: int
    tokens: list[int]
    prompt_len: int
    limit: int
    pages: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def pending(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 while decoding."""
        return len(self.tokens) - self.computed
