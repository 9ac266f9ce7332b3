"""Admission of a worker: from the bytes it sent to an `Epoch`, or to reasons for refusing it.

The verdict is written to the evidence log before the worker hears of it, also when it is no: from
step 3 on, but not where keys were not shown. Who sends bytes that mean nothing must not make a log
grow that is kept for ever; those are counted, and so are refusals beyond `REFUSALS_PER_MINUTE`.
An accepted worker always gets its entry: an honest one too comes again whenever its link breaks.

 1. HELLO has exactly the agreed members           (malformed: the link is closed, nothing to log)
 2. the binding parses, and its key signed this connection's nonce with the binding's hash:
    whoever sends it holds the key                  binding_malformed, hello_signature
 3. the name is the binding's, and of names' form   wid_malformed
 4. the binding answers no challenge: who asked for
    one chose its bytes; no client takes it         nonce_unexpected
 5. new keys come from the process already admitted session_mismatch
 6. the binding is not denied here                  denied
 7. the worker opened a secret that we sealed to
    each key the binding lists: it holds them all   possession_unproven
 8. evidence that needs it proves, by credential
    activation we ran ourselves, whose TPM it is    activation_missing, activation_mismatch
 9. the vendors' statements about it are at hand    collateral_missing, and what its kind says
10. `attestation.appraise` accepts all of it under the gateway's own policy
11. the verdict is durable in the evidence log
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attestation.binding import Beacon, Binding, parse_binding
from attestation.evidence import Evidence, evidence_list
from attestation.posture import CONTAINER_MAX
from attestation.result import AppraisedEvidence, Refused
from attestation.verify.credential import Activation, Challenge, challenge_for
from evidence.beacon import snapshot_time
from evidence.events import parse_event
from wire.errors import AttestationError, MalformedError, ReceiptError
from wire.ids import b64u, bh_of, is_wid, unb64u
from wire.limits import BINDING_MAX
from wire.link import ACTIVATE, PROVE, MessageType, hello_bytes
from wire.possession import ANSWER_LEN, ask_possession
from wire.wraps import Candidate

from .allowance import Allowance
from .appraiser import Appraiser, Presented
from .asker import Asker
from .attributes import Attr, digest_text
from .clock import Clock
from .found import Collected
from .ledger import Ledger
from .metrics import Metric
from .session import Epoch, Session, verify_signature
from .telemetry import SpanName, Telemetry
from .turns import Turns
from .verdicts import log_verdict

#: Judged at once, of one process one less. Each takes a thread for up to a tenth of a second: those
#: that read deny lists and judge admitted workers again must not wait for a thousand strangers.
APPRAISALS = 3
#: Refusals written to the log, of all who ask; three minutes' worth at once. A key costs a stranger
#: nothing, an entry is kept for ever: two hundred of five kB in a second, if nobody counted.
REFUSALS_PER_MINUTE = 10
_LOG = "evidence-log"
#: Refusals of steps 2 and 7: whose doing it is has not been shown.
_NOBODY = ("binding_malformed", "hello_signature", "possession_unproven")
_MEMBERS = {"wid", "binding", "evidence", "posture", "sig", "activation"}

#: Asks the worker a question and returns its answer; nothing in it is checked.
Ask = Callable[[MessageType, dict[str, Any]], Awaitable[object]]
#: Finds the vendors' statements about evidence; what it cannot find is missing from its answer.
Collect = Callable[[Sequence[Evidence], Asker], Awaitable[Collected]]


@dataclass(frozen=True, slots=True)
class Hello:
    """A parsed HELLO or KEYS message; nothing in it is verified."""

    wid: str
    binding: bytes
    evidence: tuple[Evidence, ...]
    posture: bytes | None
    sig: str


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """Why a worker was refused: machine codes, most important first."""

    reasons: tuple[str, ...]
    bh: bytes


def parse_hello(document: dict[str, Any]) -> Hello:
    """Step 1.

    Raises:
        MalformedError: a member is missing, unknown or of the wrong type.
    """
    if set(document) != _MEMBERS:
        raise MalformedError(f"hello: expected the members {', '.join(sorted(_MEMBERS))}")
    texts = [document["wid"], document["binding"], document["sig"]]
    if not all(isinstance(text, str) for text in texts):
        raise MalformedError("hello: wid, binding or sig is no text")
    binding = unb64u(document["binding"])
    if len(binding) > BINDING_MAX:
        raise MalformedError(f"hello: binding of at most {BINDING_MAX} bytes expected")
    posture = document["posture"]
    record = None if posture is None else unb64u(posture)
    if record is not None and len(record) > CONTAINER_MAX:
        raise MalformedError(f"hello: posture of at most {CONTAINER_MAX} bytes expected")
    return Hello(
        document["wid"], binding, evidence_list(document["evidence"]), record, document["sig"]
    )


class Admission:
    """Judges workers under the gateway's policy.

    Args:
        appraiser: judges under the gateway's own policy; the same type and code as a client's.
        collect: finds collateral.
        denied: whether a binding hash is on the operator's deny list now.
        rng: randomness for challenges.
    """

    def __init__(
        self,
        appraiser: Appraiser,
        collect: Collect,
        denied: Callable[[bytes], bool],
        ledger: Ledger,
        telemetry: Telemetry,
        clock: Clock,
        rng: Callable[[int], bytes],
    ) -> None:
        """Keep what every admission needs."""
        self._appraiser = appraiser
        self._collect = collect
        self._denied = denied
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock
        self._rng = rng
        self._turns = Turns(APPRAISALS)
        self._entries = Allowance(REFUSALS_PER_MINUTE)

    async def admit(
        self,
        hello: Hello,
        nonce: bytes,
        ask: Ask,
        session: Session | None,
        asker: Asker,
    ) -> Epoch | NotAdmitted:
        """Run the steps of the module's docstring.

        Args:
            hello: HELLO or KEYS, as `parse_hello` read it (step 1).
            nonce: this connection's challenge.
            ask: asks the worker to prove what it says of itself.
            session: the session that sends new keys; None for a first HELLO.
            asker: on whose account it is judged.

        Raises:
            UnavailableError: the evidence log took no entry; nobody is admitted.
        """
        bh = bh_of(hello.binding)
        span = self._telemetry.start(SpanName.APPRAISE)
        span.set(Attr.BINDING, digest_text(bh))
        started = time.monotonic()
        try:
            verdict = await self._judge(hello, nonce, ask, session, asker)
        finally:
            span.end()
        if isinstance(verdict, Epoch):
            spent = time.monotonic() - started
            trust = verdict.appraised.trust
            self._telemetry.time(Metric.ATTEST_VERIFY, spent, {Attr.TRUST: trust})
            return verdict
        codes = verdict.codes if isinstance(verdict, Refused) else (verdict,)
        self._telemetry.count(Metric.ATTEST_FAILURES, 1, {Attr.REASON: codes[0]})
        shown = Presented(hello.binding, hello.evidence, hello.posture)
        reasons = verdict if isinstance(verdict, Refused) else codes
        if verdict in _NOBODY:
            return NotAdmitted(codes, bh)
        if self._entries.take(asker, _LOG, self._clock.monotonic()):
            await log_verdict(self._ledger, shown, self._appraiser.policy.digest, reasons)  # 11
        else:
            self._telemetry.count(Metric.VERDICTS_HELD, 1)
        return NotAdmitted(codes, bh)

    def stands(self, epoch: Epoch) -> bool:
        """Whether what was judged a moment ago would still be judged so: no newer policy, no deny.

        Admission waits for the worker, vendors and the log. A policy that came meanwhile has been
        swept already, and must not meet this worker only at the next sweep.
        """
        return epoch.policy == self._appraiser.policy.digest and not self._denied(epoch.bh)

    async def _judge(
        self, hello: Hello, nonce: bytes, ask: Ask, session: Session | None, asker: Asker
    ) -> Epoch | Refused | str:
        """Steps 2 to 11; a text is a reason code of our own."""
        # 2
        try:
            binding = parse_binding(hello.binding)
        except MalformedError:
            return "binding_malformed"
        try:
            verify_signature(binding.sig_pk, hello.sig, hello_bytes(nonce, binding.bh))
        except MalformedError:
            return "hello_signature"
        # 3
        if hello.wid != binding.wid or not is_wid(hello.wid):
            return "wid_malformed"
        # 4
        if binding.nonce is not None:
            return "nonce_unexpected"
        # 5
        if session is not None and not _same_process(session, binding):
            return "session_mismatch"
        # 6
        if self._denied(binding.bh):
            return "denied"
        # 7
        if not await self._possesses(binding, nonce, ask):
            return "possession_unproven"
        # 8
        try:
            activation = await self._activate(hello.evidence, ask, asker)
        except MalformedError:
            return "evidence_malformed"
        except AttestationError as error:
            return error.reasons[0] if error.reasons else "evidence_malformed"
        collateral = await self._collect(hello.evidence, asker)  # 9
        shown = Presented(
            hello.binding,
            hello.evidence,
            hello.posture,
            activation,
            await self._beacon_time(binding.beacon),
        )
        # 10
        verdict, policy = await self._turns.run(
            asker, lambda: self._appraiser.judge(shown, self._clock.wall(), collateral)
        )
        if not isinstance(verdict, AppraisedEvidence):
            return verdict
        logged = await log_verdict(self._ledger, shown, policy, verdict)  # 11
        return Epoch(verdict, shown, collateral, policy, logged)

    async def _possesses(self, binding: Binding, nonce: bytes, ask: Ask) -> bool:
        """Whether the worker holds what it lists: else it would keep another's requests from it."""
        keys = [Candidate(kem.kid, kem.suite, kem.pk) for kem in binding.kems]
        try:
            possession = ask_possession(keys, nonce, binding.bh, self._rng)
            question = {"bh": b64u(binding.bh), "sealed": [b64u(one) for one in possession.sealed]}
            answer = await ask(PROVE, question)
            return isinstance(answer, str) and possession.proves(unb64u(answer, ANSWER_LEN))
        except MalformedError:
            return False

    async def _activate(
        self, evidence: tuple[Evidence, ...], ask: Ask, asker: Asker
    ) -> Activation | None:
        """Ask the TPM behind evidence that claims one; other kinds need nothing."""

        def challenge() -> Challenge | None:
            made = (challenge_for(item, self._rng) for item in evidence)
            return next((one for one in made if one is not None), None)

        # It parses what a stranger sent.
        found = await self._turns.run(asker, lambda: asyncio.to_thread(challenge))
        if found is None:
            return None
        answer = await ask(ACTIVATE, {"credential": dict(found.credential.to_json())})
        return found.activation(answer if isinstance(answer, dict) else {})

    async def _beacon_time(self, beacon: Beacon | None) -> int | None:
        """When our log published the head a binding names; None when it never did."""
        log = self._ledger.log
        if beacon is None or beacon.log != log.origin or not 0 < beacon.size <= log.size:
            return None
        if log.root(beacon.size) != beacon.root:
            return None
        try:
            return snapshot_time(parse_event((await log.entry(beacon.size - 1)).event))
        except ReceiptError:
            return None


def _same_process(session: Session, binding: Binding) -> bool:
    """Whether new keys come from the worker start that was admitted."""
    known = session.newest.appraised.binding
    return (known.wid, known.sig_pk, known.boot) == (binding.wid, binding.sig_pk, binding.boot)
