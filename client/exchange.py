"""One sealed exchange, without I/O: draw → seal → send → open → verify the receipt.

The generator yields commands for a driver and `Emit`s for the caller. What it will never do: send
anything that is not sealed, accept anything that is not authenticated to its end, or repeat a
request of which a response byte was seen.

A gateway's error is a hint. It may cause a refresh of the directory through full verification (at
most one per five seconds, the first at once), a re-wrap of the secret to further *verified*
workers, or a second attempt; two attempts and two re-wraps in all. A worker's notice counts only
under the attested key of a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from wire.envelope import CONTENT_TYPE as REQUEST_TYPE
from wire.envelope import SealedRequest, seal_request
from wire.errors import GatewayError, UnavailableError, WorkerNotice
from wire.header import Pad, RequestHeader
from wire.ids import b64u
from wire.limits import K_MAX, LIFE_MAX_S, REWRAPS_MAX, RID_LEN
from wire.padding import out_class
from wire.problems import KID_UNKNOWN, REWRAP_NEEDED
from wire.wraps import CONTENT_TYPE as WRAPS_TYPE

from .commands import Pause, Steps, exclusive
from .posting import begins_within, check_type, post, read_refusal
from .receiving import receive
from .served import HTTP_OK
from .verify import Verifier, Want

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Call
    from .workers import Candidates

TRIES_MAX: Final = 2  # a gateway that refuses twice, after a full re-verification, has refused
LIFE_DEFAULT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Terms:
    """What every exchange of one client shares.

    Attributes:
        verifier: draws candidates.
        pad: shaping profile asked for.
        life_s: seconds a request may wait and run.
        salt: prefix-cache salt (32 bytes) to share between this client's requests, or None for
            a fresh one each time.
    """

    verifier: Verifier
    pad: Pad = "cadence"
    life_s: int = LIFE_DEFAULT_S
    salt: bytes | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.life_s <= LIFE_MAX_S:
            raise ValueError(f"life_s: expected 1 to {LIFE_MAX_S}, found {self.life_s}")

    @property
    def rng(self) -> Callable[[int], bytes]:
        """Random bytes."""
        return self.verifier.rng


@dataclass(frozen=True, slots=True)
class Sent:
    """A request with an open sealed reply."""

    call: Call
    sealed: SealedRequest
    candidates: Candidates


def exchange(terms: Terms, call: Call) -> Steps[None]:
    """Run one call to its verified end; emits `client.events`."""
    call = call.among({rule.name for rule in terms.verifier.policy.models})
    sent = yield from _deliver(terms, call)
    yield from receive(terms.verifier, sent.call, sent.sealed, sent.candidates)


def _deliver(terms: Terms, call: Call) -> Steps[Sent]:
    """Send until a sealed reply opens: at most two attempts, each with a fresh secret."""
    useless: int | None = None
    for attempt in range(1, TRIES_MAX + 1):
        last = attempt == TRIES_MAX
        candidates = yield from _draw(terms, Want(call.model), useless)
        sealed = _seal(terms, call, candidates)
        try:
            return (yield from _send(terms, Sent(call, sealed, candidates)))
        except WorkerNotice as notice:
            if last or notice.code != "kid_unknown":
                raise
        except GatewayError as error:
            if last or error.type not in (KID_UNKNOWN, REWRAP_NEEDED):
                raise
        except UnavailableError:
            # The connection was lost before any response byte. Another attempt has its own secret,
            # so the worker that may still run this one cannot answer twice.
            if last:
                raise
            continue
        useless = candidates.generation
    raise AssertionError("the last attempt returns or raises")


def _send(terms: Terms, sent: Sent) -> Steps[Sent]:
    """Post one sealed request, re-wrapping it where the gateway has lost all its candidates.

    Raises:
        GatewayError, WorkerNotice: it was refused.
        ProtocolFailure: a success that is not a sealed response, or a forged notice.
    """
    rid = b64u(sent.sealed.header.rid)
    begins_s = begins_within(terms.life_s)
    envelope = sent.sealed.envelope
    opened = yield from post("/v1/sealed", envelope, REQUEST_TYPE, rid, begins_s=begins_s)
    for rewraps in range(REWRAPS_MAX + 1):
        if opened.status == HTTP_OK:
            check_type(opened)
            return sent
        error = yield from read_refusal(opened, sent.sealed, sent.candidates.workers)
        room = K_MAX - len(sent.sealed.kids)
        if error.type != REWRAP_NEEDED or rewraps == REWRAPS_MAX or room < 1:
            raise error
        first = sent.candidates.workers[0]
        want = Want(
            sent.call.model,
            exclude=frozenset(sent.sealed.kids),
            count=min(room, terms.verifier.policy.k),
            policy=first.policy,
            suite=first.candidate.suite,
        )
        more = yield from _draw(terms, want, sent.candidates.generation)
        if not more.workers:
            raise error
        wraps = sent.sealed.rewrap([worker.candidate for worker in more.workers])
        sent = replace(sent, candidates=sent.candidates.joined(more))
        path = f"/v1/sealed/{rid}/wraps"
        opened = yield from post(path, wraps, WRAPS_TYPE, rid, begins_s=begins_s)
    raise AssertionError("the last round returns or raises")


def _draw(terms: Terms, want: Want, useless: int | None) -> Steps[Candidates]:
    """Draw candidates; where a refresh was asked for, not before one is allowed."""
    directory = terms.verifier.directory
    while useless is not None:
        yield from exclusive(_turn())  # what another exchange refreshes now is waited for, no more
        wait = directory.wait_for_refresh()
        if useless != directory.generation or wait <= 0:
            break
        yield Pause(wait)  # outside the lock: others go on, and may refresh meanwhile
    return (yield from exclusive(terms.verifier.draw(want, not_generation=useless)))


def _turn() -> Steps[None]:
    """Nothing, in one's turn."""
    yield from ()


def _seal(terms: Terms, call: Call, candidates: Candidates) -> SealedRequest:
    first = candidates.workers[0]
    policy = terms.verifier.policy
    now = terms.verifier.clock()
    header = RequestHeader(
        rid=terms.rng(RID_LEN),
        aud=policy.aud,
        op=call.op,
        model=call.model,
        policy=first.policy,
        iat=now,
        exp=now + terms.life_s,
        out=out_class(call.max_tokens),
        stream=call.stream,
        pad=terms.pad,
        suite=first.candidate.suite,
    )
    head: dict[str, Any] = {"m": "POST", "p": call.path, "h": {}}
    if terms.salt is not None:
        head["salt"] = b64u(terms.salt)
    return seal_request(
        header,
        [worker.candidate for worker in candidates.workers],
        head,
        call.body,
        terms.rng,
        allow_x25519=not policy.require_pq,
    )
