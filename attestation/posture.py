"""The posture record: which isolation controls a worker has applied, signed by its own key.

The record is data in the evidence, never a log line: a missing control is stated, with its errno,
and a policy decides. The binding names the record's hash and the record is signed by the binding's
`sig.pk`, so it speaks for exactly that process start.

    record    = evj1 {"v":1,"boot":b64 16,"fields":{name:{"state","errno","detail"}}}
    container = JSON {"record":b64,"sig":b64}        sig over "anchorhold/1 posture\\0" ‖ record

Spec: docs/spec/evidence.md §3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire.canonical import encode, parse_evj1, parse_strict
from wire.errors import AttestationError, MalformedError
from wire.ids import b64u, sha256_tag

from .binding import BOOT_LEN
from .members import Members

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["applied", "unavailable", "refused"]
STATES: Final[tuple[State, ...]] = get_args(State)

RECORD_MAX: Final = 16_384
CONTAINER_MAX: Final = 24_576  # base64 of the record, the signature and two keys
FIELDS_MAX: Final = 64
DETAIL_MAX: Final = 200
ERRNO_MAX: Final = 4095  # the kernel's MAX_ERRNO

# The controls that a worker of this version reports, all of them every time: a reader never has to
# guess whether an absent one was forgotten. Records may name others, policies demand these alone.
CONTROLS: Final = (
    "wrapper",
    "userns",
    "netns",
    "pidns",
    "landlock_abi",
    "landlock_fs",
    "landlock_net",
    "seccomp",
    "tsync",
    "dumpable",
    "core",
    "no_new_privs",
    "capabilities",
    "pdeathsig",
    "memfd_secret",
    "mlock",
    "mdwe",
    "ro_root",
    "yama",
    "swap",
    "uid",
    "kernel",
)

_LABEL = b"anchorhold/1 posture\0"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# How much a state gives: a policy that is content with "unavailable" (the kernel has no such
# control) is content with "applied"; nothing but "refused" itself is as weak as "refused".
_STRENGTH: Final[Mapping[str, int]] = MappingProxyType(
    {"refused": 0, "unavailable": 1, "applied": 2}
)


@dataclass(frozen=True, slots=True)
class Control:
    """One control's outcome.

    Attributes:
        state: "applied" (shown to bite), "unavailable" (kernel or host lacks it) or "refused"
            (present, but it failed or was turned off).
        detail: a short fact such as a version or limit; never content.
        errno: what the kernel said, 0 for none.
    """

    state: State
    detail: str = ""
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Posture:
    """A worker's isolation controls.

    Attributes:
        boot: the 16 bytes that name this process start, equal to the binding's.
        fields: control name to outcome.
    """

    boot: bytes
    fields: Mapping[str, Control]

    def meets(self, name: str, demanded: str) -> bool:
        """Whether control `name` is at least as strong as `demanded`; absent is never enough."""
        control = self.fields.get(name)
        return control is not None and _STRENGTH[control.state] >= _STRENGTH[demanded]


def encode_posture(posture: Posture) -> bytes:
    """The record's bytes; `record_digest` of them goes into the binding.

    Raises:
        MalformedError: a name, state, errno or detail outside the format.
    """
    record = encode(
        {
            "v": 1,
            "boot": b64u(posture.boot),
            "fields": {
                name: {"state": c.state, "errno": c.errno, "detail": c.detail}
                for name, c in posture.fields.items()
            },
        }
    )
    parse_record(record)
    return record


def record_digest(record: bytes) -> str:
    """The "sha256:" tag by which a binding names the record."""
    return sha256_tag(record)


def sign_posture(record: bytes, sk: Ed25519PrivateKey) -> bytes:
    """The container bytes: the record and its signature by the worker's `sig` key."""
    return encode({"record": b64u(record), "sig": b64u(sk.sign(_LABEL + record))})


def open_container(raw: bytes) -> tuple[bytes, bytes]:
    """(record bytes, signature) of a container, nothing verified.

    Raises:
        MalformedError: not a container.
    """
    members = Members(
        parse_strict(raw, max_bytes=CONTAINER_MAX), "posture", required=("record", "sig")
    )
    return members.blob("record", RECORD_MAX), members.data("sig", 64)


def parse_posture(raw: bytes, sig_pk: bytes) -> Posture:
    """The posture in a container, if `sig_pk` signed it.

    Args:
        raw: container bytes.
        sig_pk: the binding's Ed25519 key, 32 bytes.

    Raises:
        MalformedError: container or record do not follow the format.
        AttestationError: signed by another key (reason `posture_signature_invalid`).
    """
    record, sig = open_container(raw)
    try:
        Ed25519PublicKey.from_public_bytes(sig_pk).verify(sig, _LABEL + record)
    except InvalidSignature:
        raise AttestationError(
            "posture: the signature is not by the key the binding names",
            reasons=("posture_signature_invalid",),
        ) from None
    return parse_record(record)


def parse_record(record: bytes) -> Posture:
    """The posture in record bytes, nothing verified.

    Raises:
        MalformedError: not an evj1 posture record.
    """
    top = Members(
        parse_evj1(record, RECORD_MAX), "posture record", required=("v", "boot", "fields")
    )
    top.integer("v", 1, 1)
    obj = top.value("fields")
    if not isinstance(obj, dict) or len(obj) > FIELDS_MAX:
        raise top.fail("fields", f"an object of at most {FIELDS_MAX} controls")
    fields: dict[str, Control] = {}
    for name, value in obj.items():
        if _NAME.fullmatch(name) is None:
            raise MalformedError("posture record: a control's name is not [a-z][a-z0-9_]{0,31}")
        members = Members(value, f"posture.{name}", required=("state", "errno", "detail"))
        fields[name] = Control(_state(members), _detail(members), _errno(members))
    return Posture(top.data("boot", BOOT_LEN), MappingProxyType(fields))


def _state(members: Members) -> State:
    value = members.value("state")
    for state in STATES:
        if value == state:
            return state
    raise members.fail("state", " or ".join(STATES))


def _detail(members: Members) -> str:
    return "" if members.value("detail") == "" else members.text("detail", DETAIL_MAX)


def _errno(members: Members) -> int:
    return 0 if members.value("errno") is None else members.integer("errno", 0, ERRNO_MAX)
