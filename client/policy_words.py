"""A policy in words: every demand of every rule, the defaults too.

Whoever reads the words relies on them instead of the file, so no two policies that demand different
things read alike: nothing is cut, counted or left out. Roots stand for themselves as fingerprints.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.appraise import trust_of
from attestation.rules.hardware import HardwareRule
from attestation.rules.tpm import TpmRule
from attestation.schemes import SCHEMES

from .clock import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.anchors import Anchors
    from attestation.policy import Deny, Policy, Rule

_ROOTS: Final = {False: "the vendor's pinned roots", True: "the policy's own roots: SIMULATED"}
_NOTHING: Final = "none"
_UNASKED: Final = "not asked"
_FLAGS: Final = {True: "yes", False: "no"}
# Texts that would read like one of our own words, or like several values, stand in quotes.
_RESERVED: Final = frozenset({_NOTHING, _UNASKED, *_FLAGS.values()})
_PLAIN: Final = re.compile(r"[!#-+\x2d-~]+(?: [!#-+\x2d-~]+)*")

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
    return [*_flat("", deny), ("hidden", hidden)]


def _applies(policy: Policy) -> Lines:
    lines = [
        ("id", f"{_word(policy.id)} seq {policy.seq}"),
        ("digest", policy.digest),
        ("valid", f"{utc_text(policy.not_before)} to {utc_text(policy.expires)}"),
    ]
    skipped = {"id", "seq", "digest", "not_before", "expires", "accept", "deny"}
    for item in fields(policy):
        if item.name not in skipped:
            lines += _flat(item.name, getattr(policy, item.name))
    return lines


def _of(rule: Rule) -> Lines:
    kind = ("kind", f"{rule.kind}, trust {trust_of(rule)}")
    if not isinstance(rule, HardwareRule):
        lines = [
            line
            for item in fields(rule)
            if item.name not in ("kind", "roots")
            for line in _flat(item.name, getattr(rule, item.name))
        ]
        certified = isinstance(rule, TpmRule)  # the others are keys, no longer than fingerprints
        roots = _fingerprints(map(_pin, rule.roots)) if certified else _text(rule.roots)
        return [kind, ("roots", roots), *lines]
    vendors = bool(SCHEMES[rule.kind].anchors.pins)
    lines = [
        kind,
        *_roots("roots", rule.anchors, map(_pin, rule.roots), vendors=vendors),
        *_flat("measurements", rule.measurements),
        *_flat("posture", rule.posture),
        *_flat("state", rule.demands),
    ]
    if rule.gpu is None:
        return [*lines, ("gpu", "no GPU evidence is asked for")]
    pins = sorted(rule.gpu_anchors.pins)
    return [
        *lines,
        *_roots("gpu.roots", rule.gpu_anchors, pins, vendors=True),
        *_flat("gpu", rule.gpu),
    ]


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
    if is_dataclass(value) and not isinstance(value, type):
        return [
            line
            for item in fields(value)
            for line in _flat(_join(name, item.name), getattr(value, item.name))
        ]
    if isinstance(value, Mapping) and value:
        return [line for key in value for line in _flat(_join(name, _word(str(key))), value[key])]
    if isinstance(value, tuple | list) and any(map(_has_members, value)):
        return [
            line
            for number, item in enumerate(value, 1)
            for line in _flat(f"{name}[{number}]", item)
        ]
    return [(name, _text(value))]


def _has_members(value: Any) -> bool:
    return is_dataclass(value) or isinstance(value, Mapping | tuple | list)


def _join(name: str, member: str) -> str:
    return f"{name}.{member}" if name else member


def _text(value: Any) -> str:
    if value is None:
        return _UNASKED
    if isinstance(value, bool):
        return _FLAGS[value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(_text, value))) or _NOTHING
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value)) or _NOTHING
    if isinstance(value, Mapping):
        return _NOTHING
    return _word(value) if isinstance(value, str) else str(value)


def _word(text: str) -> str:
    plain = _PLAIN.fullmatch(text) is not None and text not in _RESERVED
    return text if plain else json.dumps(text)
