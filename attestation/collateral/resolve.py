"""From what a scheme needs to the bytes its examination takes.

For each need, in order:
 1. its source and key are of a closed form;
 2. every stored entry it rests on is in the cache and in force; otherwise
 3. it is fetched, by one caller at a time, checked, and kept; offline, nothing is fetched. In the
    last quarter of its time an entry is renewed; if that fails it counts until its end. What
    another process or the disk keeps from being written counts all the same: it may say who is
    revoked. So it does where the cache cannot be read, if it is known to be the newest; if that
    fails, the cache cannot be used, and nobody can say what is in force.

An entry is in force until its own end, and, where the caller names a greatest age, no longer than
that after it was fetched: a tenant's policy may trust vendors' statements for less time than their
vendors do. What was carried here in a bundle has the age it had there.

An entry past its end never counts, whatever the reason why there is no newer one: revocation that
cannot be checked is not passed over. What is missing is said with a reason.

Reason codes: `collateral_missing` (nobody may fetch it), `collateral_expired`,
`collateral_unavailable` (the service gave no answer), `collateral_malformed`,
`collateral_rollback`, and those of the sources' checks.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from attestation.collateral_key import CollateralKey
from attestation.result import Reason
from wire.errors import AttestationError, ConfigError, MalformedError, UnavailableError

from .view import compose, rests_on, witnesses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from attestation.scheme import Need

    from .entry import Entry, Piece
    from .fetcher import Fetcher


@dataclass(frozen=True, slots=True)
class Resolved:
    """Collateral for one examination.

    Attributes:
        roles: role to bytes: `Question.collateral`.
        missing: why a role is not there, required or not; `step` is "collateral <role>".
        complete: whether every required role is there.
        expires: first second at which one of the entries is no longer in force; None if there are
            none.
        due: first second at which one of them is to be renewed; None likewise.
    """

    roles: Mapping[str, bytes]
    missing: tuple[Reason, ...]
    complete: bool
    expires: int | None
    due: int | None = None


class Cache(Protocol):
    """Where entries are kept: `Store`, or what notes what is read of one."""

    def get(self, key: CollateralKey, now: int) -> Entry | None:
        """As `Store.get`."""

    def put(self, entry: Entry, now: int, *, answered: bool = False) -> None:
        """As `Store.put`."""

    def exclusive(self, key: CollateralKey) -> AbstractContextManager[None]:
        """As `Store.exclusive`."""


class Asks(Protocol):
    """Asks a vendor for one stored key: `Vendors`, or what decides whether they are asked now."""

    def fetch(
        self, key: CollateralKey, fetcher: Fetcher, now: int, chain: Piece | None = None
    ) -> Entry:
        """As `Vendors.fetch`."""


def resolve(
    needs: Iterable[Need],
    store: Cache,
    vendors: Asks,
    fetcher: Fetcher | None,
    now: int,
    *,
    max_age_s: int | None = None,
) -> Resolved:
    """Bytes for every need that can be had.

    Args:
        needs: what the scheme asked for.
        store: the cache.
        vendors: how to ask and what to check.
        fetcher: the network, or None to work offline.
        now: Unix seconds.
        max_age_s: an entry fetched this long ago or longer is not in force, whatever its own end:
            `Policy.collateral_max_age_s`. None for the entries' own ends alone.

    Raises:
        ConfigError: the cache cannot be used. What vendors do is never an error here.
    """
    roles: dict[str, bytes] = {}
    missing: list[Reason] = []
    complete = True
    ends: list[int] = []
    dues: list[int] = []
    for need in needs:
        try:
            key = CollateralKey(need.source, need.key)  # step 1
            entries = [  # steps 2 and 3
                obtain(stored, store, vendors, fetcher, now, max_age_s=max_age_s)
                for stored in rests_on(key)
            ]
            pieces: dict[CollateralKey, Piece] = {entry.key: entry.piece for entry in entries}
            roles[need.role] = compose(key, pieces)
            ends += [_end(entry, max_age_s) for entry in entries]
            dues += [_renewal(entry, max_age_s) for entry in entries]
        except (AttestationError, MalformedError, UnavailableError) as refusal:
            complete = complete and not need.required
            missing.append(Reason(_code(refusal), refusal.message, f"collateral {need.role}"))
    return Resolved(MappingProxyType(roles), tuple(missing), complete, _first(ends), _first(dues))


def joined(first: Resolved, second: Resolved) -> Resolved:
    """What two rounds found for one examination; their needs have distinct roles."""
    return Resolved(
        MappingProxyType({**first.roles, **second.roles}),
        (*first.missing, *second.missing),
        first.complete and second.complete,
        _first((first.expires, second.expires)),
        _first((first.due, second.due)),
    )


def obtain(
    key: CollateralKey,
    store: Cache,
    vendors: Asks,
    fetcher: Fetcher | None,
    now: int,
    *,
    max_age_s: int | None = None,
) -> Entry:
    """The entry of one stored key, in force (steps 2 and 3); arguments as for `resolve`.

    Raises:
        AttestationError: there is none, or it is refused.
        MalformedError: what came does not follow its format.
        UnavailableError: the service gave no answer.
        ConfigError: the cache cannot be used.
    """
    if fetcher is None:
        found = store.get(key, now)
        if found is not None and _end(found, max_age_s) > now:
            return found
        raise _absent(key, found, now, max_age_s)
    try:
        found = _in_force(key, store, now, max_age_s)
    except ConfigError:
        with contextlib.suppress(AttestationError, MalformedError, UnavailableError):
            return _fetched(key, store, vendors, fetcher, now, max_age_s)
        raise
    if found is None:
        return _fetched(key, store, vendors, fetcher, now, max_age_s)
    if not _due(found, now, max_age_s):
        return found
    # A vendor that is down for an hour must not end every worker at the same second.
    with contextlib.suppress(AttestationError, MalformedError, UnavailableError):
        return _fetched(key, store, vendors, fetcher, now, max_age_s)
    return found


def _fetched(
    key: CollateralKey,
    store: Cache,
    vendors: Asks,
    fetcher: Fetcher,
    now: int,
    max_age_s: int | None,
) -> Entry:
    """Step 3; raises like `obtain`."""
    above = witnesses(key)
    chain = None
    if above:
        held = (each for each in above if _readable(each, store, now, max_age_s) is not None)
        wanted = next(held, above[0])
        chain = obtain(wanted, store, vendors, fetcher, now, max_age_s=max_age_s).piece
    with store.exclusive(key):
        # Whoever held the lock before may have fetched it.
        found = _readable(key, store, now, max_age_s)
        if found is not None and not _due(found, now, max_age_s):
            return found
        try:
            entry = vendors.fetch(key, fetcher, now, chain)
        except ConfigError as refusal:
            # No address for it: a verdict about this need, not about the cache.
            raise AttestationError(
                refusal.message, reasons=("collateral_missing",), hint=refusal.hint
            ) from refusal
        # A list that names somebody must count although it cannot be written now.
        with contextlib.suppress(UnavailableError):
            store.put(entry, now, answered=key.kind == "ocsp")
        return entry


def _due(entry: Entry, now: int, max_age_s: int | None) -> bool:
    """Whether the last quarter of an entry's time has begun."""
    return now >= _renewal(entry, max_age_s)


