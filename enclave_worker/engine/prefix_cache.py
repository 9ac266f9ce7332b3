"""Which full pages hold which tokens, so that a prompt with a known beginning starts further on.

A page is found by a keyed BLAKE2b over its predecessor's key, its tokens and its scope. The hash
only finds a candidate: scope, predecessor and tokens are compared before a page is shared, so
neither a collision nor a guessed hash shows one caller what another has asked (PromptPeek,
NDSS 2025: shared prefixes leak through the time to the first token).
"""

import struct
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from .config import PAGE_SIZE

KEY_BYTES = 16
_TOKENS = struct.Struct(f"<{PAGE_SIZE}i")


class Scope(NamedTuple):
    """Who shares pages with each other: requests for which all of this is equal.

    Attributes:
        tenant: opaque handle.
        salt: from inside the sealed envelope; empty where the caller gave none.
        adapter: other weights give other keys and values for the same tokens.
        request: id of a request without a salt: it shares with nobody else. Empty with a salt.
    """

    tenant: str
    salt: bytes
    adapter: str
    request: str


@dataclass(slots=True, eq=False)
class CachedPage:
    """A full page that may be shared.

    Attributes:
        key: its hash.
        parent: the page before it; None for the first of a sequence.
        scope: who may read it.
        tokens: its tokens, packed.
        page: page id.
        readers: sequences that hold it.
    """

    key: bytes
    parent: "CachedPage | None"
    scope: Scope
    tokens: bytes
    page: int
    readers: int = 0


class PrefixCache:
    """The index. It holds one entry a page, so the pool bounds its memory."""

    def __init__(self, secret: bytes, key_bytes: int = KEY_BYTES) -> None:
        """Start empty; `secret` keys the hash, is made where the engine runs and stays there."""
        self._secret = secret
        self._key_bytes = key_bytes
        self._entries: dict[bytes, CachedPage] = {}

    def __len__(self) -> int:
        """Pages in the index."""
        return len(self._entries)

    def __contains__(self, entry: CachedPage) -> bool:
        """Whether exactly this entry is in the index."""
        return self._entries.get(entry.key) is entry

    def key(self, scope: Scope, parent: bytes, tokens: bytes) -> bytes:
        """Hash of a page's packed tokens behind the page with the key `parent` (empty: none)."""
        digest = blake2b(digest_size=self._key_bytes, key=self._secret)
        tenant, salt, adapter, request = scope
        for part in (parent, tokens, tenant.encode(), salt, adapter.encode(), request.encode()):
            digest.update(len(part).to_bytes(4, "little") + part)
        return digest.digest()

    def find(self, wanted: CachedPage) -> CachedPage | None:
        """Return the known page that holds what `wanted` says; the key alone proves nothing."""
        entry = self._entries.get(wanted.key)
        if entry is None or entry.parent is not wanted.parent or entry.scope != wanted.scope:
            return None
        return entry if entry.tokens == wanted.tokens else None

    def add(self, entry: CachedPage) -> bool:
        """Make a page known; False where another page has its key: this one then stays alone."""
        return self._entries.setdefault(entry.key, entry) is entry

    def drop(self, entry: CachedPage) -> None:
        """Forget a page."""
        del self._entries[entry.key]


def pack(tokens: Sequence_[int]) -> bytes:
    """The tokens of one page as they are hashed and compared."""
    return _TOKENS.pack(*tokens)
