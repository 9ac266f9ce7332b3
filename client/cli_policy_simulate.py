"""`anchorhold policy simulate POLICY RECORD…`: what would this policy say to these workers?"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestation.appraise import appraise
from attestation.result import AppraisedEvidence, Refused
from wire.errors import ConfigError, MalformedError, ReceiptError
from wire.limits import TIME_MAX

from .cli_options import add_command, add_json, add_policy_key, policy_keys
from .cli_terminal import say
from .clock import utc_text, wall_clock
from .files import read_file
from .recorded import RECORDED_MAX, Recorded, parse_recorded
from .report import EXIT_BELOW_POLICY, EXIT_OK
from .session import load_policy

if TYPE_CHECKING:
    import argparse

    from attestation.policy import Policy

EXAMPLES = """\
anchorhold policy simulate next.json worker-1.json worker-2.json
anchorhold policy simulate next.json receipts/*.json --at recorded
anchorhold policy simulate next.json worker-1.json --at 2026-11-01T00:00:00Z"""
RECORDED = "recorded"


def register(actions: Any) -> None:
    """Add the command under `policy`."""
    text = "say what a policy would say to recorded evidence"
    parser = add_command(actions, "simulate", text, EXAMPLES)
    parser.add_argument("policy", type=Path, metavar="POLICY", help="policy file")
    parser.add_argument(
        "records",
        type=Path,
        nargs="+",
        metavar="RECORD",
        help="worker document (GET /v1/keys/BH) or receipt bundle",
    )
    parser.add_argument(
        "--at",
        default="now",
        metavar="TIME",
        help="judge at this time: now, recorded (each at its own), or YYYY-MM-DDThh:mm:ssZ",
    )
    add_policy_key(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 all accepted, 3 at least one refused, 4 a file that is neither policy nor record."""
    policy = load_policy(args.policy, policy_keys(args))
    shown = [(path, _read(path)) for path in args.records]
    times = [_time(args.at, record) for _, record in shown]
    verdicts = [
        (path, at, _judge(policy, record, at))
        for (path, record), at in zip(shown, times, strict=True)
    ]
    accepted = sum(isinstance(verdict, AppraisedEvidence) for _, _, verdict in verdicts)
    if args.json:
        records = [_document(path, at, verdict) for path, at, verdict in verdicts]
        summary = {"policy": policy.digest, "accepted": accepted, "records": records}
        print(json.dumps({"ok": accepted == len(verdicts), **summary}, indent=2))
    else:
        say(f"policy {policy.id} seq {policy.seq} {policy.digest}")
        for path, at, verdict in verdicts:
            say("\n".join(_lines(path, at, verdict)))
        say(f"{accepted} of {len(verdicts)} accepted")
    return EXIT_OK if accepted == len(verdicts) else EXIT_BELOW_POLICY


def _read(path: Path) -> Recorded:
    raw = read_file(path, RECORDED_MAX, "record")
    try:
        return parse_recorded(raw)
    except (MalformedError, ReceiptError) as error:
        raise ConfigError(
            f"record file {path}: {error.message}",
            hint="name a receipt bundle, or what GET /v1/keys/BH of a gateway served",
        ) from error


def _time(text: str, record: Recorded) -> int:
    if text == "now":
        return wall_clock()
    if text == RECORDED:
        made = record.made_at()
        return wall_clock() if made is None else made
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigError(
            f"--at: found {text[:40]!r}, expected now, recorded, or a time with its zone",
            hint="for example 2026-11-01T00:00:00Z",
        )
    seconds = int(at.timestamp())
    if not 0 <= seconds <= TIME_MAX:  # of its zone; every certificate is dated in UTC
        raise ConfigError(
            f"--at: found {text[:40]!r}, expected a time from 1970-01-01T00:00:00Z to "
            f"{utc_text(TIME_MAX)}",
            hint="for example 2026-11-01T00:00:00Z",
        )
    return seconds


def _judge(policy: Policy, record: Recorded, at: int) -> AppraisedEvidence | Refused:
    return appraise(
        record.binding,
        record.evidence,
        record.posture,
        policy,
        at,
        beacon_time=record.beacon_time(policy),
        collateral=record.collateral,
    )


def _lines(path: Path, at: int, verdict: AppraisedEvidence | Refused) -> list[str]:
    if isinstance(verdict, AppraisedEvidence):
        return [f"accept  {path.name}  at {utc_text(at)}  {verdict.kind}, trust {verdict.trust}"]
    lines = [f"refuse  {path.name}  at {utc_text(at)}"]
    return lines + [f"        {reason.code}: {reason.detail}" for reason in verdict.reasons]


def _document(path: Path, at: int, verdict: AppraisedEvidence | Refused) -> dict[str, Any]:
    accepted = isinstance(verdict, AppraisedEvidence)
    reasons = [] if isinstance(verdict, AppraisedEvidence) else verdict.reasons
    return {
        "file": str(path),
        "at": utc_text(at),
        "accepted": accepted,
        "trust": verdict.trust if isinstance(verdict, AppraisedEvidence) else None,
        "reasons": [{"code": r.code, "step": r.step, "detail": r.detail} for r in reasons],
        "claims": {kind: dict(claims) for kind, claims in verdict.claims.items()},
    }
