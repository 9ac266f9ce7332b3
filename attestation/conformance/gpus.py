"""The GPUs' side of a sample of a CPU's kind, where the CPU's evidence names it.

A name makes nothing genuine: whatever bytes the CPU signed a digest of, they must be the evidence
of GPUs. So each file is examined and judged as a sample of its own kind is:

 gpus 1 form      it is, or wraps, what a GPU's kind reads, and holds  evidence_malformed
                  nothing else that may be evidence
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
from itertools import chain
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
from attestation.verify.ocsp import load_response
from attestation.verify.spdm import SWITCHES
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError
from wire.excerpt import cut

from .device_chains import certificates, chains_in
from .pairing import has_outline, outlined
from .roles import KEY_ROLES, by_kind
from .strict import strict_rule
from .wrapped import as_file, parts, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attestation.anchors import Anchors
    from attestation.examined import Examined
    from attestation.verify.spdm import Device

    from .device_chains import DeviceChains

LIST, EAT = "nvidia-gpu-spdm-list", "nvidia-nras-eat"
SINGLE: Final = ("nvidia-gpu-spdm", "nvidia-nvswitch-spdm")
FOUND_MAX: Final = 128  # reports and bundles of one sample: a rack has 72 GPUs
SHORT_MAX: Final = 1024  # of a text that is no evidence: a report has 2 KiB, in base64 3
CERTIFICATES_MAX: Final = 128  # of one text beside evidence: five a device
_UNKNOWN_KEY: Final = "unknown_signing_key"
_OTHER_PRODUCT: Final = "product_not_accepted"


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
class _Beside:
    """What stands beside the GPUs' evidence, read once for all of it.

    Attributes:
        asked: the question.
        chains: of devices.
        certificates: DER; a root that a chain lacks may be among them.
    """

    asked: Asked
    chains: DeviceChains
    certificates: tuple[bytes, ...]


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
    files = dict.fromkeys(asked.files.values())
    listed = tuple(chain.from_iterable(map(certificates, files)))
    beside = _Beside(asked, chains_in(files), listed)
    room = FOUND_MAX
    for role, data in gpus.items():
        try:
            readable = _readable(data, room)
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
        room -= _count(readable)
        for kind, part in readable:
            found, against = _examined(kind, part, role, beside)
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
        if file in data or chains_in((file,)).parsed or certificates(file)
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


def _readable(data: bytes, room: int) -> list[tuple[str, bytes]]:  # 1
    """The evidence in a file, with the kind that reads it; SPDM reports as a GPU's.

    A file that wraps evidence is read whole: what is passed over could be a device that fails.

    Raises:
        MalformedError: there is none, more than `room`, or something besides that may be evidence.
    """
    found = _evidence(data)
    for value in () if found else parts(data):
        inside = _evidence(as_file(value)) if isinstance(value, str | dict | list) else []
        if not inside and not _is_none(value):
            raise MalformedError("GPU evidence: a part of it is none, and nothing known beside it")
        found += inside
    if not found:
        raise MalformedError("GPU evidence: found nothing that a GPU's kind reads")
    if _count(found) > room:
        raise MalformedError(f"GPU evidence: found more than {FOUND_MAX} reports in a sample")
    return found


def _count(found: Iterable[tuple[str, bytes]]) -> int:
    """How many reports and bundles these are."""
    return sum(len(parse_list(part)) if kind == LIST else 1 for kind, part in found)


def _evidence(data: bytes) -> list[tuple[str, bytes]]:
    """The data, or what it says in base64 or hex, as evidence of a kind; one or none."""
    return [(kind, part) for part in spelled(data) for kind in _kinds(part)][:1]


def _is_none(member: object) -> bool:
    """Whether nothing in a member can be evidence: short texts, numbers, and what vouches."""
    rest = [member]
    while rest:
        value = rest.pop()
        if isinstance(value, dict | list):
            if has_outline(value):
                return False
            rest += (*value, *value.values()) if isinstance(value, dict) else value
        elif isinstance(value, str):
            texts = spelled(value.encode())
            short = len(value) <= SHORT_MAX and not any(map(outlined, texts))
            if not short and not any(map(_vouches, texts)):
                return False
    return True


def _vouches(data: bytes) -> bool:
    """Whether these are certificates, a manifest or a responder's answer."""
    with contextlib.suppress(MalformedError, AttestationError):
        for der in pem.certificates(data, "sample", CERTIFICATES_MAX):
            load_certificate(der)
        return True
    with contextlib.suppress(MalformedError, AttestationError):
        load_response(data)
        return True
    return _is_manifest(data)


