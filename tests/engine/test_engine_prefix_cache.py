"""Shared beginnings: found by those who may, compared token by token, never by anybody else."""

import struct
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulators.paging import Loop, Memory, make_sequence, owner

from enclave_worker.engine.pages import KvCache, PagePool
from enclave_worker.engine.prefix_cache import CachedPage, PrefixCache, Scope, pack
from enclave_worker.engine.sequence import Sequence

PAGE = tuple(range(16))
SCOPE = Scope("tenant", b"salt", "adapter", "")


# ------------------------------------------------------------------ the index


@pytest.mark.parametrize(
    "other",
    [
        (SCOPE._replace(tenant="tenan"), b"", PAGE),
        (SCOPE._replace(salt=b"other"), b"", PAGE),
        (SCOPE._replace(adapter=""), b"", PAGE),
        (SCOPE._replace(request="1"), b"", PAGE),
        (SCOPE._replace(tenant="tenants", salt=b"alt"), b"", PAGE),
        (SCOPE._replace(salt=b"saltadapter", adapter=""), b"", PAGE),
        (SCOPE._replace(adapter="", request="adapter"), b"", PAGE),
        (SCOPE, b"parent", PAGE),
        (SCOPE, b"", (*PAGE[:-1], 99)),
    ],
)
def test_the_key_depends_on_every_field_and_on_where_it_ends(
    other: tuple[Scope, bytes, tuple[int, ...]],
) -> None:
    index = PrefixCache(b"secret")
    scope, parent, tokens = other
    assert index.key(scope, parent, pack(tokens)) != index.key(SCOPE, b"", pack(PAGE))


def test_the_key_has_128_bits_and_cannot_be_computed_without_the_secret() -> None:
    key = PrefixCache(b"secret").key(SCOPE, b"", pack(PAGE))
    assert len(key) == 16
    assert key != PrefixCache(b"public").key(SCOPE, b"", pack(PAGE))


def test_a_hash_alone_is_not_believed() -> None:
    index = PrefixCache(b"secret")
    page = CachedPage(b"k", None, SCOPE, pack(PAGE), 0)
    assert index.find(page) is None
    assert index.add(page)
    assert index.find(replace(page, page=-1)) is page
    for other in (
        replace(page, tokens=pack((*PAGE[:-1], 99))),
        replace(page, scope=SCOPE._replace(tenant="other")),
        replace(page, scope=SCOPE._replace(salt=b"other")),
        replace(page, scope=SCOPE._replace(adapter="")),
        replace(page, scope=SCOPE._replace(request="1")),
        replace(page, parent=page),
    ):
        assert index.find(other) is None
        assert not index.add(other)
        assert other not in index


# ------------------------------------------------------------------ one after the other


def run(loop: Loop, name: str, tokens: list[int], **more: object) -> Sequence:
    """Have a sequence answered with two tokens."""
    made = make_sequence(name, tokens, answer=2, **more)  # type: ignore[arg-type]
    loop.add(made)
    loop.finish()
    return made


@pytest.mark.parametrize(("length", "cached"), [(15, 0), (16, 0), (17, 16), (32, 16), (33, 32)])
def test_a_full_hit_leaves_at_least_one_token_to_compute(length: int, cached: int) -> None:
    loop = Loop()
    prompt = list(range(length))
    assert run(loop, "a", prompt, salt=b"s").cached == 0
    before = loop.computed
    assert run(loop, "b", prompt, salt=b"s").cached == cached
    assert loop.computed - before == length - cached + 1
    assert loop.kv.hit_tokens == cached
    assert loop.kv.hits == bool(cached)


def test_a_conversation_goes_on_from_its_last_answer() -> None:
    loop = Loop(budget=99)
    first = make_sequence("a", range(20), salt=b"s", answer=30)
    loop.add(first)
    loop.finish()
    assert run(loop, "b", [*first.tokens, 1, 2, 3], salt=b"s").cached == 48


def test_what_differs_within_a_page_shares_only_the_pages_before() -> None:
    loop = Loop(budget=99)
    run(loop, "a", list(range(60)), salt=b"s")
    changed = list(range(60))
    changed[20] = 99
    assert run(loop, "b", changed, salt=b"s").cached == 16


def test_a_later_page_is_not_found_without_the_ones_before() -> None:
    loop = Loop(budget=99)
    run(loop, "a", list(range(48)), salt=b"s")
    assert run(loop, "b", list(range(16, 48)), salt=b"s").cached == 0


