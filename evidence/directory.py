"""The key directory: which workers exist, signed, short-lived, and itself an entry of the log.

    snapshot = {"v","aud","seq","issued","expires","deny":[bh],
                "workers":[{"kid":[…],"bh","leaf","models":[…]}]}
    document = {"payload":b64 snapshot,"sigs":[{"kid","alg":"ed25519","sig"}],
                "log":{"checkpoint","leaf","proof":[…],"event","blind"}}

Anyone may serve a document: trust comes from the signature, the log and each worker's evidence. The
signature (DSSE pre-authentication encoding) covers the payload's exact bytes. The log part stands
outside the payload because the snapshot is a leaf: two tenants shown different lists means two
leaves, and an auditor sees both. A verified snapshot says who is *listed*; whether a listed worker
is fit to read a prompt is decided from its evidence.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wire.canonical import encode, parse_strict
from wire.dsse import pae
from wire.errors import (
    AnchorholdError,
    DirectoryError,
    ForkError,
    MalformedError,
    RollbackError,
    StaleDirectoryError,
)
from wire.excerpt import listed, shown
from wire.ids import b64u, sha256_tag, unb64u
from wire.limits import CLOCK_SKEW_S

from . import shape
from .checkpoint import Checkpoint, peek_checkpoint
from .entry import Logged, VerifiedEntry, verify_logged
from .events import DIRECTORY_SNAPSHOT, directory_event
from .leaf import EVENT_MAX, public_leaf
from .merkle import PROOF_MAX, verify_consistency
from .note import NOTE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from attestation.policy import Policy

PAYLOAD_TYPE: Final = "application/vnd.anchorhold.keys+json"
DOCUMENT_MAX: Final = 1024 * 1024  # about 4000 workers
WORKERS_MAX: Final = 4096
LIFE_MAX_S: Final = 600  # a revoked worker stays listed at most this long
SIGNATURES_MAX: Final = 8
_VERIFIER: Final = object()  # held by `verify_directory` alone

_SNAPSHOT = shape.shaped(
    {
        "v": shape.whole(1, 1),
        "aud": shape.text(),
        "seq": shape.whole(),
        "issued": shape.whole(),
        "expires": shape.whole(),
        "deny": shape.listed(shape.raw(32), WORKERS_MAX),
        "workers": shape.listed(
            shape.shaped(
                {
                    "kid": shape.listed(shape.raw(32), 8),
                    "bh": shape.raw(32),
                    "leaf": shape.whole(),
                    "models": shape.listed(shape.text(), 64),
                }
            ),
            WORKERS_MAX,
        ),
    }
)
_DOCUMENT = shape.shaped(
    {
        "payload": shape.text(DOCUMENT_MAX),
        "sigs": shape.listed(
            shape.shaped({"kid": shape.text(), "alg": shape.text(32), "sig": shape.raw(64)}),
            SIGNATURES_MAX,
        ),
        "log": shape.shaped(
            {
                "checkpoint": shape.text(NOTE_MAX),
                "leaf": shape.whole(),
                "proof": shape.listed(shape.raw(32), PROOF_MAX),
                "event": shape.text(32 * 1024),
                "blind": shape.raw(32),
            }
        ),
    }
)


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """One listed worker: key ids (32 bytes each), binding hash, index of its verdict, models."""

    kids: tuple[bytes, ...]
    bh: bytes
    leaf: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustedSnapshot:
    """A directory that passed every step of `verify_directory`, and nothing else made it.

    Times are unix seconds. `deny` holds binding hashes that must not be used at once.
    """

    aud: str
    seq: int
    issued: int
    expires: int
    deny: frozenset[bytes]
    workers: tuple[WorkerEntry, ...]
    digest: str
    entry: VerifiedEntry
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIER:
            msg = "TrustedSnapshot is made by verify_directory only"
            raise TypeError(msg)


def build_snapshot(
    *,
    aud: str,
    seq: int,
    issued: int,
    expires: int,
    workers: Sequence[WorkerEntry],
    deny: Sequence[bytes] = (),
) -> bytes:
    """The payload to sign and to log."""
    document = {
        "v": 1,
        "aud": aud,
        "seq": seq,
        "issued": issued,
        "expires": expires,
        "deny": [b64u(bh) for bh in deny],
        "workers": [
            {
                "kid": [b64u(kid) for kid in worker.kids],
                "bh": b64u(worker.bh),
                "leaf": worker.leaf,
                "models": list(worker.models),
            }
            for worker in workers
        ],
    }
    _SNAPSHOT(document, "snapshot")
    return encode(document)


def snapshot_event(payload: bytes) -> dict[str, Any]:
    """Body of the `directory.snapshot` event that logs this payload."""
    found = parse_strict(payload, max_bytes=DOCUMENT_MAX)
    return directory_event(
        digest=sha256_tag(payload),
        seq=found["seq"],
        aud=found["aud"],
        issued=found["issued"],
        expires=found["expires"],
        workers=len(found["workers"]),
    )


def sign_snapshot(payload: bytes, kid: str, sk: Ed25519PrivateKey) -> dict[str, str]:
    """One member of `sigs`: an Ed25519 signature over the DSSE encoding of the payload."""
    return {"kid": kid, "alg": "ed25519", "sig": b64u(sk.sign(pae(PAYLOAD_TYPE, payload)))}


def directory_document(payload: bytes, sigs: Sequence[Mapping[str, str]], logged: Logged) -> bytes:
    """The document `GET /v1/keys` serves; `logged` is the entry of `snapshot_event(payload)`."""
    return encode(
        {
            "payload": b64u(payload),
            "sigs": [dict(item) for item in sigs],
            "log": {
                "checkpoint": logged.checkpoint,
                "leaf": logged.index,
                "proof": [b64u(item) for item in logged.proof],
                "event": b64u(logged.event),
                "blind": b64u(logged.blind),
            },
        }
    )


def peek_head(document: bytes) -> Checkpoint:
    """The unverified log head of a document: tells the sizes to fetch a consistency proof for."""
    try:
        return peek_checkpoint(_parse(document)["log"]["checkpoint"])
    except MalformedError as error:
        raise DirectoryError(f"directory: {error.message}") from error


def verify_directory(
    document: bytes,
    policy: Policy,
    now: int,
    last: Checkpoint | None = None,
    consistency: Sequence[bytes] = (),
    *,
    last_leaf: int = 0,
) -> TrustedSnapshot:
    """Verify a directory document under the keys, log and audience a policy pins.

    Args:
        document: bytes as served.
        policy: pins directory keys, log origin and keys, audience and maximum age.
        now: unix seconds.
        last: newest log head verified before; None on first contact.
        consistency: proof from `last.size` to this document's size (see `peek_head`); empty when
            the sizes are equal or nothing was remembered.
        last_leaf: index of the newest snapshot trusted before.

    Steps, each with its own error:
        1 form (DirectoryError). 2 signature by a pinned key (DirectoryError). 3 snapshot form and
        audience (DirectoryError). 4 age (StaleDirectoryError). 5 the entry: leaf, checkpoint under
        a pinned log key, inclusion (DirectoryError). 6 the entry is this snapshot's
        (DirectoryError). 7 the log did not shrink (RollbackError). 8 it only grew (ForkError).
        9 the snapshot is not older than the last one trusted (RollbackError), by its log index.
    Size of the list, and which listed worker to believe, are for the caller to judge.
    """
    try:
        # 1
        parsed = _parse(document)
        payload = unb64u(parsed["payload"])
        # 2
        _check_signature(payload, parsed["sigs"], policy)
        # 3
        snapshot = _parse_snapshot(payload, policy.aud)
        # 4
        _check_age(snapshot, now, policy.directory_max_age_s)
        # 5
        entry = _verify_entry(parsed["log"], policy)
    except DirectoryError:
        raise
    except AnchorholdError as error:
        raise DirectoryError(f"directory: {error.message}") from error
    # 6
    if entry.event.type != DIRECTORY_SNAPSHOT or entry.event.body != snapshot_event(payload):
        raise DirectoryError("directory: log entry of exactly this snapshot expected")
    if last is not None:
        check_growth(last, entry.checkpoint.checkpoint, consistency)  # 7, 8
    # 9
    if entry.index < last_leaf:
        raise RollbackError(
            f"directory: snapshot at log index {last_leaf} or later expected, found {entry.index}",
            hint="the server shows an older list of workers than it showed before",
        )
    return TrustedSnapshot(
        aud=snapshot["aud"],
        seq=snapshot["seq"],
        issued=snapshot["issued"],
        expires=snapshot["expires"],
        deny=frozenset(unb64u(bh) for bh in snapshot["deny"]),
        workers=tuple(_worker(item) for item in snapshot["workers"]),
        digest=sha256_tag(payload),
        entry=entry,
        token=_VERIFIER,
    )


def check_growth(known: Checkpoint, new: Checkpoint, consistency: Sequence[bytes]) -> None:
    """Steps 7 and 8: `new`, a verified head, must extend `known`, remembered from before."""
    if known.origin != new.origin:
        raise DirectoryError(f"directory: log {known.origin!r} expected, found {new.origin!r}")
    # 7
    if new.size < known.size:
        raise RollbackError(
            f"directory: log of at least {known.size} entries expected, found {new.size}",
            hint="the server shows an older log than it showed before: keep both checkpoints",
        )
    # 8: an empty log is a prefix of every log, and has no proof
    if known.size == 0:
        return
    try:
        verify_consistency(known.size, new.size, known.root, new.root, consistency)
    except MalformedError as error:
        raise ForkError(
            f"directory: log that extends the one known at size {known.size} expected: "
            f"{error.message}",
            hint="the server shows a different history than before: keep both checkpoints",
        ) from error


def _parse(document: bytes) -> dict[str, Any]:
    parsed = parse_strict(document, max_bytes=DOCUMENT_MAX)
    _DOCUMENT(parsed, "directory")
    found: dict[str, Any] = parsed
    return found


def _check_signature(payload: bytes, sigs: Sequence[Mapping[str, str]], policy: Policy) -> None:
    pinned = {key.kid: key.pk for key in policy.directory_keys}
    signed = pae(PAYLOAD_TYPE, payload)
    for item in sigs:
        public = pinned.get(item["kid"])
        if public is None or item["alg"] != "ed25519":
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(unb64u(item["sig"]), signed)
        except (InvalidSignature, ValueError) as error:
            kid = shown(item["kid"])
            message = f"directory: found a wrong signature by {kid}, expected a valid one"
            raise DirectoryError(message) from error
        return
    raise DirectoryError(
        f"directory: found signatures by {listed(item['kid'] for item in sigs)}, "
        f"expected one by a pinned key: {listed(pinned)}",
        hint="the policy's directory.keys must list the deployment's directory key",
    )


def _parse_snapshot(payload: bytes, aud: str) -> dict[str, Any]:
    found: dict[str, Any] = parse_strict(payload, max_bytes=DOCUMENT_MAX)
    _SNAPSHOT(found, "snapshot")
    if found["aud"] != aud:
        raise DirectoryError(f"directory: audience {aud!r} expected, found {found['aud'][:64]!r}")
    if not 0 < found["expires"] - found["issued"] <= LIFE_MAX_S:
        raise DirectoryError(f"directory: life of at most {LIFE_MAX_S} s expected")
    if len({item["bh"] for item in found["workers"]}) != len(found["workers"]):
        # listing one worker many times would bend the draw of candidates towards it
        raise DirectoryError("directory: each worker once expected")
    kids = [kid for item in found["workers"] for kid in item["kid"]]
    if len(set(kids)) != len(kids):
        # one key under several bindings would count as several workers
        raise DirectoryError("directory: each kid once expected, found one listed twice")
    return found


def _check_age(snapshot: Mapping[str, int], now: int, max_age_s: int) -> None:
    issued, expires = snapshot["issued"], snapshot["expires"]
    if issued > now + CLOCK_SKEW_S:
        raise StaleDirectoryError(
            f"directory: issued at most {CLOCK_SKEW_S} s ahead expected, found {issued - now} s",
            hint="check this machine's clock",
        )
    if now >= expires or now - issued > max_age_s:
        raise StaleDirectoryError(
            f"directory: age of at most {max_age_s} s expected, found {now - issued} s",
            hint="fetch a newer one; if that does not help, the server withholds it",
        )


def _verify_entry(log: Mapping[str, Any], policy: Policy) -> VerifiedEntry:
    if policy.log_origin is None or not policy.log_vkeys:
        raise DirectoryError("directory: policy with a pinned log expected, found none")
    event, blind = unb64u(log["event"]), unb64u(log["blind"])
    if len(event) > EVENT_MAX:
        raise DirectoryError(f"directory: event of at most {EVENT_MAX} bytes expected")
    logged = Logged(
        log["leaf"],
        public_leaf(event, blind),
        blind,
        event,
        log["checkpoint"],
        tuple(unb64u(item) for item in log["proof"]),
    )
    return verify_logged(logged, policy.log_origin, policy.log_vkeys)


def _worker(item: Mapping[str, Any]) -> WorkerEntry:
    kids = tuple(unb64u(kid) for kid in item["kid"])
    return WorkerEntry(kids, unb64u(item["bh"]), item["leaf"], tuple(item["models"]))
