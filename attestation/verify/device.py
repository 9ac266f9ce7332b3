"""NVIDIA devices examined: one report or several, under one nonce; the steps of `verify.spdm`.

What comes of it is a `Fleet`, which the rules judge.
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

from .fleet import Fleet
from .ocsp import RESPONSES_MAX, certificate_id, check_paths, load_response
from .spdm import (
    GPUS,
    HOPPER,
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
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cryptography.x509 import Certificate

    from attestation.examined import Question
    from attestation.ledger import Ledger

    from .ocsp import Response, Status
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
    ledger: Ledger,
    items: Sequence[Item],
    question: Question,
    kinds: Sequence[str],
    rim_roots: Anchors = NVIDIA_RIM,
) -> Examination:
    """Steps 1 to 8 for each device, all that can run.

    Args:
        ledger: the account, in which the caller may have recorded that the items parsed.
        items: at least one.
        question: the examination's input.
        kinds: architectures this evidence kind is for.
        rim_roots: those that vouch for manifests, and for no device. A policy's own roots say for
            themselves what they are for.
    """
    roots = _roots(ledger, question.collateral)
    responses = _responses(ledger, question.collateral)
    anchors = manifest_anchors = question.anchors
    if not anchors.simulated:
        manifest_anchors = Anchors(anchors.pins & rim_roots.pins)
        anchors = Anchors(anchors.pins - rim_roots.pins)
    devices: list[Device] = []
    paths: list[list[Certificate]] = []
    ends = [FOREVER]
    for number, item in enumerate(items):
        name = f" of device {number}" if len(items) > 1 else ""
        device = _parse(ledger, item, name)
        if device is not None:
            devices.append(device)
            path = _verify(ledger, device, item, question, kinds, anchors, roots, name, ends)
            paths.extend([path] if path else [])
    if len(devices) != len(items):
        return Examination(ledger, None, 0, bound=False)
    nonce = question.collateral.get(OCSP_NONCE)
    revocation = _revocation(ledger, responses, paths, len(devices), question, nonce, ends)
    fleet = Fleet(
        devices=tuple(devices),
        revocation=revocation,
        manifests=tuple(
            question.collateral[role] for role in RIM_ROLES if role in question.collateral
        ),
        manifest_anchors=manifest_anchors,
        responses=tuple(responses or ()),
        ocsp_nonce=nonce,
    )
    bound = question.expected.nonce is not None
    return Examination(ledger, fleet, min(ends), bound)


def needs_of(items: Sequence[Item]) -> tuple[Need, ...]:
    """What can be asked of NVIDIA about these devices, unverified; () if they do not parse.

    Nothing is required: a rule decides what must be there. Of more than there are roles for (chains
    are not verified here, so they may be any), the rest is not asked for.
    """
    try:
        return _needs([parse_device(item.report, item.chain) for item in items])
    except (MalformedError, AttestationError):
        return ()


def _needs(devices: Sequence[Device]) -> tuple[Need, ...]:
    # The leaf is made by the chip itself, so no responder knows it; the root is pinned.
    paths = [[load_certificate(der) for der in device.chain.ders[1:]] for device in devices]
    answers = dict.fromkeys(_answer_key(*link) for path in paths for link in _links(path))
    manifests = dict.fromkeys(
        named(rim(name)) for device in devices for name in _manifest_names(device)
    )
    return (*_under(OCSP_ROLES, answers), *_under(RIM_ROLES, manifests))


def further_needs(needs: Sequence[Need], collateral: Mapping[str, bytes]) -> tuple[Need, ...]:
    """OCSP responses about the signers of the manifests at hand: only manifests name them.

    Args:
        needs: those of the evidence, whose roles are taken.
        collateral: role to bytes, unverified; what is no manifest adds nothing.
    """
    try:
        # As in the rules: only who has the library for them reads manifests.
        from .rim import signer_paths
    except ImportError:
        return ()
    paths = signer_paths([collateral[role] for role in RIM_ROLES if role in collateral])
    try:
        answers = dict.fromkeys(_answer_key(*link) for path in paths for link in _links(path))
    except MalformedError:  # a serial number that no key may have
        return ()
    asked = {(need.source, need.key) for need in needs}
    taken = {need.role for need in needs}
    return _under(
        [role for role in OCSP_ROLES if role not in taken],
        [key for key in answers if key not in asked],
    )


def _links(path: Sequence[Certificate]) -> Iterator[tuple[Certificate, Certificate]]:
    """Each certificate with its issuer, where the next one is."""
    return ((one, above) for one, above in itertools.pairwise(path) if one.issuer == above.subject)


def _answer_key(certificate: Certificate, issuer: Certificate) -> tuple[str, str]:
    return named(ocsp("sha384", *certificate_id(certificate, issuer, hashes.SHA384())))


def _under(roles: Iterable[str], keys: Iterable[tuple[str, str]]) -> tuple[Need, ...]:
    return tuple(Need(role, *key, required=False) for role, key in zip(roles, keys, strict=False))


def _manifest_names(device: Device) -> tuple[str, ...]:
    report, family = device.report, device.family
    if family is None:
        return ()
    vbios = report.vbios_version.replace(".", "")
    if family.architecture not in GPUS:  # a switch's report does not state its board
        return (f"NV_SWITCH_BIOS_5612_0002_890_{vbios}",)
    if not device.product:  # a manifest of another chip would be a wrong one, or none
        return ()
    driver = "NV_GPU_DRIVER" if family.architecture == HOPPER else "NV_GPU_CC_DRIVER"
    board = "_".join(report.text(field).upper() for field in (PROJECT, PROJECT_SKU, CHIP_SKU))
    return (
        f"{driver}_{device.product}_{report.driver_version}",
        f"NV_GPU_VBIOS_{board}_{vbios}",
    )


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
    anchors: Anchors,
    roots: Sequence[bytes],
    name: str,
    ends: list[int],
) -> list[Certificate]:
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
    return [verified[0], *path, next(root for root in pinned if root.subject == last.issuer)]


def _revocation(
    ledger: Ledger,
    responses: list[Response] | None,
    paths: Sequence[Sequence[Certificate]],
    count: int,
    question: Question,
    nonce: bytes | None,
    ends: list[int],
) -> Status | None:
    found: list[Status] = []

    # The leaf is made by the chip itself, so no responder is asked about it.
    above = [path[1:] for path in paths]

    def check() -> str:  # step 7
        status = check_paths(
            responses or (), above, question.now, nonce, unasked=paths, skew=question.skew
        )
        found.append(status)
        return f"{status.covered} certificates have a response, {status.held} on hold"

    if responses is None or len(paths) != count:
        if responses:
            ledger.skip("spdm 7 revocation", "no verified chain to ask about")
        return None
    if not responses:  # the rule says whether that is enough; its own step then says so
        return check_paths((), above, question.now, nonce)
    if not ledger.run("spdm 7 revocation", check):
        return None
    ends.append(found[0].not_after)
    return found[0]


def _roots(ledger: Ledger, collateral: Mapping[str, bytes]) -> tuple[bytes, ...]:
    found: list[bytes] = []

    def parse() -> str:
        found.extend(certificates(collateral["root"], "root"))
        return f"{len(found)} certificates that a pin may name"

    if "root" in collateral:
        ledger.run("spdm 0 root", parse, "chain_invalid")
    return tuple(found)


def _responses(ledger: Ledger, collateral: Mapping[str, bytes]) -> list[Response] | None:
    # One response under two roles says nothing more, and costs as much again.
    given = dict.fromkeys(collateral[role] for role in OCSP_ROLES if role in collateral)
    found: list[Response] = []

    def parse() -> str:
        found.extend(load_response(der) for der in given)
        return f"{len(found)} responses"

    if given and not ledger.run("spdm 0 responses", parse):
        return None
    return found
