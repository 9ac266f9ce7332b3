"""Collateral for evidence as it is sent: open it, ask its scheme, resolve under known roots."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from wire.errors import MalformedError

from .anchors import Anchors
from .collateral.resolve import Resolved, joined, resolve
from .collateral.vendors import VENDOR_ROOTS
from .evidence import EVIDENCE_ITEMS_MAX
from .formats.container import parse_container
from .rules.hardware import GPU_KIND, HardwareRule
from .schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .collateral.fetcher import Fetcher
    from .collateral.resolve import Asks, Cache
    from .evidence import Evidence
    from .policy import Policy


def collateral_anchors(policy: Policy) -> Anchors:
    """The roots under which collateral is kept: the vendors', and those the policy names."""
    rules = [rule for rule in policy.accept if isinstance(rule, HardwareRule)]
    return Anchors(VENDOR_ROOTS.pins.union(*(rule.anchors.pins for rule in rules)))


def judged_kinds(policy: Policy, shown: Sequence[str]) -> frozenset[str]:
    """Of the kinds that a worker shows those that an appraisal under this policy looks at.

    The others count for nothing there (`attestation.appraise`, steps 10 and 23), whatever a vendor
    says about them. So no vendor is to be asked, or a stranger would choose what is.

    Args:
        policy: the policy in force.
        shown: kinds of all items of evidence.
    """
    if len(set(shown)) != len(shown) or len(shown) > EVIDENCE_ITEMS_MAX:
        return frozenset()
    rules = [rule for rule in policy.accept if rule.kind in shown]
    kinds = {rule.kind for rule in rules}
    if any(isinstance(rule, HardwareRule) and rule.gpu is not None for rule in rules):
        kinds.add(GPU_KIND)
    return frozenset(kinds.intersection(shown))


def resolve_evidence(
    item: Evidence,
    store: Cache,
    vendors: Asks,
    fetcher: Fetcher | None,
    now: int,
    *,
    max_age_s: int | None = None,
) -> Resolved:
    """What an examination of this evidence will ask for; nothing for kinds that ask nothing.

    Args:
        item: evidence as received; what does not parse asks nothing, and appraisal refuses it.
        store: the cache.
        vendors: how to ask and what to check.
        fetcher: the network, or None to work offline.
        now: Unix seconds.
        max_age_s: greatest age of an entry since it was fetched, as for `resolve`.

    Raises:
        ConfigError: the cache cannot be used.
    """
    scheme = SCHEMES.get(item.kind)
    if scheme is None:
        return _NOTHING
    try:
        roles = parse_container(item.body, *scheme.evidence).roles
    except MalformedError:
        return _NOTHING
    found = resolve(scheme.needs(roles), store, vendors, fetcher, now, max_age_s=max_age_s)
    more = () if scheme.further is None else scheme.further(roles, found.roles)
    if not more:
        return found
    return joined(found, resolve(more, store, vendors, fetcher, now, max_age_s=max_age_s))


_NOTHING = Resolved(MappingProxyType({}), (), complete=True, expires=None)
