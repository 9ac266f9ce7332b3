"""Step 8 of `verify`: live evidence, made for a nonce of ours while we wait.

What the directory lists was made some time ago; a worker that answers a fresh nonce holds its keys
and runs its attester now. The gateway relays the question and the answer; neither is trusted.

1. ask with a fresh nonce, and a credential where the kind of evidence needs one activated
2. the binding that came back is the listed one, with       binding_malformed, live_mismatch
   nothing but the nonce replaced
3. evidence and posture are accepted under the same         the codes of `attestation.appraise`,
   policy, for that nonce                                   nonce_mismatch among them
4. with the listed evidence judged too (step 9 of           live_mismatch
   `verify`): both are of one kind
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.appraise import appraise
from attestation.binding import NONCE_LEN, Binding, parse_binding
from attestation.evidence import evidence_list
from attestation.posture import CONTAINER_MAX
from attestation.result import AppraisedEvidence
from attestation.verify.credential import challenge_for
from wire.canonical import encode
from wire.errors import AttestationError, MalformedError, ProtocolFailure
from wire.excerpt import shown
from wire.ids import b64u, bh_of, is_wid
from wire.limits import BINDING_MAX

from .commands import Fetch, Steps, fetch
from .served import json_body, json_object
from .workers import blob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attestation.evidence import Evidence
    from attestation.policy import Policy
    from attestation.verify.credential import Activation, Challenge

    from .report import Report
    from .workers import BindingDocument

LIVE_REPLY_MAX: Final = 2 * 1024 * 1024  # four pieces of evidence, a binding, a posture record


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """Evidence made for our nonce, accepted.

    Attributes:
        verdict: over the nonce-bound binding.
        activation: our finished credential challenge, or None where the kind needs none.
    """

    verdict: AppraisedEvidence
    activation: Activation | None

    def check_kind(self, listed: AppraisedEvidence) -> None:  # 4
        """The listed evidence must not be of a stronger kind than what was shown live."""
        if self.verdict.kind != listed.kind:
            raise _refused(
                "live_mismatch",
                f"live evidence: found kind {self.verdict.kind}, expected {listed.kind} as listed",
            )


@dataclass(frozen=True, slots=True)
class _Shown:
    """What came back: nothing verified."""

    binding: bytes
    evidence: Sequence[Evidence]
    posture: bytes | None
    answer: object


@dataclass(frozen=True, slots=True)
class LiveChallenge:
    """Asks workers for live evidence under one policy.

    Attributes:
        always: ask for every kind; otherwise only for kinds that need credential activation, of
            which listed evidence alone proves nothing.
    """

    policy: Policy
    clock: Callable[[], int]
    rng: Callable[[int], bytes]
    always: bool

    def run(
        self, document: BindingDocument, report: Report, prefix: str
    ) -> Steps[LiveEvidence | None]:
        """The worker's live evidence; None where it is not asked.

        Args:
            document: what was served for the listed binding, hash checked.
            report: gets every check of the live appraisal, under `prefix`.

        Raises:
            AttestationError: the answer is not this worker's, or not accepted; with the reasons.
            GatewayError: nobody answered.
            ProtocolFailure: the answer is no such document.
        """
        asked, challenge = self._question(document.evidence)
        if not asked or (challenge is None and not self.always):
            return None
        listed = _parse(document.binding)
        nonce = self.rng(NONCE_LEN)
        answer = yield from _ask(listed, document.binding, nonce, challenge)  # 1
        check_same(listed, _parse(answer.binding))  # 2
        activation = None if challenge is None else challenge.activation(answer.answer)
        result = appraise(  # 3
            answer.binding,
            answer.evidence,
            answer.posture,
            self.policy,
            self.clock(),
            activation=activation,
            collateral=document.collateral,  # vendors speak of platforms, not of bindings
            nonce=nonce,  # proves more than the beacon, which step 9 dates all the same
        )
        report.include(result.checks, prefix)
        if not isinstance(result, AppraisedEvidence):
            first = result.reasons[0]
            raise AttestationError(f"live evidence: {first.detail}", reasons=result.codes)
        return LiveEvidence(result, activation)

    def _question(self, evidence: Sequence[Evidence]) -> tuple[bool, Challenge | None]:
        """Whether any evidence can be judged, and the challenge of the first that needs one.

        Evidence of other kinds, or that cannot be challenged, is refused with its reason when the
        listed evidence is appraised.
        """
        accepted = {rule.kind for rule in self.policy.accept}
        judged = False
        for item in evidence:
            if item.kind not in accepted:
                continue
            try:
                challenge = challenge_for(item, self.rng)
            except (AttestationError, MalformedError):
                continue
            judged = True
            if challenge is not None:
                return True, challenge
        return judged, None


def check_same(listed: Binding, live: Binding) -> None:
    """Compare a listed binding with its nonce-bound form: every other member must be equal.

    Raises:
        AttestationError: `live_mismatch`, naming the members.
    """
    names = [name for name in Binding.__slots__ if name not in ("nonce", "raw")]
    other = [name for name in names if getattr(listed, name) != getattr(live, name)]
    if other:
        raise _refused(
            "live_mismatch",
            f"live binding: found another {', '.join(other)}, expected the listed binding with "
            "only its nonce replaced",
        )


def _ask(listed: Binding, raw: bytes, nonce: bytes, challenge: Challenge | None) -> Steps[_Shown]:
    request: dict[str, Any] = {
        "nonce": b64u(nonce),
        "bh": b64u(bh_of(raw)),
        "credential": None if challenge is None else challenge.credential.to_json(),
    }
    path = f"/v1/workers/{_segment(listed.wid)}/challenge"
    ask = Fetch("POST", path, LIVE_REPLY_MAX, encode(request), "application/json")
    reply = json_object(json_body((yield from fetch(ask))), "challenge")
    try:
        return _Shown(
            blob(reply, "binding", BINDING_MAX),
            evidence_list(reply.get("evidence")),
            None if reply.get("posture") is None else blob(reply, "posture", CONTAINER_MAX),
            reply.get("answer"),
        )
    except MalformedError as error:
        raise ProtocolFailure(f"challenge: {error.message}") from error


def _parse(raw: bytes) -> Binding:
    try:
        return parse_binding(raw)
    except MalformedError as error:
        raise _refused("binding_malformed", error.message) from error


def _segment(wid: str) -> str:
    """A worker id as one path segment; the binding is not yet trusted: refuse anything else."""
    if not is_wid(wid):
        raise _refused(
            "binding_malformed",
            f"wid: found {shown(wid)}, expected 1 to 64 ASCII letters, digits, '-', '_', '.', and "
            "not dots alone",
        )
    return wid


def _refused(code: str, message: str) -> AttestationError:
    return AttestationError(message, reasons=(code,))
