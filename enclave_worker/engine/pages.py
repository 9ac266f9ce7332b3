"""The KV pool: which pages are free, who holds the others, and who has to give them up.

A page is free (and holds zeros), private to one sequence, or cached: full, known to the prefix
cache, read by any number of sequences of its scope, kept when the last of them has left until
somebody needs the room. Each tenant has a share of the pool by its weight. What it holds beyond is
evicted first, its own least recently used pages next, so nobody flushes a tenant that keeps within
its share; only a sequence that could not run otherwise, not even alone, takes more.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field

from .config import PAGE_SIZE
from .prefix_cache import CachedPage, PrefixCache, pack
from .sequence import Sequence


class PagePool:
    """Which pages are free. The lowest go first, so the pages in use stay close together.

    Attributes:
        total: pages there are.
        taken: those handed out.
    """

    def __init__(self, total: int, scrub: Callable[[Sequence_[int]], None]) -> None:
        """All pages are free; `scrub` overwrites pages with zeros."""
        self.total = total
        self.taken: set[int] = set()
        self._scrub = scrub
        self._free = list(range(total))

    @property
    def free(self) -> int:
        """Free pages."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Hand out pages; the caller has checked `free`."""
        if count > len(self._free):
            raise RuntimeError(f"page pool: found {len(self._free)} free, expected {count}")
        pages = [heapq.heappop(self._free) for _ in range(count)]
        self.taken.update(pages)
        return pages

    def give_back(self, pages: Iterable[int]) -> None:
        """Scrub pages and make them free: the next holder may be another tenant."""
        returned = list(pages)
        if not self.taken.issuperset(returned) or len(set(returned)) != len(returned):
            raise RuntimeError("page pool: found a page that is free, expected each to be taken")
        if returned:
            self._scrub(returned)
        self.taken.difference_update(returned)
        for page in returned:
            heapq.heappush(self._free, page)


@dataclass(slots=True, eq=False)
class Account:
    """One tenant's part of the pool.

    Attributes:
        weight: its share's, as the latest request says.
        requests: held by the engine, with and without pages.
        held: pages, private and cached.
        idle: cached pages without a reader by page id, least recently used first. A page comes
            before its predecessor, as it does in `KvCache.release`: leaves are evicted first.
    """

    weight: int = 1
    requests: int = 0
    held: int = 0
    idle: OrderedDict[int, CachedPage] = field(default_factory=OrderedDict)


