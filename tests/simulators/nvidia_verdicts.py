"""Verdicts on what simulated NVIDIA devices show, alone or as the list of a node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from attestation.examined import Examined, Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import nvidia_gpu, nvidia_list, nvidia_switch
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .nvidia import Nvidia
    from .nvidia_device import Device

NONCE: Final = bytes(range(32))
# A rule must say all of these; this one demands nothing more than a Hopper.
LEAST: Final[dict[str, Any]] = {
    "architectures": ["HOPPER"],
    "models": "any",
    "driver_in": "any",
    "vbios_in": "any",
    "modes": "any",
    "rim": "not_checked",
    "ocsp": "not_checked",
}


def examine(device: Device, nonce: bytes | None = NONCE, **changes: Any) -> Examined:
    """The verdict on one device under its own vendor's roots; `changes` are of the question."""
    scheme = nvidia_switch.SCHEME if device.architecture == "LS10" else nvidia_gpu.SCHEME
    facts: dict[str, Any] = {
        "evidence": {"evidence": device.report(NONCE), "cert_chain": device.chain()},
        "anchors": device.vendor.anchors,
        "now": device.vendor.now,
        "expected": Expected(nonce=nonce, arch=device.architecture),
        **changes,
    }
    return scheme.examine(Question(**facts))


def examine_list(vendor: Nvidia, raw: bytes, **changes: Any) -> Examined:
    """The verdict on a list of devices."""
    facts: dict[str, Any] = {
        "evidence": {"evidence_list": raw},
        "anchors": vendor.anchors,
        "now": vendor.now,
        "expected": Expected(nonce=NONCE),
        **changes,
    }
    return nvidia_list.SCHEME.examine(Question(**facts))


def stated(devices: Sequence[Device], number: int, **facts: Any) -> bytes:
    """The list with one entry that states these facts."""
    entries = [device.entry(NONCE) for device in devices]
    entries[number] |= facts
    return json.dumps(entries).encode()


def judge_list(examined: Examined, vendor: Nvidia, **changes: Any) -> list[str]:
    """Why a rule for three GPUs, or one so changed, refuses this list."""
    required, optional = nvidia_list.SCHEME.rule_keys
    demands = {**LEAST, "count": 3, **changes}
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    nvidia_list.SCHEME.judge(ledger, examined.facts, nvidia_list.SCHEME.rule(members), vendor.now)
    return [reason.code for reason in ledger.reasons]
