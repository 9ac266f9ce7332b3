"""The GPUs' side of a sample of a CPU's kind, where the CPU's evidence names it.

A name makes nothing genuine: whatever bytes the CPU signed a digest of, they must be the evidence
of GPUs. So each file is examined and judged as a sample of its own kind is:

 gpus 1 form      it is, or wraps, what a GPU's kind reads             evidence_malformed
 gpus 2 chain     a chain in the sample, or with it, is the device's   collateral_missing
        keys      for a remote service's word: its key set is here     unknown_signing_key
 gpus 3 …         the kind's own examination and strict rule           those of the kind
 gpus 4 family    GPUs, or switches, are of the architecture asked     gpu_architecture_mismatch
                  for
 gpus 5 distinct  no device answers twice, in all files                device_repeated

What cannot be verified for want of something is not accepted; what is refused is not authentic.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from attestation.examined import Expected, Question
from attestation.formats import pem
from attestation.formats.detached_eat import parse_bundle
from attestation.formats.gpu_list import parse_list
from attestation.formats.spdm import parse_report
from attestation.ledger import Ledger
from attestation.result import Reason
from attestation.schemes import SCHEMES
from attestation.verify.fleet import Fleet
from attestation.verify.spdm import SWITCHES
from wire.errors import AttestationError, MalformedError
from wire.excerpt import cut

from .pairing import outlined
from .roles import KEY_ROLES, by_kind
from .strict import strict_rule
from .wrapped import contents, members, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attestation.anchors import Anchors
    from attestation.examined import Examined
    from attestation.verify.spdm import Device

LIST, EAT = "nvidia-gpu-spdm-list", "nvidia-nras-eat"
SINGLE: Final = ("nvidia-gpu-spdm", "nvidia-nvswitch-spdm")
CHAINS_MAX: Final = 16  # of as many devices as a list may have
_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_UNKNOWN_KEY: Final = "unknown_signing_key"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the GPUs' evidence is verified with.

    Attributes:
        files: role to bytes, the GPUs' and those that no kind of a CPU reads: certificate chains
            and key sets stand among them.
        index_roots: the anchors of kinds that have none of their own.
        now, skew: as in `Question`.
        nonces: role to the nonce that is stated for it.
        arch: the architecture that is stated, or None.
    """

    files: Mapping[str, bytes]
    index_roots: Anchors
    now: int
    skew: int
    nonces: Mapping[str, bytes]
    arch: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """What is against the GPUs' evidence.

    Attributes:
        refuted: why it is not genuine.
        open: why it is not accepted, genuine or not.
    """

    refuted: tuple[Reason, ...]
    open: tuple[Reason, ...]


def examine_gpus(gpus: Mapping[str, bytes], asked: Asked) -> Account:
    """Steps 1 to 5 for the files of the GPUs' side, by role."""
    refuted: list[Reason] = []
    unproved: list[Reason] = []
    devices: list[Device] = []
    for role, data in gpus.items():
        try:
            parts = _readable(data)
        except MalformedError as error:
            unproved.append(
                Reason(
                    "evidence_malformed",
                    error.message,
                    f"gpus 1 form of {role}",
                    case_of="gpu_not_bound_to_cpu",
                )
            )
            continue
        for kind, part in parts:
            found, against = _examined(kind, part, role, asked)
            (unproved if found is None else refuted).extend(against)
            if found is not None:
                unproved.extend(_named(role, _judged(found, asked.now)))
                devices.extend(found.facts.devices if isinstance(found.facts, Fleet) else ())
    family, distinct = Ledger(), Ledger()
    if asked.arch is not None and devices:
        arch = asked.arch
        family.run("gpus 4 family", lambda: _check_family(devices, arch))
    distinct.run("gpus 5 distinct", lambda: check_distinct(devices))
    return Account((*refuted, *family.reasons), (*unproved, *distinct.reasons))


def _check_family(devices: Sequence[Device], arch: str) -> str:  # 4
    found = {device.family.architecture for device in devices if device.family is not None}
    # Beside GPUs there may be switches: what is asked of the ones says nothing of the others.
    alike = {name for name in found if (name in SWITCHES) is (arch in SWITCHES)}
    if alike != {arch}:
        raise AttestationError(
            f"devices: found {', '.join(sorted(found)) or 'none'}, expected {cut(arch)}",
            reasons=("gpu_architecture_mismatch",),
        )
    return arch


def roles_read(asked: Asked) -> frozenset[str]:
    """The files that some device's chain, a root or a key set was looked for in, and is."""
    keys = [role for role in KEY_ROLES if role in by_kind(SCHEMES[EAT], asked.files)]
    data = {by_kind(SCHEMES[EAT], asked.files)[role] for role in keys}
    return frozenset(
        role
        for role, file in asked.files.items()
        if file in data or _chains((file,)) or _certificates(file)
    )