class KvCache:
    """Who holds which pages.

    Attributes:
        pool: which are free.
        hits: times a sequence took pages from the prefix cache.
        hit_tokens: tokens in them.
        evictions: cached pages given up because somebody needed the room.
    """

    def __init__(
        self, pool: PagePool, secret: bytes, *, newcomer_weight: int = 1, caching: bool = True
    ) -> None:
        """Share out `pool`.

        Args:
            pool: the pages.
            secret: of the prefix cache's hash.
            newcomer_weight: of a tenant that is not there yet, whose share nobody else has.
            caching: False: pages are free when their sequence leaves.
        """
        self.pool = pool
        self._index = PrefixCache(secret)
        self._newcomer_weight = newcomer_weight
        self._caching = caching
        self._accounts: dict[str, Account] = {}
        self._holders: set[Sequence] = set()
        self.hits = self.hit_tokens = self.evictions = 0

    @property
    def cached(self) -> int:
        """Cached pages without a reader."""
        return sum(len(account.idle) for account in tuple(self._accounts.values()))

    def join(self, sequence: Sequence) -> None:
        """Count a request, with or without pages, among its tenant's."""
        account = self._account(sequence)
        account.weight = sequence.request.weight
        account.requests += 1

    def leave(self, sequence: Sequence) -> None:
        """Release a request that joined; it is gone."""
        self._account(sequence).requests -= 1
        self.release(sequence)

    def admit(self, sequence: Sequence, spare: int = 0) -> bool:
        """Give a sequence pages for all its tokens, shared ones as far as its beginning is cached.

        At least the last token is left to compute. False, and nothing taken, unless `spare` more
        pages could be had besides.
        """
        self._follow(sequence, (len(sequence.tokens) - 1) // PAGE_SIZE)
        total = pages_for(len(sequence.tokens))
        if not self._provide(self._account(sequence), total - len(sequence.chain), spare, total):
            self._let_go(sequence)
            return False
        sequence.pages = [entry.page for entry in sequence.chain]
        self._take(sequence, total)
        self._holders.add(sequence)
        self._skip(sequence)
        return True

    def match(self, sequence: Sequence) -> None:
        """Skip what others have computed since the sequence was admitted."""
        if sequence.computed == len(sequence.chain) * PAGE_SIZE:
            self._free(sequence, self._follow(sequence, (len(sequence.tokens) - 1) // PAGE_SIZE))
            self._skip(sequence)

    def grow(self, sequence: Sequence, length: int, *, evict: bool = True) -> bool:
        """Give a sequence pages for `length` tokens; without `evict` only if they are free."""
        total = pages_for(length)
        count = total - len(sequence.pages)
        if count > self.pool.free and not (
            evict and self._provide(self._account(sequence), count, 0, total)
        ):
            return False
        self._take(sequence, total)
        return True

    def advance(self, sequence: Sequence) -> None:
        """After a step: make the pages it has filled known; one that is known already is shared."""
        sequence.reached = max(sequence.reached, sequence.computed)
        known = min(sequence.computed, len(sequence.tokens))  # guesses may not be delivered yet
        self._free(sequence, self._follow(sequence, known // PAGE_SIZE, add=True))

    def release(self, sequence: Sequence) -> None:
        """Take a sequence's pages: cached ones are kept, the others scrubbed. Twice is harmless."""
        private = sequence.pages[len(sequence.chain) :]
        self._let_go(sequence)
        self._free(sequence, private)
        sequence.pages, sequence.computed = [], 0
        self._holders.discard(sequence)
        self._forget()

    def flush(self, tenant: str | None = None) -> None:
        """Scrub the cached pages without a reader: a tenant's (they may be bad), or all."""
        for name, account in self._accounts.items():
            if tenant in (None, name):
                self.pool.give_back([self._drop(account) for _ in range(len(account.idle))])
        self._forget()

    def beyond_share(self, sequence: Sequence) -> bool:
        """Whether the sequence's tenant holds more than its share of the pool."""
        return self._excess(self._account(sequence), self._weights()) > 0

    def check(self) -> None:
        """Raise RuntimeError unless every page is accounted for exactly once."""
        readers = Counter(entry for holder in self._holders for entry in holder.chain)
        idle = [entry for account in self._accounts.values() for entry in account.idle.values()]
        pages = [page for s in self._holders for page in s.pages[len(s.chain) :]]
        pages += [entry.page for entry in (*readers, *idle)]
        place: dict[CachedPage | None, int] = {e: number for number, e in enumerate(idle)}
        for what, holds in (
            ("pages taken", sorted(pages) == sorted(self.pool.taken)),
            ("pages free", self.pool.free + len(pages) == self.pool.total),
            ("pages held", sum(a.held for a in self._accounts.values()) == len(pages)),
            ("readers", all(e.readers == readers[e] for e in (*readers, *idle))),
            ("index", len(self._index) == len(readers) + len(idle)),
            ("entries", all(e in self._index for e in (*readers, *idle))),
            ("order of eviction", all(place.get(e.parent, len(idle)) > place[e] for e in idle)),
            ("chains", all(_is_chain(s) for s in self._holders)),
        ):
            if not holds:
                raise RuntimeError(f"kv cache {what}: found books that do not balance")

    def _account(self, sequence: Sequence) -> Account:
        return self._accounts.setdefault(sequence.request.tenant, Account())

    def _weights(self) -> int:
        """Of everybody here, and of the newcomer."""
        return self._newcomer_weight + sum(a.weight for a in self._accounts.values())

    def _excess(self, account: Account, weights: int) -> int:
        """Pages a tenant holds beyond its share; negative within it."""
        return account.held - self.pool.total * account.weight // weights

    def _provide(self, account: Account, count: int, spare: int, total: int) -> bool:
        """Evict until `count` pages are free, if `spare` more could be had.

        In this turn: what tenants hold beyond their shares, the largest excess first; the
        account's own; and others', if the sequence with its `total` pages could not run otherwise.
        """
        if self.pool.free >= count + spare:
            return True
        weights, idle, offered = self._weights(), 0, 0
        heap: list[tuple[int, int, int, Account]] = []
        for number, other in enumerate(self._accounts.values()):
            if other.idle:
                excess, has = self._excess(other, weights), len(other.idle)
                idle += has
                offered += has if other is account else max(0, min(has, excess))
                heap.append((_turn(excess, other is account), -excess, number, other))
        alone = total > self.pool.total - (idle - offered)
        if self.pool.free + (idle if alone else offered) < count + spare:
            return False
        heapq.heapify(heap)
        evicted: list[int] = []
        while self.pool.free + len(evicted) < count:
            _, below, number, other = heap[0]
            evicted.append(self._drop(other))
            if other.idle:
                turn = _turn(-below - 1, other is account)
                heapq.heapreplace(heap, (turn, below + 1, number, other))
            else:
                heapq.heappop(heap)
        self.evictions += len(evicted)
        self.pool.give_back(evicted)
        self._forget()
        return True

    def _follow(self, sequence: Sequence, pages: int, *, add: bool = False) -> list[int]:
        """Hold the cached pages that continue the sequence, up to `pages` in all.

        With `add`, what is not cached becomes so. Returns the sequence's own pages that are
        replaced by shared ones.
        """
        replaced: list[int] = []
        if not self._caching or len(sequence.chain) >= pages:
            return replaced
        account, chain, scope = self._account(sequence), sequence.chain, sequence.request.scope
        for index in range(len(chain), pages):
            tokens = pack(sequence.tokens[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])
            parent = chain[-1] if chain else None
            if index == len(sequence.keys):
                last = sequence.keys[-1] if index else b""
                sequence.keys.append(self._index.key(scope, last, tokens))
            page = sequence.pages[index] if add else -1
            wanted = CachedPage(sequence.keys[index], parent, scope, tokens, page)
            entry = self._index.find(wanted)
            if entry is None and add and self._index.add(wanted):
                entry = wanted
            if entry is None:
                break
            account.idle.pop(entry.page, None)
            entry.readers += 1
            chain.append(entry)
            if index < len(sequence.pages) and sequence.pages[index] != entry.page:
                replaced.append(sequence.pages[index])
                sequence.pages[index] = entry.page
        return replaced

    def _skip(self, sequence: Sequence) -> None:
        """Count what the chain holds as computed, and as cached where it never was before."""
        start, sequence.computed = sequence.computed, len(sequence.chain) * PAGE_SIZE
        if sequence.computed > start:
            self.hits += 1
            self.hit_tokens += sequence.computed - start
        sequence.cached += max(0, sequence.computed - max(start, sequence.reached))
        sequence.reached = max(sequence.reached, sequence.computed)

    def _let_go(self, sequence: Sequence) -> None:
        """Stop reading the chain; the pages of a request without a salt are of no further use."""
        account, useless = self._account(sequence), []
        for entry in reversed(sequence.chain):
            entry.readers -= 1
            if not entry.readers and entry.scope.request:
                self._index.drop(entry)
                useless.append(entry.page)
            elif not entry.readers:
                account.idle[entry.page] = entry
        sequence.chain = []
        self._free(sequence, useless)

    def _take(self, sequence: Sequence, total: int) -> None:
        """Take free pages until the sequence has `total`."""
        count = max(0, total - len(sequence.pages))
        sequence.pages += self.pool.take(count)
        self._account(sequence).held += count

    def _free(self, sequence: Sequence, pages: Sequence_[int]) -> None:
        """Give back pages of the sequence that nobody else reads."""
        self.pool.give_back(pages)
        self._account(sequence).held -= len(pages)

    def _drop(self, account: Account) -> int:
        """Forget a tenant's least recently used page; the caller gives it back."""
        page, entry = account.idle.popitem(last=False)
        self._index.drop(entry)
        account.held -= 1
        return page

    def _forget(self) -> None:
        """Forget the tenants of which nothing is here."""
        for name, account in list(self._accounts.items()):
            if not account.requests and not account.held:
                del self._accounts[name]


def _is_chain(sequence: Sequence) -> bool:
    """Whether the sequence's known pages are its first ones, and follow each other."""
    chain, scope = sequence.chain, sequence.request.scope
    return (
        [entry.page for entry in chain] == sequence.pages[: len(chain)]
        and [entry.parent for entry in chain] == [None, *chain][: len(chain)]
        and all(entry.scope == scope for entry in chain)
    )


def _turn(excess: int, own: bool) -> int:
    """Whose pages go first: what is beyond a share, the needy tenant's own, others'."""
    return 0 if excess > 0 else 1 if own else 2


def pages_for(tokens: int) -> int:
    """Pages that hold this many tokens."""
    return -(-tokens // PAGE_SIZE)
