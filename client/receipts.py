"""Checking a receipt against the exchange it is about, and keeping it for others to check.

 1. statement under the attested worker key; log entry, inclusion, checkpoint   (evidence.record)
 2. it names this request, this key, this worker and this process start
 3. it was made in this request's time
 4. it names what was asked: operation, model (name and attested digest), service policy
 5. it names the evidence, measurement and trust that were appraised
 6. its request commitments open to what was sent; its ciphertext hash is ours
 7. its answer commitments open to what was received; its ciphertext hash is one of ours
 8. it ended for the reason we were told
 9. the log that holds it grew from the log we know

Steps 2 to 8 are the client's alone: nobody else knows the salts and the text. What is left for a
third party is in the bundle, which holds no text and no salt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evidence.bundle import build_bundle
from evidence.commit import commit_segments, request_segments
from evidence.record import ReceiptRecord, VerifiedReceipt, parse_record, verify_record
from wire.errors import ReceiptError
from wire.ids import b64u, sha256_tag, unb64u
from wire.limits import CLOCK_SKEW_S

from .commands import Steps, exclusive
from .files import make_file
from .opening import Opening
from .report import Report
from .served import proof

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.result import Check, Trust
    from wire.envelope import SealedRequest

    from .calls import Call
    from .verify import Verifier
    from .workers import VerifiedWorker

RECEIPT: Final = "receipt"  # what messages call the file
_MS: Final = 1000
STEPS: Final = (
    "1 signature, log entry, checkpoint",
    "2 names this request and worker",
    "3 made in this request's time",
    "4 names what was asked",
    "5 names the appraised evidence",
    "6 commits to what was sent",
    "7 commits to what was received",
    "8 ended as told",
    "9 log grew from the one we know",
)


@dataclass(frozen=True, slots=True)
class Heard:
    """One finished exchange, as this side of it knows it.

    Attributes:
        record: payload of the RECEIPT record.
        salt_r: salt of the answer's commitments.
        segments: what each choice said, in order, as the statement commits to it.
        finishes: why each choice ended.
        ciphertexts: what the statement may call the answer's frames: SHA-256 over all but the
            final one, and for a stream also over each non-empty prefix of them, since its
            statement is signed while padding is still being sent.
        log_size: size of the log head known when the request was sent.
        logprobs: of the chosen tokens of each choice, where they were told.
    """

    call: Call
    sealed: SealedRequest
    worker: VerifiedWorker
    record: bytes = field(repr=False)
    salt_r: bytes = field(repr=False)
    segments: tuple[tuple[int, bytes], ...] = field(repr=False)
    finishes: tuple[str, ...]
    ciphertexts: frozenset[bytes]
    log_size: int
    logprobs: tuple[tuple[float, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt every step of which passed.

    Attributes:
        rid: text form of the request id.
        trust: what stands behind the worker that signed it.
        claims: the signed statement.
        checks: the nine steps.
        index: position of its entry in the log.
        log_size: size of the log head that proves it.
        bundle: file contents for `anchorhold receipt verify`; no prompt, answer or salt in it.
        opening: prompt, answer and salts, for whoever is to open the receipt; content.
    """

    rid: str
    trust: Trust
    claims: Mapping[str, Any] = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)
    index: int
    log_size: int
    bundle: bytes = field(repr=False)
    opening: Opening = field(repr=False)

    @property
    def usage(self) -> dict[str, int]:
        """Signed token counts as OpenAI spells them."""
        used = self.claims["use"]
        tokens_in, tokens_out = int(used["in"]), int(used["out"])
        return {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }

    @property
    def cached_tokens(self) -> int:
        """Signed count of the tokens that came from the prefix cache."""
        return int(self.claims["use"]["cached"])

    def save(self, path: Path | str) -> Path:
        """Write the bundle into a new file (mode 0600, whole or not at all); returns the path.

        Raises:
            ConfigError: there is something of that name, or it cannot be written.
        """
        target = Path(path)
        make_file(target, self.bundle, RECEIPT, hint="name another file: none is replaced")
        return target


