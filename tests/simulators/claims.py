"""What an honest worker states about an answer, and the log event of it, from its own binding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attestation.appraise import TRUST
from attestation.binding import parse_binding
from evidence.events import infer_receipt_event
from evidence.receipt import ReceiptClaims, statement_commitment
from wire.ids import bh_of, sha256_tag

if TYPE_CHECKING:
    from attestation.evidence import Evidence


def honest_claims(binding: bytes, evidence: Evidence, **facts: Any) -> ReceiptClaims:
    """Claims that fit the binding and its evidence.

    Args:
        binding: of the worker that answered, as it was published.
        evidence: the item for this binding.
        facts: members of the exchange, which have no default (rid, th, kid, op, t0, t1, req and
            resp), and any that shall be other than usual.
    """
    worker = parse_binding(binding)
    model = worker.models[0]
    usual: dict[str, Any] = {
        "wid": worker.wid,
        "boot": worker.boot,
        "wseq": 1,
        "finish": "stop",
        "trunc": facts.get("finish") == "length",
        "model": model.name,
        "model_digest": model.digest,
        "weights": model.digest,
        "tokenizer": None,
        "template": None,
        "dtype": "float32",
        "engine": "simulated",
        "engine_version": "0.1.0",
        "par": {"max_tokens": 16},
        "tokens_in": 11,
        "tokens_out": 5,
        "bh": bh_of(binding),
        "att_evidence": sha256_tag(evidence.body),
        "att_type": evidence.kind,
        "measurement": worker.image,
        "trust": TRUST.get(evidence.kind, "simulated"),  # vendors' hardware is simulated here
        "service_policy": worker.policy,
    }
    return ReceiptClaims(**(usual | facts))


def receipt_event(claims: ReceiptClaims, statement: bytes, blind: bytes) -> dict[str, Any]:
    """The log's event of a statement: what the gateway may see of it."""
    return infer_receipt_event(
        rid=claims.rid,
        th=claims.th,
        kid=claims.kid,
        wid=claims.wid,
        wseq=claims.wseq,
        model=claims.model,
        tokens_in=claims.tokens_in,
        tokens_out=claims.tokens_out,
        status=claims.finish,
        sc=statement_commitment(statement, blind),
    )
