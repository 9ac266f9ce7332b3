"""A policy in words: every demand of every rule, the defaults too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.rules.hardware import HardwareRule
from attestation.schemes import SCHEMES
from wire.excerpt import cut

from .clock import utc_text

if TYPE_CHECKING:
    from attestation.policy import Deny, Policy, Rule

_SHOWN: Final = 4  # values named before the rest is counted
_TEXT_MAX: Final = 72
_ROOTS: Final = {False: "the vendor's pinned roots", True: "the policy's own roots: SIMULATED"}

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
    hidden = f"evidence that hides its {' or '.join(classes)}" if classes else "none"
    return [*_flat("", deny), ("hidden", hidden)]


def _applies(policy: Policy) -> Lines:
    lines = [
        ("id", f"{policy.id} seq {policy.seq}"),
        ("digest", policy.digest),
        ("valid", f"{utc_text(policy.not_before)} to {utc_text(policy.expires)}"),
    ]
    skipped = {"id", "seq", "digest", "not_before", "expires", "accept", "deny"}
    for item in fields(policy):
        if item.name not in skipped:
            lines += _flat(item.name, getattr(policy, item.name))
    return lines


def _of(rule: Rule) -> Lines:
    if not isinstance(rule, HardwareRule):
        return _flat("", rule)
    lines = [
        ("kind", f"{rule.kind}, trust {SCHEMES[rule.kind].trust}"),
        ("roots", _roots(rule.anchors.simulated, bool(SCHEMES[rule.kind].anchors.pins))),
        *_flat("measurements", rule.measurements),
        *_flat("posture", rule.posture),
        *_flat("state", rule.demands),
    ]
    if rule.gpu is None:
        return [*lines, ("gpu", "no GPU evidence is asked for")]
    return [
        *lines,
        ("gpu.roots", _roots(rule.gpu_anchors.simulated, pinned=True)),
        *_flat("gpu", rule.gpu),
    ]


def _roots(simulated: bool, pinned: bool) -> str:
    return _ROOTS[simulated] if pinned or simulated else "those of the makers the policy names"


def _flat(name: str, value: Any) -> Lines:
    """One line a leaf; nested members are named with dots."""
    if is_dataclass(value) and not isinstance(value, type):
        return [
            line
            for item in fields(value)
            for line in _flat(_join(name, item.name), getattr(value, item.name))
        ]
    if isinstance(value, Mapping) and value:
        return [line for key in value for line in _flat(_join(name, str(key)), value[key])]
    if isinstance(value, tuple) and value and all(is_dataclass(item) for item in value):
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
        return "not asked"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return value.hex()[:_TEXT_MAX]
    if isinstance(value, frozenset | tuple | list):
        shown = (
            sorted(map(_text, value)) if isinstance(value, frozenset) else list(map(_text, value))
        )
        more = len(shown) - _SHOWN
        text = ", ".join(shown[:_SHOWN]) or "none"
        return f"{text} and {more} more" if more > 0 else text
    if isinstance(value, Mapping):
        return "none"
    return cut(str(value), _TEXT_MAX)
