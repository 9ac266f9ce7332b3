"""The rules that a CoRIM's declared profile adds: Arm CCA platform, CCA realm, PSA.

A profile fixes which identifiers, measured elements and members may stand. A manifest that breaks
its own profile would be read differently by a verifier that does not check, so it is refused whole.

 1 digests      each value has its algorithm's length; one value an algorithm
 2 environment  the class id is tagged bytes of the profile's length
 3 elements     each measurement's key is text, known, and with the members it must have
 4 complete     what must be there is there, once where once is said
 5 keys         an attestation key triple names one PKIX key of one instance

Profiles name algorithms by text; manifests in the field by number; both are read.

Specs: draft-ydb-rats-cca-endorsements, draft-fdb-rats-psa-endorsements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats.comid import TAG_PKIX_KEY, TAG_UEID
from attestation.formats.comid_measurement import TAG_BYTES, TAG_MASKED
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from attestation.formats.comid import Comid, Environment, KeyTriple
    from attestation.formats.comid_measurement import Digest, Measurement
    from attestation.formats.corim import Manifest

# Named Information hash algorithm registry, by number and by name.
DIGEST_SIZES: Final[Mapping[int | str, int]] = MappingProxyType(
    {
        1: 32, 2: 16, 3: 15, 4: 12, 5: 8, 6: 4, 7: 48, 8: 64, 9: 28, 10: 32, 11: 48, 12: 64,
        "sha-256": 32, "sha-256-128": 16, "sha-256-120": 15, "sha-256-96": 12, "sha-256-64": 8,
        "sha-256-32": 4, "sha-384": 48, "sha-512": 64,
        "sha3-224": 28, "sha3-256": 32, "sha3-384": 48, "sha3-512": 64,
    }
)  # fmt: skip

_HASH_SIZES: Final = (32, 48, 64)
_IMPLEMENTATION: Final = (32,)
_INSTANCE_SIZE: Final = 33
_INSTANCE_RAND: Final = 0x01
_VERSION, _DIGESTS, _RAW, _MASK, _NAME, _KEYS = 0, 2, 4, 5, 11, 13
_PSA_CERTIFICATE: Final = 100  # PSA's own member: the number of a security certificate
_REALM_REGISTER = re.compile(r"cca\.rem[0-3]")
_ROTPK = re.compile(r"cca\.rotpk\.(CM|DM)\.[0-7]\.[0-5]")


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile's rules.

    Attributes:
        class_sizes: lengths the class id may have.
        element: checks one measurement by its key, `unknown` included.
        complete: checks the keys of one triple together.
        attest_keys: whether attestation key triples may stand.
    """

    class_sizes: tuple[int, ...]
    element: Callable[[str, Measurement], None]
    complete: Callable[[list[str]], None]
    attest_keys: bool


def check_digests(manifest: Manifest) -> str:
    """Every digest has the length of its algorithm, where the algorithm is known (step 1).

    Raises:
        AttestationError: `profile_violation`.
    """
    count = 0
    for comid in manifest.comids:
        for triple in (*comid.reference, *comid.endorsed):
            for measurement in triple.measurements:
                for group in (measurement.digests or (), *measurement.registers.values()):
                    _check_digests(group)
                    count += len(group)
    return f"{count} digests"


def check_profile(manifest: Manifest) -> str:
    """Every CoMID keeps the rules of every profile declared (steps 2 to 5).

    Raises:
        AttestationError: `profile_violation`.
    """
    known = [PROFILES[name] for name in manifest.profiles if name in PROFILES]
    for profile in known:
        for comid in manifest.comids:
            _check_comid(comid, profile)
    if not known:
        return "declares no profile with rules"
    return f"keeps {len(known)} of {len(manifest.profiles)} profiles"


def _check_comid(comid: Comid, profile: Profile) -> None:
    for triple in comid.reference:
        _check_environment(triple.environment, profile)
        keys = []
        for measurement in triple.measurements:
            key = measurement.key
            if key is None or key.tag is not None or not isinstance(key.value, str):
                raise _violated("a measurement's key is not text")
            if measurement.authorized_by is not None:
                raise _violated("a measurement names an authority of its own")
            profile.element(key.value, measurement)
            keys.append(key.value)
        profile.complete(keys)
    for keys_of in comid.attest_keys:
        if not profile.attest_keys:
            raise _violated("found attestation keys, expected none")
        _check_environment(keys_of.environment, profile)
        _check_attest_key(keys_of)


def _check_environment(environment: Environment, profile: Profile) -> None:  # 2
    found = environment.class_id
    if found is None or found.tag != TAG_BYTES or not isinstance(found.value, bytes):
        raise _violated(f"the class id is not tagged bytes ({TAG_BYTES})")
    if len(found.value) not in profile.class_sizes:
        raise _violated(f"found a class id of {len(found.value)}, expected {profile.class_sizes}")


