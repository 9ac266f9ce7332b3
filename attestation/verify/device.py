"""NVIDIA devices examined: one report or several, under one nonce; the steps of `verify.spdm`.

`Fleet` is what the rules judge. Reference manifests (RIM) travel in it unread: only a rule that
demands them reads and verifies them, because their signatures need an XML library.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes

from attestation.anchors import NVIDIA_RIM, Anchors
from attestation.collateral_key import named, ocsp, rim
from attestation.examined import FOREVER, Examined
from attestation.formats.pem import certificates
from attestation.formats.spdm import CHIP_SKU, PROJECT, PROJECT_SKU
from attestation.scheme import Need
from wire.errors import AttestationError, MalformedError

from .ocsp import RESPONSES_MAX, Status, certificate_id, check_path, load_response
from .spdm import (
    BLACKWELL,
    GPUS,
    check_chain,
    check_end,
    check_family,
    check_firmware,
    check_nonce,
    check_signature,
    check_version,
    parse_device,
)
from .x509 import load_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

    from attestation.examined import Question
    from attestation.ledger import Ledger

    from .ocsp import Response
    from .spdm import Device

DEVICES_MAX: Final = 16  # a node has eight GPUs; each costs five signatures
MANIFESTS_MAX: Final = 16
OCSP_NONCE: Final = "ocsp_nonce"
OCSP_ROLES: Final = ("ocsp", *(f"ocsp_{number}" for number in range(1, RESPONSES_MAX)))
RIM_ROLES: Final = ("rim", *(f"rim_{number}" for number in range(1, MANIFESTS_MAX)))
COLLATERAL: Final = ("root", OCSP_NONCE, *OCSP_ROLES, *RIM_ROLES)


@dataclass(frozen=True, slots=True)
class Item:
    """One device's evidence as received.

    Attributes:
        report: SPDM request and response.
        chain: PEM.
        arch: the architecture the sender states, or None.
    """

    report: bytes
    chain: bytes
    arch: str | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices of one piece of evidence; no more verified than its ledger says.

    Attributes:
        devices: in the sender's order; none is missing.
        revocation: what the OCSP responses supplied say; None if they did not verify.
        manifests: reference manifests supplied, unread.
        manifest_anchors: roots that may vouch for them.
        responses: OCSP responses, for the manifests' signers.
        ocsp_nonce: what each response must carry, or None.
    """

    devices: tuple[Device, ...]
    revocation: Status | None
    manifests: tuple[bytes, ...]
    manifest_anchors: Anchors
    responses: tuple[Response, ...] = ()
    ocsp_nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """An examination in progress: its account, and what a scheme turns it into."""

    ledger: Ledger
    fleet: Fleet | None
    not_after: int
    bound: bool

    def finish(self, kind: str, claims: Mapping[str, Any]) -> Examined:
        """The result under the kind's own claims."""
        devices = self.fleet.devices if self.fleet else ()
        return Examined(
            kind=kind,
            authentic=self.ledger.accepted and not self.ledger.reasons,
            claims=claims,
            facts=self.fleet,
            checks=tuple(self.ledger.checks),
            reasons=tuple(self.ledger.reasons),
            not_after=self.not_after,
            identities=tuple(name for device in devices for name in device.identities),
            bound=self.bound and not self.ledger.reasons,
        )


def examine_items(
    ledger: Ledger, items: Sequence[Item], question: Question, kinds: Sequence[str]
) -> Examination:
    """Steps 1 to 8 for each device, all that can run.

    Args:
        ledger: the account, in which the caller may have recorded that the items parsed.
        items: at least one.
        question: the examination's input.
        kinds: architectures this evidence kind is for.
    """
    roots = _roots(ledger, question.collateral)
    responses = _responses(ledger, question.collateral)
    devices: list[Device] = []
    paths: list[list[Certificate]] = []
    ends = [FOREVER]
    for number, item in enumerate(items):
        name = f" of device {number}" if len(items) > 1 else ""
        device = _parse(ledger, item, name)
        if device is not None:
            devices.append(device)
            path = _verify(ledger, device, item, question, kinds, roots, name, ends)
            paths.extend([path] if path else [])
    if len(devices) != len(items):
        return Examination(ledger, None, 0, bound=False)
    nonce = question.collateral.get(OCSP_NONCE)
    revocation = _revocation(ledger, responses, paths, len(devices), question.now, nonce, ends)
    anchors = question.anchors
    fleet = Fleet(
        devices=tuple(devices),
        revocation=revocation,
        manifests=tuple(
            question.collateral[role] for role in RIM_ROLES if role in question.collateral
        ),
        manifest_anchors=(
            anchors if anchors.simulated else Anchors(anchors.pins & NVIDIA_RIM.pins)
        ),
        responses=tuple(responses or ()),
        ocsp_nonce=nonce,
    )
    bound = question.expected.nonce is not None
    return Examination(ledger, fleet, min(ends), bound)


def needs_of(items: Sequence[Item]) -> tuple[Need, ...]:
    """What can be asked of NVIDIA about these devices, unverified; () if they do not parse.

    Nothing is required: a rule decides what must be there.
    """
    try:
        return _needs([parse_device(item.report, item.chain) for item in items])
    except (MalformedError, AttestationError):
        return ()