def check_receipt(verifier: Verifier, heard: Heard) -> Steps[Receipt]:
    """Steps 1 to 9, then the bundle.

    Raises:
        ReceiptError: steps 1 to 8.
        RollbackError, ForkError: step 9.
    """
    policy, worker, report = verifier.policy, heard.worker, Report()
    assert policy.log_origin is not None, "a directory was verified"
    with report.step(STEPS[0]) as detail:
        record = parse_record(heard.record)
        verified = verify_record(record, worker.sig_pk, policy.log_origin, policy.log_vkeys)
        head = verified.entry.checkpoint
        detail.text = f"index {verified.entry.index}, log size {head.size}"
    claims = verified.claims
    with report.step(STEPS[1]):
        _same(claims, _identity(heard))
    with report.step(STEPS[2]):
        _check_time(claims, heard, verifier.clock())
    with report.step(STEPS[3]):
        _same(claims, {"op": heard.call.op})
        _same(claims["model"], {"name": heard.call.model, "digest": _model_digest(heard)})
        if claims["par"].get("adapter", "") != heard.call.adapter:
            raise ReceiptError("receipt: the adapter that was asked for expected")
        _same(claims["pol"], {"service": heard.sealed.header.policy})
    with report.step(STEPS[4]) as detail:
        _same(claims["att"], _attested(worker))
        detail.text = f"trust {worker.trust}"
    with report.step(STEPS[5]):
        sent = request_segments(heard.call.members)
        _check_side(claims["req"], heard.sealed.keys.salt_q, sent, {heard.sealed.ct_hash})
    with report.step(STEPS[6]):
        _check_side(claims["resp"], heard.salt_r, heard.segments, heard.ciphertexts)
    with report.step(STEPS[7]) as detail:
        if _finish(heard.finishes) != claims["finish"]:
            raise ReceiptError("receipt: the finish reason of the answer expected")
        detail.text = str(claims["finish"])
    with report.step(STEPS[8]) as detail:
        yield from exclusive(verifier.directory.extend(head, heard.log_size))
        detail.text = f"size {heard.log_size} to {head.size}"
    bundle = yield from _bundle(heard, record, verified)
    return Receipt(
        rid=b64u(heard.sealed.header.rid),
        trust=worker.trust,
        claims=claims,
        checks=tuple(report.checks),
        index=verified.entry.index,
        log_size=head.size,
        bundle=bundle,
        opening=_opening(heard),
    )


def _opening(heard: Heard) -> Opening:
    return Opening(
        rid=b64u(heard.sealed.header.rid),
        path=heard.call.path,
        body=heard.call.body,
        salt_q=heard.sealed.keys.salt_q,
        salt_r=heard.salt_r,
        answer=heard.segments,
        logprobs=heard.logprobs,
    )


def _finish(finishes: Sequence[str]) -> str:
    """The one finish of an answer: length where any of its choices was cut."""
    for reason in ("length", "stop"):
        if reason in finishes and set(finishes) <= {"length", "stop"}:
            return reason
    return ""


def _identity(heard: Heard) -> dict[str, str]:
    binding, sealed = heard.worker.appraised.binding, heard.sealed
    return {
        "rid": b64u(sealed.header.rid),
        "th": b64u(sealed.th),
        "kid": b64u(heard.worker.kid),
        "wid": binding.wid,
        "boot": b64u(binding.boot),
    }


def _model_digest(heard: Heard) -> str:
    """The files that the attested binding says stand behind the model's name."""
    for model in heard.worker.appraised.binding.models:
        if model.name == heard.call.model:
            return model.digest
    raise ReceiptError("receipt: a model of the attested binding expected")


def _attested(worker: VerifiedWorker) -> dict[str, str]:
    appraised = worker.appraised
    bodies = {item.kind: item.body for item in worker.document.evidence}
    return {
        "bh": b64u(worker.bh),
        "evidence": sha256_tag(bodies[appraised.kind]),
        "type": appraised.kind,
        "measurement": appraised.measurement,
        "trust": appraised.trust,
    }


def _same(found: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    for name, value in expected.items():
        if found[name] != value:
            raise ReceiptError(f"receipt: {name} of this exchange expected, found another")


def _check_time(claims: Mapping[str, Any], heard: Heard, now: int) -> None:
    """The worker's clock may be off by as much as any honest clock, no more."""
    begin, end = claims["t0"] // _MS, claims["t1"] // _MS
    if begin < heard.sealed.header.iat - CLOCK_SKEW_S or end > now + CLOCK_SKEW_S:
        raise ReceiptError(
            f"receipt: time between {heard.sealed.header.iat} and {now} expected, "
            f"found {begin} to {end}"
        )


def _check_side(
    side: Mapping[str, Any],
    salt: bytes,
    segments: Sequence[tuple[int, bytes]],
    ciphertexts: frozenset[bytes] | set[bytes],
) -> None:
    if side["n"] != len(segments) or unb64u(side["c"]) != commit_segments(salt, segments):
        raise ReceiptError("receipt: commitments to the text of this exchange expected")
    if unb64u(side["ct"]) not in ciphertexts:
        raise ReceiptError("receipt: hash of the ciphertext of this exchange expected")


def _bundle(heard: Heard, record: ReceiptRecord, verified: VerifiedReceipt) -> Steps[bytes]:
    """The file for third parties: worker and receipt, proved under two heads of one log."""
    document = heard.worker.document
    old, new = sorted((heard.worker.verdict.checkpoint.size, verified.entry.checkpoint.size))
    path: tuple[bytes, ...] = ()
    if old != new:
        path = yield from proof(f"/v1/log/consistency?first={old}&second={new}")
    return build_bundle(
        record,
        binding=document.binding,
        evidence=document.evidence,
        collateral=document.collateral,
        posture=document.posture,
        verdict=document.verdict,
        beacon=document.beacon,
        consistency=path,
        info={"model": heard.call.model, "trust": heard.worker.trust},
    )