def test_without_a_salt_nothing_is_shared_and_nothing_stays() -> None:
    loop = Loop()
    for name in ("a", "b", "a"):
        assert run(loop, name, list(range(40))).cached == 0
    assert loop.pool.free == loop.pool.total
    assert all(loop.memory.clean(page) for page in range(loop.pool.total))


def test_a_prompt_that_others_compute_meanwhile_is_not_computed_twice() -> None:
    loop = Loop(budget=160, pages=40)
    one, two = (make_sequence(name, range(100), salt=b"s") for name in "ab")
    loop.add(one, two)
    assert loop.step() == [("a", 100), ("b", 48)]
    assert loop.step() == [("a", 1), ("b", 4)]
    assert two.cached == 48
    assert two.pages[:6] == one.pages[:6]


def test_two_who_computed_the_same_keep_one_copy() -> None:
    loop = Loop(budget=99, pages=40)
    one, two = (make_sequence(name, range(40), salt=b"s") for name in "ab")
    loop.add(one, two)
    loop.step()
    assert (one.cached, two.cached) == (0, 0)
    assert two.pages[:2] == one.pages[:2]
    assert two.pages[2] != one.pages[2]
    assert loop.pool.free == 40 - 4


def test_a_collision_is_computed_again_and_not_shared() -> None:
    loop = Loop(budget=99, pages=400)
    loop.kv._index = PrefixCache(b"secret", key_bytes=1)  # 256 keys for 300 pages
    for number in range(150):
        run(loop, str(number), list(range(number, number + 33)), salt=b"s")  # the loop compares
    assert loop.kv.cached < 256
    assert run(loop, "again", list(range(33)), salt=b"s").cached == 32


def test_the_index_is_no_larger_than_the_pool() -> None:
    loop = Loop(pages=9, budget=99)
    for number in range(50):
        run(loop, str(number), list(range(number, number + 50)), salt=bytes([number + 1]))
        assert len(loop.kv._index) <= 9
    assert loop.kv.cached == 9 - loop.pool.free
    loop.kv.flush()
    assert not len(loop.kv._index)
    assert not loop.kv._accounts


# ------------------------------------------------------------------ against a naive model


