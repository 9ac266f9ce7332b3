"""A policy in words: every demand of every rule, the defaults too, under the names a policy has.

Whoever reads the words relies on them instead of the file, so no two policies that demand different
things read alike: nothing is cut, counted or left out. Roots stand for themselves as fingerprints.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from attestation.appraise import trust_of
from attestation.rules.hardware import HardwareRule
from attestation.rules.software import SoftwareRule
from attestation.schemes import SCHEMES
from wire.ids import b64u

from .clock import utc_text
from .policy_members import deny_members, policy_members, rule_members

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.anchors import Anchors
    from attestation.policy import Deny, Policy, Rule

_ROOTS: Final = {False: "the vendor's pinned roots", True: "the policy's own roots: SIMULATED"}
_NOTHING: Final = "none"
_UNASKED: Final = "not asked"
_FLAGS: Final = {True: "true", False: "false"}
# Texts that would read like one of our own words, or like several values, stand in quotes.
_RESERVED: Final = frozenset({_UNASKED, *_FLAGS.values()})
_PLAIN: Final = re.compile(r"[!#-+\x2d-~]+(?: [!#-+\x2d-~]+)*")
# Demands on single attribute bits, which a demand on all 64 of them replaces.
_BITS: Final = ("sept_ve_disable", "migratable", "pks", "kl", "perfmon")
_REPLACED: Final = " (attributes_eq decides)"

Lines = list[tuple[str, str]]


def explain(policy: Policy) -> list[tuple[str, Lines]]:
    """Headings, each with (demand, value) lines; nothing a policy demands is left out."""
    found = [("applies", _applies(policy))]
    for number, rule in enumerate(policy.accept, 1):
        found.append((f"accepts ({number} of {len(policy.accept)}), if all of it holds", _of(rule)))
    found.append(("refuses, whatever else holds", _denied(policy.deny)))
    return found


def _denied(deny: Deny) -> Lines:
    classes = sorted({name.partition(":")[0] for name in deny.identities})
    hidden = f"evidence that hides its {' or '.join(classes)}" if classes else _NOTHING
    return [*_flat("deny", deny_members(deny)), ("hidden", hidden)]


def _applies(policy: Policy) -> Lines:
    return [
        ("id", f"{_word(policy.id)} seq {policy.seq}"),
        ("digest", policy.digest),
        ("valid", f"{utc_text(policy.not_before)} to {utc_text(policy.expires)}"),
        *_flat("", policy_members(policy)),
    ]


def _of(rule: Rule) -> Lines:
    members = rule_members(rule)
    del members["kind"]
    lines = [("kind", f"{rule.kind}, trust {trust_of(rule)}")]
    if not isinstance(rule, HardwareRule):
        keys = isinstance(rule, SoftwareRule)  # no longer than fingerprints
        roots = ", ".join(map(b64u, rule.roots)) if keys else _fingerprints(map(_pin, rule.roots))
        return [*lines, ("roots", roots), *_flat("", members)]
    vendors = bool(SCHEMES[rule.kind].anchors.pins)
    lines += _roots("roots", rule.anchors, map(_pin, rule.roots), vendors=vendors)
    if rule.gpu is None:
        del members["gpu"]
        return [*lines, *_replaced(_flat("", members)), ("gpu", "no GPU evidence is asked for")]
    pins = sorted(rule.gpu_anchors.pins)
    lines += _roots("gpu.roots", rule.gpu_anchors, pins, vendors=True)
    return [*lines, *_replaced(_flat("", members))]


def _replaced(lines: Lines) -> Lines:
    """The lines, with a word on demands that another one of the rule replaces."""
    if dict(lines).get("td.attributes_eq", _UNASKED) == _UNASKED:
        return lines
    bits = {f"td.{name}" for name in _BITS}
    return [(name, text + _REPLACED if name in bits else text) for name, text in lines]


def _roots(name: str, anchors: Anchors, own: Iterable[bytes], *, vendors: bool) -> Lines:
    if vendors and not anchors.simulated:
        return [(name, _ROOTS[False])]
    whose = _ROOTS[True] if anchors.simulated else "those of the makers the policy names"
    return [(name, whose), (f"{name}.own", _fingerprints(own))]


def _pin(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def _fingerprints(pins: Iterable[bytes]) -> str:
    return ", ".join(f"sha256:{pin.hex()}" for pin in pins) or _NOTHING


def _flat(name: str, value: Any) -> Lines:
    """One line a leaf; nested members are named with dots, items that have members by number."""
    if isinstance(value, dict) and value:
        return [line for key in value for line in _flat(_join(name, _name(key)), value[key])]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [
            line
            for number, item in enumerate(value, 1)
            for line in _flat(f"{name}[{number}]", item)
        ]
    return [(name, _text(value))]


def _join(name: str, member: str) -> str:
    return f"{name}.{member}" if name else member


def _text(value: Any) -> str:
    if value is None:
        return _UNASKED
    if isinstance(value, bool):
        return _FLAGS[value]
    if isinstance(value, list):
        return ", ".join(map(_item, value)) or _NOTHING
    if isinstance(value, dict):
        return _NOTHING
    return _word(value) if isinstance(value, str) else str(value)


def _item(value: Any) -> str:
    """Of a list, where "none" would read like an empty one."""
    return json.dumps(value) if value == _NOTHING else _text(value)


def _name(member: str) -> str:
    return _item(member)


def _word(text: str) -> str:
    plain = _PLAIN.fullmatch(text) is not None and text not in _RESERVED
    return text if plain else json.dumps(text)
