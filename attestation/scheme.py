"""A scheme: everything this library knows about one kind of hardware evidence.

Four jobs, four places: `formats` parses, `verify` checks signatures, `rules` states and judges
what a policy demands, `collect` runs in the guest. A scheme ties the first three together under
one name; it is data, so that the table of kinds can be read in one place (`attestation.schemes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .anchors import Anchors
    from .examined import Examined, Question
    from .ledger import Ledger
    from .members import Members
    from .result import Trust


@dataclass(frozen=True, slots=True)
class Need:
    """One piece of collateral that an examination will ask for.

    Attributes:
        role: the name under which `Question.collateral` holds it.
        source: the vendor service, such as "amd-kds"; never a host name.
        key: what to ask it for, built only from checked fields (hex, numbers, closed words).
        required: whether examination fails without it.
    """

    role: str
    source: str
    key: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of evidence.

    Attributes:
        kind: its name in evidence items and policies.
        trust: what an accepted verdict may be called if the vendor's own roots vouch for it.
        evidence: role names of the evidence: (required, optional).
        collateral: role names of collateral it can use.
        anchors: the vendor's pinned roots, or `NONE` where a policy must name roots.
        examine: pure; data never raises.
        needs: collateral for this evidence (role to bytes); data never raises, at worst ().
        rule: the policy rule in an `accept` item; raises `PolicyError`.
        judge: runs the state's steps into a ledger: (ledger, examined.facts, rule, now). Called
            for evidence that parsed, authentic or not, so that all reasons are known. Returns the
            Unix second at which what it alone read ends, None where `examined.not_after` says all.
            `now` is when the binding began instead, at the latest, where the scheme is `aged`.
        carries: (facts, the worker measurement's 32 bytes): returns what was relied on if a
            register proves exactly this measurement, by the rule of docs/spec/evidence.md §2;
            raises `AttestationError` otherwise. None: the kind has no place for one, so it can
            only accompany another kind.
        rule_keys: the (required, optional) keys of the rule besides those all rules share.
        own: (a rule's demands, its own roots in DER) to the collateral roles that are the relying
            party's own word, empty where the rule says nothing. In an appraisal the policy alone
            fills these roles: collateral is carried by whoever sends the evidence, and would
            choose its own judge. None: the vendor's statements speak for themselves.
        further: (evidence, collateral at hand for `needs`) to needs that only this collateral
            names, such as answers about a manifest's signer; data never raises. None: none ever.
        aged: whether `judge` asks how old the evidence is, and nothing else that time changes:
            evidence is made once for a binding, whose own end bounds its use. A worker chooses
            when its binding begins, so whatever the world learned since is never judged by it.
    """

    kind: str
    trust: Trust
    evidence: tuple[tuple[str, ...], tuple[str, ...]]
    collateral: tuple[str, ...]
    anchors: Anchors
    examine: Callable[[Question], Examined]
    needs: Callable[[Mapping[str, bytes]], tuple[Need, ...]]
    rule: Callable[[Members], Any]
    judge: Callable[[Ledger, Any, Any, int], int | None]
    carries: Callable[[Any, bytes], str] | None
    rule_keys: tuple[tuple[str, ...], tuple[str, ...]]
    own: Callable[[Any, tuple[bytes, ...]], Mapping[str, bytes]] | None = None
    further: Callable[[Mapping[str, bytes], Mapping[str, bytes]], tuple[Need, ...]] | None = None
    aged: bool = False