@dataclass(eq=False)
class Naive:
    """What the cache should hold, in the plainest words: pages are named by their contents."""

    total: int
    newcomer: int
    # (scope, all tokens up to the end of the page) -> when it was last let go of
    left: dict[tuple[object, tuple[int, ...]], tuple[int, int]] = field(default_factory=dict)
    running: list[Sequence] = field(default_factory=list)
    known: dict[Sequence, int] = field(default_factory=dict)  # pages of a sequence that are shared
    weights: dict[str, int] = field(default_factory=dict)
    clock: int = 0

    def names(self, sequence: Sequence, pages: int) -> list[tuple[object, tuple[int, ...]]]:
        tokens = tuple(sequence.tokens)
        return [(owner(sequence), tokens[: 16 * (i + 1)]) for i in range(pages)]

    def shared(self) -> set[tuple[object, tuple[int, ...]]]:
        return {n for s in self.running for n in self.names(s, self.known[s])}

    def match(self, sequence: Sequence) -> int:
        there = self.shared() | set(self.left)
        count = 0
        for name in self.names(sequence, (len(sequence.tokens) - 1) // 16):
            if name not in there:
                break
            count += 1
        return count

    def held(self, tenant: str) -> int:
        private = sum(
            len(s.pages) - self.known[s] for s in self.running if s.request.tenant == tenant
        )
        names = [n for n in (*self.shared(), *self.left) if n[0][0] == tenant]  # type: ignore[index]
        return private + len(names)

    def free(self) -> int:
        return self.total - sum(self.held(tenant) for tenant in self.weights)

    def tenants(self) -> dict[str, int]:
        return {t: w for t, w in self.weights.items() if self.held(t)}

    def excess(self, tenant: str) -> int:
        weights = self.newcomer + sum(self.weights.values())
        return self.held(tenant) - self.total * self.weights[tenant] // weights

    def oldest(self, tenant: str) -> tuple[object, tuple[int, ...]] | None:
        mine = [n for n in self.left if n[0][0] == tenant]  # type: ignore[index]
        return min(mine, key=lambda n: self.left[n], default=None)

    def evict(self, tenant: str, count: int, spare: int, total: int, *, dry: bool = False) -> bool:
        """Make room page by page; False where it would take somebody's rightful page."""
        if not dry:
            trial = Naive(self.total, self.newcomer, dict(self.left), self.running, self.known)
            trial.weights = self.weights
            if not trial.evict(tenant, count + spare, 0, total, dry=True):
                return False
        kept = sum(
            min(len([n for n in self.left if n[0][0] == t]), max(0, -self.excess(t) + idle))
            for t in self.weights
            if t != tenant and (idle := len([n for n in self.left if n[0][0] == t]))
        )
        alone = total > self.total - kept
        while self.free() < count:
            having = [t for t in self.weights if self.oldest(t)]
            beyond = [t for t in having if self.excess(t) > 0]
            if beyond:
                most = max(self.excess(t) for t in beyond)
                victim = next(t for t in beyond if self.excess(t) == most)
            elif tenant in having:
                victim = tenant
            elif alone and having:
                victim = max(having, key=self.excess)
            else:
                return False
            name = self.oldest(victim)
            assert name is not None
            del self.left[name]
        return True


class Machine(RuleBasedStateMachine):
    """The KV cache beside the naive model."""

    @initialize(pages=st.integers(4, 12), newcomer=st.integers(1, 3))
    def start(self, pages: int, newcomer: int) -> None:
        self.memory = Memory(pages)
        self.pool = PagePool(pages, self.memory.scrub)
        self.kv = KvCache(self.pool, b"secret", newcomer_weight=newcomer)
        self.naive = Naive(pages, newcomer)
        self.weights = {"a": 1, "b": 2, "c": 3}
        self.waiting: list[Sequence] = []
        self.count = 0

    @rule(
        tenant=st.sampled_from("abc"),
        salt=st.sampled_from([b"", b"x", b"y"]),
        adapter=st.sampled_from(["", "lora"]),
        length=st.integers(1, 64),
        turn=st.integers(0, 3),
    )
    def arrive(self, tenant: str, salt: bytes, adapter: str, length: int, turn: int) -> None:
        self.count += 1
        tokens = [0] * length
        tokens[min(turn * 16, length - 1)] = turn  # beginnings in common, of several lengths
        sequence = make_sequence(
            str(self.count),
            tokens,
            tenant=tenant,
            salt=salt,
            adapter=adapter,
            weight=self.weights[tenant],
        )
        self.kv.join(sequence)
        self.waiting.append(sequence)
        self._roll()

    def _roll(self) -> None:
        """Who is there: tenants with requests or pages."""
        there = {s.request.tenant for s in (*self.waiting, *self.naive.running)}
        there |= {name[0][0] for name in self.naive.left}  # type: ignore[index]
        # In the order in which they came, which decides between equals.
        order = [t for t in self.naive.weights if t in there]
        order += [t for t in there if t not in order]
        self.naive.weights = {t: self.weights[t] for t in order}

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99), spare=st.integers(0, 3))
    def admit(self, which: int, spare: int) -> None:
        sequence = self.waiting[which % len(self.waiting)]
        naive, tenant = self.naive, sequence.request.tenant
        matched = naive.match(sequence)
        total = -(-len(sequence.tokens) // 16)
        before = dict(naive.left)
        for name in naive.names(sequence, matched):
            naive.left.pop(name, None)
        naive.running.append(sequence)
        naive.known[sequence] = matched
        sequence.pages = [-1] * matched  # for the model to count
        expected = naive.evict(tenant, total - matched, spare, total)
        sequence.pages = []
        assert self.kv.admit(sequence, spare) is expected
        if expected:
            self.waiting.remove(sequence)
            assert sequence.computed == matched * 16
            assert len(sequence.pages) == total
            self.memory.read(sequence, sequence.computed)
        else:
            naive.running.remove(sequence)
            naive.left = before
            self._leave(sequence, matched)

    def _leave(self, sequence: Sequence, known: int) -> None:
        """Let go of shared pages that nobody else reads, the last one first."""
        self.naive.clock += 1
        names = self.naive.names(sequence, known)
        for depth, name in enumerate(reversed(names)):
            if name not in self.naive.shared() and sequence.request.cache_salt:
                self.naive.left[name] = (self.naive.clock, depth)

    @precondition(lambda self: self.naive.running)
    @rule(which=st.integers(0, 99), count=st.integers(1, 40))
    def compute(self, which: int, count: int) -> None:
        sequence = self.naive.running[which % len(self.naive.running)]
        start = sequence.computed
        if not sequence.pending:
            return
        count = min(count, sequence.pending)
        self.memory.read(sequence, start)
        private = sequence.pages[start // 16 :]
        others = {p for s in self.naive.running if s is not sequence for p in s.pages}
        assert others.isdisjoint(private)
        self.memory.write(sequence, start, sequence.tokens[start : start + count])
        sequence.computed += count
        self.kv.advance(sequence)
        full = sequence.computed // 16
        for name in self.naive.names(sequence, full)[self.naive.known[sequence] :]:
            self.naive.left.pop(name, None)
        self.naive.known[sequence] = full
        self.memory.read(sequence, sequence.computed)

    @precondition(lambda self: self.naive.running)
    @rule(which=st.integers(0, 99), count=st.integers(1, 40), evict=st.booleans())
    def grow(self, which: int, count: int, evict: bool) -> None:
        sequence = self.naive.running[which % len(self.naive.running)]
        total = -(-(len(sequence.tokens) + count) // 16)
        missing = max(0, total - len(sequence.pages))
        if total > self.pool.total:
            return
        if evict:
            expected = self.naive.evict(sequence.request.tenant, missing, 0, total)
        else:
            expected = self.naive.free() >= missing
        assert self.kv.grow(sequence, len(sequence.tokens) + count, evict=evict) is expected
        if expected:
            sequence.tokens += [sequence.tokens[-1]] * count

    @precondition(lambda self: self.naive.running)
    @rule(which=st.integers(0, 99))
    def match(self, which: int) -> None:
        sequence = self.naive.running[which % len(self.naive.running)]
        if sequence.computed % 16 or not sequence.pending:
            return
        expected = max(self.naive.match(sequence), self.naive.known[sequence])
        self.kv.match(sequence)
        for name in self.naive.names(sequence, expected):
            self.naive.left.pop(name, None)
        self.naive.known[sequence] = expected
        assert sequence.computed == expected * 16
        self.memory.read(sequence, sequence.computed)

    @precondition(lambda self: self.naive.running)
    @rule(which=st.integers(0, 99), gone=st.booleans())
    def release(self, which: int, gone: bool) -> None:
        sequence = self.naive.running.pop(which % len(self.naive.running))
        self._leave(sequence, self.naive.known.pop(sequence))
        if gone:
            self.kv.leave(sequence)
        else:
            self.kv.release(sequence)
            self.waiting.append(sequence)
        self._roll()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99))
    def serve(self, which: int) -> None:
        """A request from beginning to end: what it had stays cached."""
        held = len(self.naive.running)
        self.admit(which, 0)
        if len(self.naive.running) > held:
            self.compute(held, 1000)
            self.release(held, gone=True)

    @rule(tenant=st.sampled_from([None, "a", "b"]), really=st.sampled_from([True] + [False] * 9))
    def flush(self, tenant: str | None, really: bool) -> None:
        if not really:
            return
        self.kv.flush(tenant)
        for name in list(self.naive.left):
            if tenant in (None, name[0][0]):  # type: ignore[index]
                del self.naive.left[name]
        self._roll()

    def _cached(self) -> set[tuple[object, tuple[int, ...]]]:
        """Names of the pages without a reader."""
        names = set()
        for account in self.kv._accounts.values():
            for entry in account.idle.values():
                tokens, link = b"", entry
                while link is not None:
                    tokens, link = link.tokens + tokens, link.parent
                scope = entry.scope
                who = scope.tenant, scope.adapter, scope.salt or scope.request
                names.add((who, struct.unpack(f"<{len(tokens) // 4}i", tokens)))
        return names

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "kv"):
            return
        self.kv.check()
        self._roll()
        assert {t: a.weight for t, a in self.kv._accounts.items()} == self.naive.weights
        assert self.pool.free == self.naive.free()
        assert self._cached() == set(self.naive.left)
        for sequence in self.naive.running:
            assert len(sequence.chain) == self.naive.known[sequence]
            self.memory.read(sequence, sequence.computed)
        for page in range(self.pool.total):
            assert page in self.pool.taken or self.memory.clean(page)


TestAgainstNaive = Machine.TestCase
TestAgainstNaive.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
