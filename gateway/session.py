"""One connected, admitted worker: its keys, its lease and its credits."""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation.result import AppraisedEvidence
from evidence.entry import Logged
from wire.errors import MalformedError
from wire.ids import unb64u
from wire.link import Message, done_bytes, pull_bytes

from .appraiser import Presented
from .found import Collected

#: Credits a worker may hold. More would only hide a worker that never answers.
CREDITS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Epoch:
    """One admitted set of keys. Exists only for evidence that met the gateway's policy.

    Attributes:
        appraised: the verdict, with the binding.
        presented: what was judged, for whoever wants to check for themselves.
        collateral: the vendors' statements it was judged with.
        policy: digest of the policy it was judged under.
        verdict: the verdict's entry in the evidence log.
    """

    appraised: AppraisedEvidence
    presented: Presented
    collateral: Collected
    policy: str
    verdict: Logged

    @property
    def bh(self) -> bytes:
        """Binding hash."""
        return self.appraised.bh

    @property
    def kids(self) -> frozenset[bytes]:
        """Key ids, one a suite."""
        return frozenset(self.appraised.binding.kids().values())

    @property
    def offered_until(self) -> int:
        """Unix seconds after which the directory does not list it."""
        return min(self.appraised.expires, self.appraised.binding.exp)

    @property
    def held_until(self) -> int:
        """Unix seconds from which on its keys open nothing: its worker has wiped them."""
        return self.appraised.binding.opens_until

    @property
    def released_until(self) -> int:
        """Unix seconds from which on nothing is released to it: its verdict has ended."""
        return self.appraised.released_until


@dataclass(slots=True, eq=False)
class Session:
    """A worker's connection after admission. Made by the link server only.

    Attributes:
        nonce: this connection's challenge; pulls sign it, so none can be replayed elsewhere.
        send: writes one message to the worker.
        lease_until: monotonic seconds; past it the session is ended.
        credits: envelopes the worker asked for and did not get yet.
        seq: number of the last pull; the next one must be larger.
        draining: the worker said goodbye and takes nothing new.
        ended: the worker is lost or fenced: whatever it still sends, nothing is released to it.
    """

    nonce: bytes
    send: Callable[[Message], None]
    epochs: list[Epoch]
    lease_until: float
    credits: int = 0
    seq: int = 0
    draining: bool = False
    ended: bool = False

    @property
    def newest(self) -> Epoch:
        """The epoch that new requests should be sealed to."""
        return self.epochs[-1]

    @property
    def wid(self) -> str:
        """The worker's opaque name."""
        return self.newest.appraised.binding.wid

    @property
    def sig_pk(self) -> bytes:
        """The attested key that signs pulls, notices and receipts; one per worker start."""
        return self.newest.appraised.binding.sig_pk

    def takes(self, now: int) -> frozenset[bytes]:
        """Key ids a request may still be released for."""
        judged = [epoch.kids for epoch in self.epochs if now < epoch.released_until]
        return frozenset().union(*judged)

    def kids(self, now: int) -> frozenset[bytes]:
        """Key ids that open what was released before."""
        held = [epoch.kids for epoch in self.epochs if now < epoch.held_until]
        return frozenset().union(*held)

    def can_take(self, monotonic: float) -> bool:
        """Whether an envelope may be released now: leased, asked for, not leaving."""
        here = not (self.draining or self.ended)
        return here and self.credits > 0 and monotonic < self.lease_until

    def pull(self, document: dict[str, object]) -> None:
        """Take a PULL message.

        Steps: 1 form and ranges. 2 the number is larger than the last. 3 the signature by the
        attested key over this connection's nonce, the number and the count holds.

        Raises:
            MalformedError: a step fails; the link is closed.
        """
        # 1
        if set(document) != {"n", "seq", "sig"}:
            raise MalformedError("pull: expected n, seq and sig")
        count, seq, sig = document["n"], document["seq"], document["sig"]
        if type(count) is not int or not 1 <= count <= CREDITS_MAX:
            raise MalformedError(f"pull: n: expected 1 to {CREDITS_MAX}")
        if type(seq) is not int or not 0 < seq < 2**63 or not isinstance(sig, str):
            raise MalformedError("pull: seq or sig of the wrong type or range")
        # 2
        if seq <= self.seq:
            raise MalformedError(f"pull: seq above {self.seq} expected, found {seq}")
        # 3
        verify_signature(self.sig_pk, sig, pull_bytes(self.nonce, seq, count))
        self.seq = seq
        self.credits = min(self.credits + count, CREDITS_MAX)

    def usage(self, rid: bytes, document: dict[str, object]) -> dict[str, object]:
        """The usage a DONE message reports for request `rid`, signed by the attested key.

        Raises:
            MalformedError: another form, or the signature does not hold; the link is closed.
        """
        if set(document) != {"usage", "finish", "sig"}:
            raise MalformedError("done: expected usage, finish and sig")
        usage, finish, sig = document["usage"], document["finish"], document["sig"]
        if not isinstance(usage, dict) or not isinstance(finish, str) or not isinstance(sig, str):
            raise MalformedError("done: usage, finish or sig of the wrong type")
        verify_signature(self.sig_pk, sig, done_bytes(rid, usage, finish))
        return usage


def verify_signature(public: bytes, signature: str, message: bytes) -> None:
    """Check an Ed25519 signature given in base64url.

    Raises:
        MalformedError: it does not hold.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(unb64u(signature, 64), message)
    except InvalidSignature as error:
        raise MalformedError("link: the signature does not hold", code="bad_signature") from error