def _renewal(entry: Entry, max_age_s: int | None) -> int:
    """When the last quarter of an entry's time begins."""
    return _end(entry, max_age_s) - (_end(entry, max_age_s) - entry.fetched_at) // 4


def _first(times: Iterable[int | None]) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _end(entry: Entry, max_age_s: int | None) -> int:
    """The first second at which an entry is no longer in force."""
    return entry.expires if max_age_s is None else min(entry.expires, entry.fetched_at + max_age_s)


def _in_force(key: CollateralKey, store: Cache, now: int, max_age_s: int | None) -> Entry | None:
    try:
        found = store.get(key, now)
    except AttestationError:
        return None  # an older one than was seen: a newer may be had
    return found if found is not None and _end(found, max_age_s) > now else None


def _readable(key: CollateralKey, store: Cache, now: int, max_age_s: int | None) -> Entry | None:
    """The same; None also where that cannot be told."""
    with contextlib.suppress(ConfigError):
        return _in_force(key, store, now, max_age_s)
    return None


def _absent(
    key: CollateralKey, found: Entry | None, now: int, max_age_s: int | None
) -> AttestationError:
    if found is None:
        return AttestationError(
            f"collateral {key.kind}: found none in the cache, and this works offline",
            reasons=("collateral_missing",),
            hint="fetch it, or import a bundle that has it",
        )
    if max_age_s is not None and found.expires > now:
        detail = (
            f"fetched {now - found.fetched_at} s ago, expected less than {max_age_s} s, and "
            "this works offline"
        )
    else:
        detail = f"it ended {now - found.expires} s ago, and this works offline"
    return AttestationError(
        f"collateral {key.kind}: {detail}",
        reasons=("collateral_expired",),
        hint="fetch it again, or import a newer bundle",
    )


def _code(refusal: AttestationError | MalformedError | UnavailableError) -> str:
    if isinstance(refusal, AttestationError):
        return (refusal.reasons or (refusal.code,))[0]
    if isinstance(refusal, UnavailableError):
        return "collateral_unavailable"
    return "collateral_malformed"
