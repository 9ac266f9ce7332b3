"""The GPUs' side of a sample of a CPU's kind, where the CPU's evidence names it.

A name makes nothing genuine: whatever bytes the CPU signed a digest of, they must be the evidence
of GPUs. So each file is examined and judged as a sample of its own kind is:

 gpus 1 form      it is, or wraps, what a GPU's kind reads, and holds  evidence_malformed
                  nothing else that may be evidence
 gpus 2 chain     a chain in the sample, or with it, can be the        collateral_missing
                  device's
        keys      for a remote service's word: its key set is here     unknown_signing_key
 gpus 3 …         the kind's own examination and strict rule           those of the kind
 gpus 4 family    GPUs, or switches, are of the architecture asked     gpu_architecture_mismatch
                  for
 gpus 5 distinct  no device answers twice, in all files                device_repeated

What cannot be verified for want of something is not accepted; what is refused is not authentic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from attestation.examined import Expected, Question
from attestation.formats import pem
from attestation.formats.detached_eat import DetachedEat
from attestation.ledger import Ledger
from attestation.result import Reason
from attestation.schemes import SCHEMES
from attestation.verify.fleet import Fleet
from attestation.verify.spdm import SWITCHES
from wire.errors import AttestationError, MalformedError
from wire.excerpt import cut

from .device_chains import certificates, chains_in, signed
from .gpu_file import EAT, FOUND_MAX, LIST, SINGLE, count, evidence_in
from .roles import KEY_ROLES, by_kind
from .strict import strict_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attestation.anchors import Anchors
    from attestation.examined import Examined
    from attestation.verify.spdm import Device

    from .device_chains import DeviceChains

_SINGLES: Final = (SINGLE, "nvidia-nvswitch-spdm")
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
        own: report to the chains whose leaf signed it.
        certificates: DER; a root that a chain lacks may be among them.
    """

    asked: Asked
    chains: DeviceChains
    own: Mapping[bytes, list[bytes]]
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
    ueids: list[str] = []
    evidence: list[tuple[str, str, bytes]] = []
    room = FOUND_MAX
    for role, data in gpus.items():
        try:
            found = evidence_in(data, room)
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
        room -= count(found)
        evidence += ((role, kind, part) for kind, part in found)
    files = dict.fromkeys(asked.files.values())
    chains = chains_in(files)
    own = {part: chains.of(part) for _, kind, part in evidence if kind == SINGLE}
    listed = tuple(chain.from_iterable(map(certificates, files)))
    beside = _Beside(asked, chains, own, listed)
    for role, kind, part in evidence:
        examined, against = _examined(kind, part, role, beside)
        (unproved if examined is None else refuted).extend(against)
        if examined is not None:
            unproved.extend(_named(role, _judged(examined, asked.now)))
            devices.extend(examined.facts.devices if isinstance(examined.facts, Fleet) else ())
            ueids += _ueids(examined)
    family, distinct = Ledger(), Ledger()
    if asked.arch is not None and devices:
        arch = asked.arch
        family.run("gpus 4 family", lambda: _check_family(devices, arch))
    distinct.run("gpus 5 distinct", lambda: check_distinct(devices, ueids))
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


def check_distinct(devices: Sequence[Device], ueids: Sequence[str] = ()) -> str:
    """No two devices have one key or one serial number; what none of them signed is nobody's.

    Args:
        devices: by their own reports.
        ueids: of those that a remote service speaks of. A device may be there by both.

    Raises:
        AttestationError: `device_repeated`.
    """
    genuine = [device for device in devices if signed(device)]
    for found in (
        [device.fingerprint for device in genuine],
        [device.chain.serial for device in genuine],
        list(ueids),
    ):
        if len(set(found)) != len(found):
            raise AttestationError(
                "devices: found one twice, expected distinct ones", reasons=("device_repeated",)
            )
    return f"{len(genuine) + len(ueids)} distinct devices"


def _ueids(examined: Examined) -> list[str]:
    """The devices that a remote service's word is on, if it is its word."""
    if examined.authentic is False or not isinstance(examined.facts, DetachedEat):
        return []
    stated = (token.claims.get("ueid") for token in examined.facts.devices.values())
    return [ueid for ueid in stated if isinstance(ueid, str)]


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
    own = beside.own[part]
    if not own:
        taken = {text for texts in beside.own.values() for text in texts}
        likeliest = chains.likeliest(part, taken)
        if likeliest is None or not chains.all_here:
            what = "no certificate chain" if chains.all_here else "too many certificate chains"
            detail = f"found {what} in the sample that can be the device's, expected its own"
            step = f"gpus 2 chain of {role}"
            missing = Reason("collateral_missing", detail, step, case_of="chain_invalid")
            return None, (missing,)
        own = [likeliest]
    found = _best(
        _examine(name, {"evidence": part, "cert_chain": text}, expected, beside)
        for text in own
        for name in _SINGLES
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
