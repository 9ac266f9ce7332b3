"""The worker's binding: which keys, code and limits one piece of evidence speaks for.

The worker makes the binding, a JSON object, inside its protected memory for every epoch; the
evidence signs a hash of its bytes. It is hashed as received and never re-serialised. A parsed
`Binding` is still unverified: it becomes trusted only inside `AppraisedEvidence`.

Spec: docs/spec/evidence.md §1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.canonical import encode, parse_strict
from wire.errors import MalformedError
from wire.ids import b64u, bh_of, kid_of
from wire.limits import (
    BINDING_MAX,
    BODY_MAX,
    FRAME_PT_MAX,
    HDR_MAX,
    K_MAX,
    LIFE_MAX_S,
    NAME_MAX,
    TIME_MAX,
    VERSION,
)
from wire.suites import SUITES

from .members import Members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROLE_WORKER: Final = "worker"
BOOT_LEN: Final = 16
NONCE_LEN: Final = 32
KEMS_MAX: Final = 4
MODELS_MAX: Final = 64
GPUS_MAX: Final = 16
PK_MAX: Final = 4096  # keys of suites this version does not know are kept, not used
LIFE_DEFAULT_S: Final = 3600
BINDING_LIFE_MAX_S: Final = 24 * 3600  # protocol: one hour by default, at most a day
# Kept after its end for what waited in a queue: 15 minutes for an hour's key, less for short ones.
GRACE_PART: Final = 4

_REPORT = b"anchorhold/1 report\0"
_REPORT32 = b"anchorhold/1 report32\0"
_KEYS = (
    "v", "role", "aud", "wid", "boot", "epoch", "kems", "sig", "sig2", "image", "policy", "models",
    "limits", "pad", "feat", "nbf", "exp", "beacon", "nonce", "posture",
)  # fmt: skip
_OPTIONAL_KEYS = ("gpus",)
_LIMITS: Final[Mapping[str, int]] = MappingProxyType(
    {"hdr": HDR_MAX, "frame": FRAME_PT_MAX, "body": BODY_MAX, "k": K_MAX}
)


@dataclass(frozen=True, slots=True)
class Kem:
    """One encapsulation key: suite name and public key bytes."""

    suite: str
    pk: bytes

    @property
    def kid(self) -> bytes:
        """Key id, 32 bytes."""
        return kid_of(self.suite, self.pk)


@dataclass(frozen=True, slots=True)
class Model:
    """A model the worker serves: its name and the digest of its files."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Beacon:
    """A log checkpoint the worker had seen when it made the binding.

    Attributes:
        log: the log's origin.
        size: entries in the tree.
        root: 32-byte root hash; unpredictable, so the binding is younger than it.
    """

    log: str
    size: int
    root: bytes

    def to_json(self) -> dict[str, str | int]:
        """The JSON object of bindings and link messages."""
        return {"log": self.log, "size": self.size, "root": b64u(self.root)}


@dataclass(frozen=True, slots=True)
class Binding:
    """A parsed, unverified binding.

    Attributes:
        v: format version, 1.
        role: "worker".
        aud: deployment the worker serves.
        wid: opaque worker id.
        boot: 16 random bytes of this process start.
        epoch: key generation within the boot, from 0.
        kems: encapsulation keys, one a suite.
        sig_pk: Ed25519 public key (32 bytes) for receipts, notices and pulls.
        image: measurement the worker claims; must equal the one its evidence proves.
        policy: digest of the service policy the worker has loaded.
        models: models served.
        limits: sizes accepted: hdr, frame, body in bytes, k wraps.
        pad: padding profiles offered.
        feat: optional features offered.
        nbf, exp: validity, Unix seconds.
        beacon: checkpoint seen, or None.
        nonce: 32-byte challenge of a verifier that asked for live evidence, or None.
        posture: "sha256:" tag of the posture record's bytes, or None.
        gpus: "sha256:" tags of the public keys (SubjectPublicKeyInfo) that the worker's GPUs sign
            with. A nonce alone would let any genuine GPU anywhere answer; these are named by what
            the CPU signs.
        raw: the bytes as received; every hash is taken over these.
    """

    v: int
    role: str
    aud: str
    wid: str
    boot: bytes
    epoch: int
    kems: tuple[Kem, ...]
    sig_pk: bytes
    image: str
    policy: str
    models: tuple[Model, ...]
    limits: Mapping[str, int]
    pad: tuple[str, ...]
    feat: tuple[str, ...]
    nbf: int
    exp: int
    beacon: Beacon | None
    nonce: bytes | None
    posture: str | None
    gpus: tuple[str, ...]
    raw: bytes

    @property
    def bh(self) -> bytes:
        """Binding hash: SHA-256 of `raw`, 32 bytes."""
        return bh_of(self.raw)

    @property
    def opens_until(self) -> int:
        """Unix seconds from which on its keys open nothing: see `opens_until`."""
        return opens_until(self.nbf, self.exp)

    def kids(self) -> dict[str, bytes]:
        """Key id (32 bytes) by suite name."""
        return {kem.suite: kem.kid for kem in self.kems}


