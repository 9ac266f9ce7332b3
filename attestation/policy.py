"""The tenant's policy: data with a closed schema, default deny.

A key or value this version does not know is refused with a sentence, never skipped: an ignored
demand is an unmet one. What a policy does not name is not accepted.

Spec: docs/spec/evidence.md §5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.canonical import encode, parse_strict
from wire.errors import MalformedError, PolicyError
from wire.excerpt import cut, json_kind
from wire.ids import sha256_tag, unb64u
from wire.limits import K_MAX, NAME_MAX, VERSION
from wire.verifier_key import parse_vkey

from .evidence import KINDS, SOFTWARE, TPM2
from .members import Members
from .proof import canonical_identity
from .rules import hardware, software, tpm
from .rules.demands import MEASUREMENTS_MAX, ROOTS_MAX
from .rules.hardware import HardwareRule
from .rules.software import SoftwareRule
from .rules.tpm import TpmRule
from .schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wire.verifier_key import VerifierKey

POLICY_MAX: Final = 256 * 1024  # a few PEM roots and a long deny list
RULES_MAX: Final = 32
DENY_MAX: Final = 4096
AGE_MAX_S: Final = 24 * 3600
WORKERS_MAX: Final = 10_000

K_DEFAULT: Final = 3
MIN_WORKERS_DEFAULT: Final = 3  # fewer is steerable; a tenant that accepts one must say so
MAX_AGE_DEFAULT_S: Final = 600
RESULT_TTL_DEFAULT_S: Final = 3600
COLLATERAL_AGE_MAX_S: Final = 30 * 24 * 3600  # what Intel and AMD sign for at most

_REQUIRED = (
    "v", "id", "seq", "not_before", "expires", "aud", "accept", "models", "service_policies",
)  # fmt: skip
_OPTIONAL = (
    "min_version", "require_pq", "k", "min_workers", "allow_software", "allow_simulated",
    "directory", "log", "deny", "freshness",
)  # fmt: skip


Rule = SoftwareRule | TpmRule | HardwareRule

_AGES = (
    "beacon_max_age_s", "directory_max_age_s", "require_beacon", "result_ttl_s",
    "collateral_max_age_s",
)  # fmt: skip
_IDENTITIES: Final[Mapping[str, str]] = MappingProxyType(
    {"chip_ids": "chip_id", "ppids": "ppid", "serials": "serial", "keys": "key"}
)
# Serial numbers (a GPU's chip id is one) have any number of digits; the others whole bytes.
_HEX = re.compile(r"(?:[0-9a-f]{2}){4,64}")
_SERIAL = re.compile(r"[0-9a-f]{1,128}")
_SERIALS: Final = ("serials", "chip_ids")


@dataclass(frozen=True, slots=True)
class ModelRule:
    """An accepted model; with a digest, only those weights."""

    name: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class DirectoryKey:
    """A key that may sign directory snapshots: its id and Ed25519 public key."""

    kid: str
    pk: bytes


@dataclass(frozen=True, slots=True)
class Deny:
    """What is refused whatever else holds.

    Attributes:
        bh: binding hashes, 32 bytes.
        measurements: "sha256:" tags.
        kids: key ids, 32 bytes.
        identities: platforms and keys, as `proof.canonical_identity` gives the names of
            `Examined.identities`: "chip_id:<hex>", ...
    """

    bh: frozenset[bytes] = frozenset()
    measurements: frozenset[str] = frozenset()
    kids: frozenset[bytes] = frozenset()
    identities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """A tenant's demands, parsed.

    Attributes:
        id, seq: name and monotonic number of this version.
        not_before, expires: validity, Unix seconds.
        aud: the one deployment accepted.
        min_version: least binding version.
        require_pq: only hybrid encapsulation keys are used.
        k: candidates drawn a request.
        min_workers: smallest directory accepted.
        allow_software: `software` evidence may count.
        allow_simulated: TPM quotes of simulated TPMs may count.
        accept: rules, any one of which must be met whole.
        models: accepted models; a worker must serve one of them.
        service_policies: accepted service policy digests.
        directory_keys: signers of directory snapshots; none means no directory is accepted.
        log_origin, log_vkeys: the log and its C2SP verifier keys; None and () likewise.
        deny: wins over everything.
        beacon_max_age_s: oldest beacon accepted, when the binding carries one.
        require_beacon: bindings must carry a beacon, or answer a live nonce.
        directory_max_age_s: oldest directory snapshot accepted.
        result_ttl_s: longest use of one verdict; after it the evidence is appraised again.
        collateral_max_age_s: longest use of collateral after it was fetched, however long its
            vendor says that it holds. Whoever holds this policy applies it to a cache of his own
            (`collateral.resolve`); collateral carried to him has the vendors' dates alone.
        digest: "sha256:" tag of the canonical (evj1) bytes of what this was parsed from; spaces
            and the order of members do not change it.
    """

    id: str
    seq: int
    not_before: int
    expires: int
    aud: str
    min_version: int
    require_pq: bool
    k: int
    min_workers: int
    allow_software: bool
    allow_simulated: bool
    accept: tuple[Rule, ...]
    models: tuple[ModelRule, ...]
    service_policies: frozenset[str]
    directory_keys: tuple[DirectoryKey, ...]
    log_origin: str | None
    log_vkeys: tuple[str, ...]
    deny: Deny
    beacon_max_age_s: int
    require_beacon: bool
    directory_max_age_s: int
    result_ttl_s: int
    collateral_max_age_s: int
    digest: str


def parse_policy(raw: bytes) -> Policy:
    """The policy in `raw` (JSON, at most POLICY_MAX bytes).

    Raises:
        PolicyError: anything unknown, missing, of another type or out of range; the sentence names
            the key, what was found and what was expected.
    """
    try:
        obj = parse_strict(raw, max_bytes=POLICY_MAX)
        digest = sha256_tag(encode(obj))
    except MalformedError as cause:
        raise PolicyError(f"policy: {cause}, expected one strict JSON object") from None
    top = Members(obj, "policy", required=_REQUIRED, optional=_OPTIONAL, error=PolicyError)
    top.integer("v", 1, 1)
    not_before, expires = top.integer("not_before"), top.integer("expires")
    if expires <= not_before:
        raise top.fail("expires", "a time after not_before")
    log_origin, log_vkeys = _log(top)
    ages = _section(top, "freshness", _AGES)
    return Policy(
        id=top.text("id", NAME_MAX),
        seq=top.integer("seq"),
        not_before=not_before,
        expires=expires,
        aud=top.text("aud", NAME_MAX),
        min_version=_or(top, "min_version", VERSION, 1, VERSION),
        require_pq=top.flag("require_pq", default=True),
        k=_or(top, "k", K_DEFAULT, 1, K_MAX),
        min_workers=_or(top, "min_workers", MIN_WORKERS_DEFAULT, 1, WORKERS_MAX),
        allow_software=top.flag("allow_software", default=False),
        allow_simulated=top.flag("allow_simulated", default=False),
        accept=tuple(_rule(item) for item in top.array("accept", RULES_MAX, 1)),
        models=_models(top),
        service_policies=frozenset(top.digests("service_policies", MEASUREMENTS_MAX, 1)),
        directory_keys=_directory_keys(top),
        log_origin=log_origin,
        log_vkeys=log_vkeys,
        deny=_deny(top),
        beacon_max_age_s=_or(ages, "beacon_max_age_s", MAX_AGE_DEFAULT_S, 1, AGE_MAX_S),
        require_beacon=ages.flag("require_beacon", default=False),
        directory_max_age_s=_or(ages, "directory_max_age_s", MAX_AGE_DEFAULT_S, 1, AGE_MAX_S),
        result_ttl_s=_or(ages, "result_ttl_s", RESULT_TTL_DEFAULT_S, 1, AGE_MAX_S),
        collateral_max_age_s=_or(ages, "collateral_max_age_s", AGE_MAX_S, 1, COLLATERAL_AGE_MAX_S),
        digest=digest,
    )


def _or(members: Members, key: str, default: int, low: int, high: int) -> int:
    return members.integer(key, low, high) if key in members else default


def _section(top: Members, key: str, optional: tuple[str, ...]) -> Members:
    obj = top.value(key) if key in top else {}
    return Members(obj, f"policy.{key}", optional=optional, error=PolicyError)


def _rule(item: object) -> Rule:
    kind = item.get("kind") if isinstance(item, dict) else None
    if kind == SOFTWARE:
        return software.parse(item)
    if kind == TPM2:
        return tpm.parse(item)
    carriers = {name: each for name, each in SCHEMES.items() if each.carries is not None}
    if isinstance(kind, str) and kind in carriers:
        return hardware.parse(item, carriers[kind], SCHEMES[hardware.GPU_KIND])
    found = f'"{cut(kind)}"' if isinstance(kind, str) else json_kind(kind)
    if isinstance(kind, str) and kind in SCHEMES:  # it can only accompany one of the others
        found += ", which names no worker"
    known = " or ".join((*KINDS, *sorted(carriers)))
    raise PolicyError(f"policy.accept.kind: found {found}, expected {known}")


def _models(top: Members) -> tuple[ModelRule, ...]:
    rules = []
    for item in top.array("models", MEASUREMENTS_MAX, 1):
        members = Members(
            item, "policy.models", required=("name",), optional=("digest",), error=PolicyError
        )
        digest = members.digest("digest") if "digest" in members else None
        rules.append(ModelRule(members.text("name", NAME_MAX), digest))
    named = {
        rule.name: [other.digest for other in rules if other.name == rule.name] for rule in rules
    }
    for name, digests in named.items():
        if len(set(digests)) != len(digests):
            raise PolicyError(f'policy.models: found "{name}" twice, expected it once')
        if None in digests and len(digests) > 1:
            raise PolicyError(
                f'policy.models: found "{name}" with a digest and without, which demands none; '
                "expected a digest each time, or one entry"
            )
    return tuple(rules)


def _directory_keys(top: Members) -> tuple[DirectoryKey, ...]:
    section = _section(top, "directory", ("keys",))
    keys = []
    for item in section.array("keys", ROOTS_MAX):
        members = Members(
            item, "policy.directory.keys", required=("kid", "alg", "pk"), error=PolicyError
        )
        if members.text("alg") != "ed25519":
            raise members.fail("alg", '"ed25519"')
        keys.append(DirectoryKey(members.text("kid"), members.data("pk", 32)))
    if len({key.kid for key in keys}) != len(keys):
        raise PolicyError("policy.directory.keys: found a kid twice, expected distinct kids")
    return tuple(keys)


def _log(top: Members) -> tuple[str | None, tuple[str, ...]]:
    if "log" not in top:
        return None, ()
    members = Members(
        top.value("log"), "policy.log", required=("origin", "vkeys"), error=PolicyError
    )
    origin, vkeys = members.text("origin"), members.texts("vkeys", ROOTS_MAX, 1)
    names = [_log_key(members, vkey).name for vkey in vkeys]
    if origin not in names:  # a log signs its heads under its own name: none would ever verify
        raise members.fail_item("vkeys", vkeys[0], f'a key that is named for the origin "{origin}"')
    return origin, vkeys


def _log_key(log: Members, vkey: str) -> VerifierKey:
    try:
        return parse_vkey(vkey)
    except MalformedError as cause:
        raise PolicyError(
            f"policy.log.vkeys: {cause.message}",
            hint="copy the log's keys from `anchorhold gateway --init`",
        ) from None


def _deny(top: Members) -> Deny:
    section = _section(top, "deny", ("bh", "measurements", "kids", *_IDENTITIES))
    return Deny(
        bh=_hashes(section, "bh"),
        measurements=frozenset(section.digests("measurements", DENY_MAX)),
        kids=_hashes(section, "kids"),
        identities=frozenset(
            canonical_identity(f"{name}:{value}")
            for key, name in _IDENTITIES.items()
            for value in _hex_values(section, key)
        ),
    )


def _hex_values(section: Members, key: str) -> tuple[str, ...]:
    values = section.texts(key, DENY_MAX)
    form = _SERIAL if key in _SERIALS else _HEX
    for value in values:
        if form.fullmatch(value) is None:
            raise section.fail_item(key, value, "identities in lower-case hex")
    return values


def _hashes(section: Members, key: str) -> frozenset[bytes]:
    try:
        return frozenset(unb64u(text, 32) for text in section.texts(key, DENY_MAX))
    except MalformedError:
        raise section.fail(key, "hashes of 32 bytes in base64url without padding") from None
