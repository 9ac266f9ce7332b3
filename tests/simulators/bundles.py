"""Receipt bundles of one honest exchange, with parts exchanged, and what verification says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulators.exchange import NOW, Exchange

from attestation.policy import Policy, parse_policy
from evidence.bundle import build_bundle, verify_bundle

if TYPE_CHECKING:
    from evidence.report import Report

HONEST = Exchange()


def bundled(exchange: Exchange = HONEST, **changes: Any) -> bytes:
    parts: dict[str, Any] = {
        "record": exchange.record,
        "binding": exchange.binding,
        "evidence": [exchange.evidence],
        "posture": None,
        "verdict": exchange.verdict,
        "consistency": (),
        "info": {"model": "tiny", "policy": exchange.policy.digest},
    }
    record = parts["record"]
    if "logged" in changes:
        record = replace(record, logged=changes.pop("logged"))
    return build_bundle(**(parts | {"record": record} | changes))


def judged(raw: bytes, policy: Policy = HONEST.policy, now: int = NOW) -> Report:
    return verify_bundle(raw, policy, now)


def failed(report: Report) -> set[str]:
    return {check.id for check in report.checks if check.ok is False}


def not_run(report: Report) -> set[str]:
    return {check.id for check in report.checks if check.ok is None}


def policy(**changes: Any) -> Policy:
    return parse_policy(json.dumps(json.loads(HONEST.policy_raw) | changes).encode())