def opens_until(nbf: int, exp: int) -> int:
    """When the private keys of a binding end, in Unix seconds.

    One rule for both ends of the link: the worker wipes its keys then, and the gateway releases
    nothing to them from then on. Were it later there, requests would go to keys that are gone.
    """
    return exp + min(LIFE_MAX_S, (exp - nbf) // GRACE_PART)


def report_data(raw: bytes) -> bytes:
    """The 64 bytes that evidence with a 64-byte field must carry for this binding."""
    return hashlib.sha512(_REPORT + raw).digest()


def report32(raw: bytes) -> bytes:
    """The 32 bytes that evidence with a 32-byte field (TPM, GPU) must carry for this binding."""
    return hashlib.sha256(_REPORT32 + raw).digest()


def encode_binding(
    *,
    aud: str,
    wid: str,
    boot: bytes,
    epoch: int,
    kems: Sequence[Kem],
    sig_pk: bytes,
    image: str,
    policy: str,
    models: Sequence[Model],
    nbf: int,
    exp: int,
    beacon: Beacon | None = None,
    nonce: bytes | None = None,
    posture: str | None = None,
    gpus: Sequence[str] = (),
    limits: Mapping[str, int] = _LIMITS,
    pad: Sequence[str] = ("cadence", "bucket", "off"),
    feat: Sequence[str] = ("rewrap", "receipt"),
    role: str = ROLE_WORKER,
) -> bytes:
    """Binding bytes for the given facts (see `Binding` for each); what it returns parses.

    Raises:
        MalformedError: a fact has the wrong length or range.
    """
    raw = encode(
        {
            "v": VERSION,
            "role": role,
            "aud": aud,
            "wid": wid,
            "boot": b64u(boot),
            "epoch": epoch,
            "kems": [{"suite": kem.suite, "pk": b64u(kem.pk)} for kem in kems],
            "sig": {"alg": "ed25519", "pk": b64u(sig_pk)},
            "sig2": None,
            "image": image,
            "policy": policy,
            "models": [{"name": model.name, "digest": model.digest} for model in models],
            "limits": dict(limits),
            "pad": list(pad),
            "feat": list(feat),
            "nbf": nbf,
            "exp": exp,
            "beacon": None if beacon is None else beacon.to_json(),
            "nonce": None if nonce is None else b64u(nonce),
            "posture": posture,
            **({"gpus": list(gpus)} if gpus else {}),
        }
    )
    parse_binding(raw)
    return raw


def parse_binding(raw: bytes) -> Binding:
    """The binding in `raw`, strictly: closed schema, exact types, every length checked.

    Raises:
        MalformedError: any deviation; the sentence names the member, found and expected.
    """
    obj = parse_strict(raw, max_bytes=BINDING_MAX)
    top = Members(obj, "binding", required=_KEYS, optional=_OPTIONAL_KEYS)
    if top.value("sig2") is not None:
        raise top.fail("sig2", "null: the member is reserved")
    sig = Members(top.value("sig"), "binding.sig", required=("alg", "pk"))
    if sig.text("alg") != "ed25519":
        raise sig.fail("alg", '"ed25519"')
    nbf, exp = top.integer("nbf", 0, TIME_MAX), top.integer("exp", 0, TIME_MAX)
    if exp <= nbf:
        raise top.fail("exp", "a time after nbf")
    limits = Members(top.value("limits"), "binding.limits", required=tuple(_LIMITS))
    return Binding(
        v=top.integer("v", VERSION, VERSION),
        role=top.text("role", NAME_MAX),
        aud=top.text("aud", NAME_MAX),
        wid=top.text("wid", NAME_MAX),
        boot=top.data("boot", BOOT_LEN),
        epoch=top.integer("epoch"),
        kems=_kems(top),
        sig_pk=sig.data("pk", 32),
        image=top.digest("image"),
        policy=top.digest("policy"),
        models=_models(top),
        limits=MappingProxyType({key: limits.integer(key, 1) for key in _LIMITS}),
        pad=top.texts("pad", 8, 1),
        feat=top.texts("feat", 16),
        nbf=nbf,
        exp=exp,
        beacon=parse_beacon(top.value("beacon"), "binding.beacon"),
        nonce=None if top.value("nonce") is None else top.data("nonce", NONCE_LEN),
        posture=None if top.value("posture") is None else top.digest("posture"),
        gpus=top.digests("gpus", GPUS_MAX, 1) if "gpus" in top else (),
        raw=bytes(raw),
    )


def _kems(top: Members) -> tuple[Kem, ...]:
    kems = []
    for item in top.array("kems", KEMS_MAX, 1):
        members = Members(item, "binding.kems", required=("suite", "pk"))
        suite = members.text("suite")
        known = SUITES.get(suite)
        pk = members.blob("pk", PK_MAX) if known is None else members.data("pk", known.pk_len)
        kems.append(Kem(suite, pk))
    if len({kem.suite for kem in kems}) != len(kems):
        raise MalformedError("binding.kems: found a suite twice, expected one key a suite")
    return tuple(kems)


def _models(top: Members) -> tuple[Model, ...]:
    models = []
    for item in top.array("models", MODELS_MAX, 1):
        members = Members(item, "binding.models", required=("name", "digest"))
        models.append(Model(members.text("name", NAME_MAX), members.digest("digest")))
    if len({model.name for model in models}) != len(models):
        raise MalformedError("binding.models: found a name twice, expected distinct names")
    return tuple(models)


def parse_beacon(obj: object, where: str) -> Beacon | None:
    """The beacon in a parsed JSON value, strictly; None for null.

    Args:
        obj: the value.
        where: what it is a member of, for the error sentence.

    Raises:
        MalformedError: neither null nor a beacon.
    """
    if obj is None:
        return None
    members = Members(obj, where, required=("log", "size", "root"))
    return Beacon(members.text("log"), members.integer("size"), members.data("root", 32))