def _is_manifest(data: bytes) -> bool:
    try:
        # As in the rules: only who has the library for them reads manifests.
        from attestation.formats.rim import parse_document
    except ImportError:
        return False
    with contextlib.suppress(MalformedError, AttestationError):
        parse_document(data)
        return True
    return False


def _kinds(part: bytes) -> Iterator[str]:
    for kind, parse in ((SINGLE[0], parse_report), (LIST, parse_list), (EAT, parse_bundle)):
        with contextlib.suppress(MalformedError):
            parse(part)
            yield kind


def _examined(
    kind: str, part: bytes, role: str, beside: _Beside
) -> tuple[Examined | None, tuple[Reason, ...]]:
    """Step 2, and the examination of 3; None for what could not be verified."""
    asked, chains = beside.asked, beside.chains
    expected = Expected(nonce=asked.nonces.get(role))
    if kind == LIST:
        found = _examine(kind, {"evidence_list": part}, expected, beside)
        if any(reason.code == _OTHER_PRODUCT for reason in found.reasons):
            # One that says nothing of its architecture may be of switches.
            kinds = (replace(expected, arch=arch) for arch in SWITCHES)
            switches = (_examine(kind, {"evidence_list": part}, one, beside) for one in kinds)
            found = _best((found, *switches))
        return found, _named(role, found.reasons)
    if kind == EAT:
        found = _examine(kind, {"eat": part}, replace(expected, arch=asked.arch), beside)
        known = any(name in by_kind(SCHEMES[EAT], asked.files) for name in KEY_ROLES)
        lacking = not known and {reason.code for reason in found.reasons} == {_UNKNOWN_KEY}
        return (None if lacking else found), _named(role, found.reasons)
    own = chains.of(part)
    if not own and not (chains.parsed and chains.all_here):
        what = "too many certificate chains" if chains.parsed else "no certificate chain"
        detail = f"found {what} in the sample, expected the device's"
        step = f"gpus 2 chain of {role}"
        missing = Reason("collateral_missing", detail, step, case_of="chain_invalid")
        return None, (missing,)
    found = _best(
        _examine(name, {"evidence": part, "cert_chain": text}, expected, beside)
        for text in own or [chains.likeliest(part)]
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
    kind: str, evidence: Mapping[str, bytes], expected: Expected, beside: _Beside
) -> Examined:
    scheme, asked = SCHEMES[kind], beside.asked
    anchors = scheme.anchors if scheme.anchors.pins else asked.index_roots
    collateral: dict[str, bytes] = {}
    if kind == EAT:
        files = by_kind(scheme, asked.files)
        collateral = {role: files[role] for role in KEY_ROLES if role in files}
    else:
        pinned = dict.fromkeys(anchors.among(beside.certificates))
        if pinned:
            collateral = {"root": pem.encode(pinned)}
    return scheme.examine(Question(evidence, anchors, asked.now, collateral, expected, asked.skew))


def _judged(found: Examined, now: int) -> tuple[Reason, ...]:
    ledger = Ledger()
    if found.facts is not None:
        scheme = SCHEMES[found.kind]
        scheme.judge(ledger, found.facts, strict_rule(scheme), now)
    return tuple(ledger.reasons)


def _named(role: str, reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Reasons at steps that say whose they are."""
    return tuple(replace(reason, step=f"gpus 3 {role}: {reason.step}") for reason in reasons)
