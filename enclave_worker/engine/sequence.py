"""A request, and the running state the engine keeps for it."""

from dataclasses import dataclass, field
from typing import Protocol

from .params import SamplingParams
from .prefix_cache import CachedPage, Scope
from .sampling.state import SamplerState


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of the engine.

    Attributes:
        id: unique among the requests the engine holds.
        prompt_tokens: token ids, at least one.
        params: sampling.
        tenant: opaque handle, carried for fair scheduling and page quotas; never a name.
        weight: the tenant's share, carried for fair scheduling.
        cache_salt: keys the prefix cache, from inside the sealed envelope; empty: the request
            shares with no other.
        n: answers wanted.
        adapter: name of the LoRA adapter; empty for none.
    """

    id: str
    prompt_tokens: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    tenant: str = ""
    weight: int = 1
    cache_salt: bytes = b""
    n: int = 1
    adapter: str = ""

    @property
    def scope(self) -> Scope:
        """Who may share its cached pages; without a salt it shares with no other request."""
        own = "" if self.cache_salt else self.id
        return Scope(self.tenant, self.cache_salt, self.adapter, own)


class Drafter(Protocol):
    """Guesses what comes next in one sequence."""

    def draft(self, most: int) -> tuple[int, ...]:
        """Return up to `most` tokens, none where there is nothing to go by."""

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn how many of the guesses were right."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside the engine: its tokens, its pages, and how far it has been computed.

    `computed` tokens have keys and values in `pages`; the step computes from there on. After a
    preemption `computed` is 0 and the generated tokens are recomputed like a prompt.

    Attributes:
        request: as submitted.
        sampler: what choosing its tokens depends on.
        tokens: prompt and generated tokens so far.
        prompt_len: how many of `tokens` were given.
        limit: longest length `tokens` may reach.
        pages: page ids of the KV pool, one for each 16 tokens, in order.
        computed: tokens whose keys and values are stored.
        index: which of the request's answers.
        drafter: guesses tokens to verify, where the request allows it.
        arrival: its place in the order of arrival, kept through preemptions.
        chain: those of `pages`, from the first on, that the prefix cache knows.
        keys: hashes of its full pages, as far as they were needed.
        reached: the most `computed` has been: what lies below is computed again.
        cached: tokens taken from the prefix cache that were never computed for this sequence.
    """

    request: GenerationRequest
    sampler: SamplerState
    tokens: list[int]
    prompt_len: int
    limit: int
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    index: int = 0
    drafter: Drafter | None = None
    arrival: int = 0
    chain: list[CachedPage] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    reached: int = 0
    cached: int = 0

    @property
    def id(self) -> str:
        """The request's id, with the number of the answer where it is not the first."""
        return f"{self.request.id}#{self.index}" if self.index else self.request.id

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def pending(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 while decoding."""
        return len(self.tokens) - self.computed