def _needs(devices: Sequence[Device]) -> tuple[Need, ...]:
    keys: dict[tuple[str, str], str] = {}
    roles = iter(OCSP_ROLES)
    for device in devices:
        path = [load_certificate(der) for der in device.chain.ders]
        # The leaf is made by the chip itself, so no responder knows it; the root is pinned.
        for certificate, issuer in itertools.pairwise(path[1:]):
            name = certificate_id(certificate, issuer, hashes.SHA384())
            key = named(ocsp("sha384", *name))
            if key not in keys:
                keys[key] = next(roles)
    manifests = iter(RIM_ROLES)
    for device in devices:
        for manifest in _manifest_names(device):
            key = named(rim(manifest))
            if key not in keys:
                keys[key] = next(manifests)
    return tuple(Need(role, *key, required=False) for key, role in keys.items())


def _manifest_names(device: Device) -> tuple[str, ...]:
    report, family = device.report, device.family
    if family is None:
        return ()
    vbios = report.vbios_version.replace(".", "")
    if family.architecture not in GPUS:  # a switch's report does not state its board
        return (f"NV_SWITCH_BIOS_5612_0002_890_{vbios}",)
    driver = "NV_GPU_CC_DRIVER_GB100" if family.architecture == BLACKWELL else "NV_GPU_DRIVER_GH100"
    board = "_".join(report.text(field).upper() for field in (PROJECT, PROJECT_SKU, CHIP_SKU))
    return (f"{driver}_{report.driver_version}", f"NV_GPU_VBIOS_{board}_{vbios}")


def _parse(ledger: Ledger, item: Item, name: str) -> Device | None:  # steps 1, 2
    found: list[Device] = []

    def parse() -> str:
        found.append(parse_device(item.report, item.chain))
        return check_end(found[0])

    if not ledger.run(f"spdm 1 version{name}", lambda: check_version(item.report)):
        return None
    ledger.run(f"spdm 2 format{name}", parse, "evidence_malformed")
    return found[0] if found else None


def _verify(
    ledger: Ledger,
    device: Device,
    item: Item,
    question: Question,
    kinds: Sequence[str],
    roots: Sequence[bytes],
    name: str,
    ends: list[int],
) -> list[Certificate]:
    # A root for manifests vouches for no device.
    anchors = question.anchors
    if not anchors.simulated:
        anchors = Anchors(anchors.pins - NVIDIA_RIM.pins)
    verified: list[Certificate] = []

    def chain() -> str:  # step 3
        leaf, not_after = check_chain(device, roots, anchors, question.now)
        verified.append(leaf)
        ends.append(not_after)
        return f"{len(device.chain.ders)} certificates under a pinned root"

    def family() -> str:  # step 4
        detail = check_family(device, kinds, question.expected.arch)
        if item.arch is not None:
            check_family(device, kinds, item.arch)
        return detail

    ledger.run(f"spdm 3 chain{name}", chain)
    ledger.run(f"spdm 4 family{name}", family)
    ledger.run(
        f"spdm 5 signature{name}",
        lambda: check_signature(device, verified[0] if verified else None),
    )
    ledger.run(f"spdm 6 firmware{name}", lambda: check_firmware(device))
    nonce = question.expected.nonce
    if nonce is not None:
        ledger.run(f"spdm 8 nonce{name}", lambda: check_nonce(device, nonce))
    if not verified:
        return []
    ders = device.chain.ders
    path = [load_certificate(der) for der in ders[1:] if not anchors.trusts(der)]
    last = path[-1] if path else verified[0]
    pinned = map(load_certificate, anchors.among((*ders, *roots)))
    return [*path, next(root for root in pinned if root.subject == last.issuer)]


def _revocation(
    ledger: Ledger,
    responses: list[Response] | None,
    paths: Sequence[Sequence[Certificate]],
    count: int,
    now: int,
    nonce: bytes | None,
    ends: list[int],
) -> Status | None:
    found: list[Status] = []

    def check() -> str:  # step 7
        for path in paths:
            found.append(check_path(responses or (), path, now, nonce))
        held = sum(status.held for status in found)
        covered = sum(status.covered for status in found)
        return f"{covered} certificates have a response, {held} on hold: the rule decides"

    if responses is None or len(paths) != count:
        if responses:
            ledger.skip("spdm 7 revocation", "no verified chain to ask about")
        return None
    if responses and not ledger.run("spdm 7 revocation", check):
        return None
    if not responses:  # the rule says whether that is enough; its own step then says so
        found = [Status(0, len(path) - 1, 0, FOREVER) for path in paths]
    ends.append(min(status.not_after for status in found))
    return Status(
        covered=sum(status.covered for status in found),
        expected=sum(status.expected for status in found),
        held=sum(status.held for status in found),
        not_after=min(status.not_after for status in found),
    )


def _roots(ledger: Ledger, collateral: Mapping[str, bytes]) -> tuple[bytes, ...]:
    found: list[bytes] = []

    def parse() -> str:
        found.extend(certificates(collateral["root"], "root"))
        return f"{len(found)} certificates that a pin may name"

    if "root" in collateral:
        ledger.run("spdm 0 root", parse, "chain_invalid")
    return tuple(found)


def _responses(ledger: Ledger, collateral: Mapping[str, bytes]) -> list[Response] | None:
    given = [collateral[role] for role in OCSP_ROLES if role in collateral]
    found: list[Response] = []

    def parse() -> str:
        found.extend(load_response(der) for der in given)
        return f"{len(found)} responses"

    if given and not ledger.run("spdm 0 responses", parse):
        return None
    return found