def _check_attest_key(triple: KeyTriple) -> None:  # 5
    instance = triple.environment.instance
    if instance is None or instance.tag != TAG_UEID or not isinstance(instance.value, bytes):
        raise _violated(f"the instance of a key is not a UEID ({TAG_UEID})")
    if len(instance.value) != _INSTANCE_SIZE or instance.value[0] != _INSTANCE_RAND:
        raise _violated(f"the instance is not {_INSTANCE_SIZE} bytes of the random kind")
    if len(triple.keys) != 1 or triple.keys[0].tag != TAG_PKIX_KEY:
        raise _violated(f"found {len(triple.keys)} keys, expected one PKIX key")


def _check_digests(group: tuple[Digest, ...]) -> None:  # 1
    if len({digest.algorithm for digest in group}) != len(group):
        raise _violated("found two digests of one algorithm")
    for digest in group:
        name = digest.algorithm
        size = DIGEST_SIZES.get(name.lower() if isinstance(name, str) else name)
        if size is not None and len(digest.value) != size:
            raise _violated(f"found a digest of {len(digest.value)} bytes, expected {size}")


def _has_digests(measurement: Measurement, most: int) -> None:
    group = measurement.digests or ()
    if not 1 <= len(group) <= most:
        raise _violated(f"found {len(group)} digests, expected 1 to {most}")
    for digest in group:
        if len(digest.value) not in _HASH_SIZES:
            raise _violated(f"found a digest of {len(digest.value)}, expected {_HASH_SIZES}")


def _component(measurement: Measurement, *more: int) -> None:  # 3
    _only(measurement, _VERSION, _DIGESTS, _NAME, _KEYS, *more)
    _has_digests(measurement, len(DIGEST_SIZES))
    signers = measurement.keys or ()
    if len(signers) != 1 or signers[0].tag != TAG_BYTES or not isinstance(signers[0].value, bytes):
        raise _violated(f"found {len(signers)} signers, expected one in tagged bytes")
    if len(signers[0].value) not in _HASH_SIZES:
        raise _violated(f"found a signer id of {len(signers[0].value)}, expected {_HASH_SIZES}")
    if measurement.scheme is not None:
        raise _violated("found a version scheme, expected none")


def _configuration(measurement: Measurement) -> None:  # 3
    _only(measurement, _RAW, _MASK)
    if measurement.raw is None or measurement.mask is None:
        raise _violated("a configuration lacks its value or mask")
    if measurement.raw_tag not in (TAG_BYTES, TAG_MASKED):
        raise _violated("a configuration's value is not tagged")
    if len(measurement.raw) != len(measurement.mask):
        raise _violated("a configuration's mask is not as long as its value")


def _only(measurement: Measurement, *members: int) -> None:
    others = measurement.members.difference(members)
    if others:
        raise _violated(f"found {len(others)} members the profile does not have")


def _platform_element(key: str, measurement: Measurement) -> None:
    if key == "cca.software-component":
        _component(measurement)
    elif key in ("cca.platform-config", "cca.platform-manufacturing-config"):
        _configuration(measurement)
    elif _ROTPK.fullmatch(key):
        _only(measurement, _RAW)
        if measurement.raw is None:
            raise _violated("a root of trust key lacks its value")
    else:
        raise _violated("found an unknown measured element")


def _platform_complete(keys: list[str]) -> None:  # 4
    if "cca.software-component" not in keys:
        raise _violated("found no software component, expected at least one")
    _once(key for key in keys if key != "cca.software-component")


def _realm_element(key: str, measurement: Measurement) -> None:
    if key == "cca.rim" or _REALM_REGISTER.fullmatch(key):
        _only(measurement, _DIGESTS)
        _has_digests(measurement, 1)
    elif key == "cca.rpv":
        _only(measurement, _RAW)
        if measurement.raw is None or measurement.raw_tag != TAG_BYTES:
            raise _violated("a personalization value is not in tagged bytes")
    else:
        raise _violated("found an unknown measured element")


def _realm_complete(keys: list[str]) -> None:  # 4
    if "cca.rim" not in keys:
        raise _violated("found no initial measurement, expected one")
    _once(keys)


def _psa_element(key: str, measurement: Measurement) -> None:
    if key != "psa.software-component":
        raise _violated("found an unknown measured element")
    _component(measurement, _PSA_CERTIFICATE)


def _psa_complete(keys: list[str]) -> None:  # 4
    if not keys:
        raise _violated("found no software component, expected at least one")


def _once(keys: Iterable[str]) -> None:
    listed = list(keys)
    if len(set(listed)) != len(listed):
        raise _violated("found a measured element twice")


def _violated(detail: str) -> AttestationError:
    return AttestationError(f"CoRIM profile: {detail}", reasons=("profile_violation",))


_PLATFORM = Profile(_IMPLEMENTATION, _platform_element, _platform_complete, attest_keys=True)
_REALM = Profile(_HASH_SIZES, _realm_element, _realm_complete, attest_keys=False)
_PSA = Profile(_IMPLEMENTATION, _psa_element, _psa_complete, attest_keys=True)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "tag:arm.com,2025:cca_platform#1.0.0": _PLATFORM,
        "tag:arm.com,2025:endorsements/cca_platform#1.0.0": _PLATFORM,
        "tag:arm.com,2025:cca_realm#1.0.0": _REALM,
        "tag:arm.com,2025:endorsements/cca_realm#1.0.0": _REALM,
        "tag:arm.com,2025:psa#1.0.0": _PSA,
    }
)