def check_distinct(devices: Sequence[Device]) -> str:
    """No two devices have one key or one serial number.

    Raises:
        AttestationError: `device_repeated`.
    """
    for found in (
        [device.fingerprint for device in devices],
        [device.chain.serial for device in devices],
    ):
        if len(set(found)) != len(found):
            raise AttestationError(
                "devices: found one twice, expected distinct ones", reasons=("device_repeated",)
            )
    return f"{len(devices)} distinct devices"


def _readable(data: bytes) -> list[tuple[str, bytes]]:  # 1
    """The evidence in a file, with the kind that reads it; SPDM reports as a GPU's.

    Raises:
        MalformedError: there is none, or some that looks like it and does not parse.
    """
    whole = [(kind, part) for part in spelled(data) for kind in _kinds(part)]
    if whole:
        return whole[:1]
    found = []
    for member in members(data):
        inside = [(kind, part) for part in spelled(member) for kind in _kinds(part)]
        if not inside and any(outlined(part) for part in spelled(member)):
            raise MalformedError("GPU evidence: a part of it does not parse")
        found += inside[:1]
    if not found:
        raise MalformedError("GPU evidence: found nothing that a GPU's kind reads")
    return found


def _kinds(part: bytes) -> Iterator[str]:
    for kind, parse in ((SINGLE[0], parse_report), (LIST, parse_list), (EAT, parse_bundle)):
        with contextlib.suppress(MalformedError):
            parse(part)
            yield kind


def _examined(
    kind: str, part: bytes, role: str, asked: Asked
) -> tuple[Examined | None, tuple[Reason, ...]]:
    """Step 2, and the examination of 3; None for what could not be verified."""
    expected = Expected(nonce=asked.nonces.get(role))
    if kind == LIST:  # one that says nothing of its architecture may be of switches
        both = [expected, *(replace(expected, arch=arch) for arch in SWITCHES)]
        found = _best(_examine(kind, {"evidence_list": part}, one, asked) for one in both)
        return found, _named(role, found.reasons)
    if kind == EAT:
        found = _examine(kind, {"eat": part}, replace(expected, arch=asked.arch), asked)
        known = any(name in by_kind(SCHEMES[EAT], asked.files) for name in KEY_ROLES)
        lacking = not known and {reason.code for reason in found.reasons} == {_UNKNOWN_KEY}
        return (None if lacking else found), _named(role, found.reasons)
    chains = _chains(asked.files.values())
    if not chains:
        detail = "found no certificate chain in the sample, expected the device's"
        step = f"gpus 2 chain of {role}"
        missing = Reason("collateral_missing", detail, step, case_of="chain_invalid")
        return None, (missing,)
    # Of several chains one is the device's: its leaf's key signed the report, no other could.
    found = _best(
        _examine(name, {"evidence": part, "cert_chain": chain}, expected, asked)
        for chain in chains
        for name in SINGLE
    )
    return found, _named(role, found.reasons)


def _best(candidates: Iterable[Examined]) -> Examined:
    """The first that is genuine, or the one with the fewest reasons against it."""
    refused = []
    for found in candidates:
        if not found.reasons:
            return found
        refused.append(found)
    return min(refused, key=lambda found: len(found.reasons))


def _examine(
    kind: str, evidence: Mapping[str, bytes], expected: Expected, asked: Asked
) -> Examined:
    scheme = SCHEMES[kind]
    anchors = scheme.anchors if scheme.anchors.pins else asked.index_roots
    collateral: dict[str, bytes] = {}
    if kind == EAT:
        files = by_kind(scheme, asked.files)
        collateral = {role: files[role] for role in KEY_ROLES if role in files}
    else:
        listed = [der for data in asked.files.values() for der in _certificates(data)]
        pinned = dict.fromkeys(anchors.among(listed))
        if pinned:
            collateral = {"root": pem.encode(pinned)}
    return scheme.examine(Question(evidence, anchors, asked.now, collateral, expected, asked.skew))


def _judged(found: Examined, now: int) -> tuple[Reason, ...]:
    ledger = Ledger()
    if found.facts is not None:
        scheme = SCHEMES[found.kind]
        scheme.judge(ledger, found.facts, strict_rule(scheme), now)
    return tuple(ledger.reasons)


def _chains(files: Iterable[bytes]) -> tuple[bytes, ...]:
    """Certificates in PEM, wherever in the sample they stand."""
    found = [
        part
        for data in files
        for part in contents(data)
        if part.lstrip().startswith(_PEM) and len(_certificates(part)) > 1
    ]
    return tuple(dict.fromkeys(found))[:CHAINS_MAX]


def _certificates(data: bytes) -> tuple[bytes, ...]:
    with contextlib.suppress(MalformedError):
        return pem.certificates(data, "sample")
    return ()


def _named(role: str, reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Reasons at steps that say whose they are."""
    return tuple(replace(reason, step=f"gpus 3 {role}: {reason.step}") for reason in reasons)
