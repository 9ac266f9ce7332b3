"""Reference values out of a CoRIM, in the shape our policies use. Import only.

A policy is the native store: what an import gives is copied into one, by a person or a release
pipeline, and the policy's hash then names it. Nothing here is looked up while evidence is judged.

What cannot be expressed exactly is not imported: raw values under a mask, minimums over several
members, conditional series, and whole elements that only a named authority may state: as a policy's
value, anybody's statement would do. `ReferenceValues.left_out` counts them, and the conditions
beside what was taken, so that an importer sees that a manifest says more than was taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import AttestationError

from .verify.corim_profile import check_digests, check_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .formats.comid import ValueTriple
    from .formats.comid_measurement import Digest, Measurement
    from .formats.corim import Manifest

# The registry's full-length algorithms, as our policies write them. Cut digests (sha-256-128 and
# shorter) identify nothing against an attacker, and are left out.
ALGORITHMS: Final[Mapping[int | str, str]] = MappingProxyType(
    {
        1: "sha256", 7: "sha384", 8: "sha512", 10: "sha3-256", 11: "sha3-384", 12: "sha3-512",
        "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512",
        "sha256": "sha256", "sha384": "sha384", "sha512": "sha512",
        "sha3-256": "sha3-256", "sha3-384": "sha3-384", "sha3-512": "sha3-512",
    }
)  # fmt: skip

# Members that are read, and that a policy has no place for.
_CONDITIONS: Final[Mapping[int, str]] = MappingProxyType(
    {4: "raw value", 5: "mask", 0: "version", 13: "keys"}
)


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """What one measured element of one module should be.

    Attributes:
        environment: which module, as one line; equal lines are equal modules.
        key: the measured element: its key, then "/" and its name where it has one; for a register
            "register" and its number or name.
        digests: algorithm to the digests accepted; one suffices.
        svn: security version, or None.
        svn_minimum: whether a higher one is accepted too.
    """

    environment: str
    key: str
    digests: Mapping[str, tuple[bytes, ...]]
    svn: int | None
    svn_minimum: bool


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What an import gives.

    Attributes:
        values: in the manifest's order.
        left_out: parts of the manifest that were not taken.
    """

    values: tuple[ReferenceValue, ...]
    left_out: tuple[str, ...]

    def named(self, algorithm: str) -> Mapping[str, tuple[bytes, ...]]:
        """Element key to its accepted digests in one algorithm, over all modules."""
        found: dict[str, tuple[bytes, ...]] = {}
        for value in self.values:
            if algorithm in value.digests:
                found[value.key] = (*found.get(value.key, ()), *value.digests[algorithm])
        return MappingProxyType(found)


def reference_values(manifest: Manifest) -> ReferenceValues:
    """The reference values of a manifest that was examined and judged.

    Its digests and the rules of its profile are checked again: an import from a manifest that
    breaks them must not depend on the caller having asked.

    Raises:
        AttestationError: `profile_violation`, or `reference_values_empty`: a set that accepts
            nothing is a mistake, and one read as "no demand" would accept everything.
    """
    check_digests(manifest)
    check_profile(manifest)
    left_out = list(manifest.unread)
    values: list[ReferenceValue] = []
    for comid in manifest.comids:
        for triple in comid.reference:
            values += _of_triple(triple, left_out)
        left_out += [f"endorsement of {triple.environment.text()}" for triple in comid.endorsed]
        keys = (*comid.identity_keys, *comid.attest_keys)
        left_out += [f"keys of {triple.environment.text()}" for triple in keys]
    if not values:
        raise AttestationError(
            "CoRIM: found no reference value to import, expected at least one",
            reasons=("reference_values_empty",),
        )
    return ReferenceValues(tuple(values), tuple(left_out))


def _of_triple(triple: ValueTriple, left_out: list[str]) -> list[ReferenceValue]:
    environment = triple.environment.text()
    found = []
    for measurement in triple.measurements:
        key = _key(measurement)
        whole = _unexpressed(measurement, key)
        if whole:
            left_out.append(whole)
            continue
        groups = {key: measurement.digests or ()}
        groups |= {f"register {name}": group for name, group in measurement.registers.items()}
        for name, group in groups.items():
            digests = _digests(group)
            svn = measurement.svn if name == key else None
            if digests or svn is not None:
                found.append(
                    ReferenceValue(
                        environment,
                        name,
                        digests,
                        None if svn is None else svn.number,
                        svn is not None and svn.minimum,
                    )
                )
        left_out += [f"{what} of {key}" for what in _rest(measurement)]
    return found


def _unexpressed(measurement: Measurement, key: str) -> str:
    """What to say of a measurement of which nothing can be taken; "" of others."""
    if measurement.authorized_by is not None:
        return f"all of {key}, which names an authority"
    named = measurement.key
    if named is not None and named.tag is not None and named.value == "":  # it was not read
        return f"an element that a structure names (tag {named.tag})"
    return ""


def _key(measurement: Measurement) -> str:
    key = "" if measurement.key is None else str(measurement.key.value)
    if measurement.key is not None and isinstance(measurement.key.value, bytes):
        key = measurement.key.text()
    return "/".join(part for part in (key, measurement.name or "") if part)


def _digests(group: Sequence[Digest]) -> Mapping[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for digest in group:
        stated = digest.algorithm
        name = ALGORITHMS.get(stated.lower() if isinstance(stated, str) else stated)
        if name is not None:
            found[name] = (*found.get(name, ()), digest.value)
    return MappingProxyType(found)


def _rest(measurement: Measurement) -> list[str]:
    """What of a measurement is not taken."""
    rest = [f"member {member}" for member in measurement.unread]
    rest += [what for member, what in _CONDITIONS.items() if member in measurement.members]
    groups = (measurement.digests or (), *measurement.registers.values())
    unknown = [digest for group in groups for digest in group if not _digests((digest,))]
    if unknown:
        rest.append(f"{len(unknown)} digests")
    return rest
