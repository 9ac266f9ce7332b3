"""Kind `nvidia-gpu-spdm-list`: the GPUs of one node, under one nonce; or its switches.

A list is one of switches if each item says so, or, where none says anything, if that was asked for.
None holds both, and no switch counts as a worker's GPU: a policy cannot name switches where it
demands GPUs (`rules.nvidia`), and `composite` refuses them.

Each device goes through steps 1 to 8 of `verify.spdm`; besides, the list's own:

 9. what is stated beside the reports agrees with them, and all answer one nonce
                                                    nonce_mismatch, profile_violation

A list is as genuine as its least device. One device that stands in it twice answers genuinely both
times: who counts (`rules.nvidia` 19), or names each (`composite` 3), refuses that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attestation.examined import NO_CLAIMS, Examined
from attestation.formats.gpu_list import parse_list
from attestation.ledger import Ledger
from attestation.rules import nvidia
from attestation.scheme import Scheme
from attestation.verify.device import COLLATERAL, Item, examine_items, further_needs, needs_of
from attestation.verify.spdm import GPUS, SWITCHES
from wire.errors import MalformedError, refused

from .nvidia_gpu import ANCHORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.examined import Question
    from attestation.formats.gpu_list import Entry
    from attestation.scheme import Need
    from attestation.verify.fleet import Fleet
    from attestation.verify.spdm import Device

_refused: Final = partial(refused, about="GPU list")
KIND: Final = "nvidia-gpu-spdm-list"
ROLE: Final = "evidence_list"


def examine(question: Question) -> Examined:
    """Whether genuine GPUs say this, all of them, for the nonce expected."""
    ledger = Ledger()
    entries: list[Entry] = []

    def parse() -> str:
        entries.extend(parse_list(question.evidence.get(ROLE, b"")))
        return f"{len(entries)} devices"

    if not ledger.run("spdm 0 list", parse, "evidence_malformed"):
        return Examined(
            KIND,
            authentic=False,
            checks=tuple(ledger.checks),
            reasons=tuple(ledger.reasons),
            not_after=0,
        )
    kinds = _kinds(entries, question.expected.arch)
    examination = examine_items(ledger, _items(entries), question, kinds)
    fleet = examination.fleet
    if fleet is None:
        return examination.finish(KIND, NO_CLAIMS)
    ledger.run("spdm 9 one list", lambda: _agree(entries, fleet.devices))
    return examination.finish(KIND, _claims(fleet))


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Collateral for this evidence."""
    try:
        return needs_of(_items(parse_list(evidence.get(ROLE, b""))))
    except MalformedError:
        return ()


def further(evidence: Mapping[str, bytes], collateral: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Answers about the signers of the manifests at hand."""
    return further_needs(needs(evidence), collateral)


def _items(entries: Sequence[Entry]) -> list[Item]:
    return [Item(entry.report, entry.chain, entry.arch) for entry in entries]


def _kinds(entries: Sequence[Entry], expected: str | None) -> tuple[str, ...]:
    stated = {entry.arch for entry in entries}
    if stated == {None}:
        stated = {expected and expected.upper()}
    return SWITCHES if stated <= set(SWITCHES) else GPUS


def _agree(entries: Sequence[Entry], devices: Sequence[Device]) -> str:  # step 9
    nonces = {device.report.nonce for device in devices}
    nonces.update(entry.nonce for entry in entries if entry.nonce is not None)
    if len(nonces) != 1:
        raise _refused("nonce_mismatch", f"found {len(nonces)} nonces, expected one for all")
    for entry, device in zip(entries, devices, strict=True):
        stated = (entry.driver_version, entry.vbios_version)
        found = (device.report.driver_version, device.report.vbios_version)
        if any(
            claim is not None and claim.casefold() != value.casefold()
            for claim, value in zip(stated, found, strict=True)
        ):
            raise _refused("profile_violation", "a stated version is not the report's")
    return f"{len(devices)} devices under one nonce"


def _claims(fleet: Fleet) -> dict[str, Any]:
    return {
        "count": len(fleet.devices),
        "nonce": fleet.devices[0].report.nonce.hex(),
        "devices": [
            {
                "driver_version": device.report.driver_version,
                "vbios_version": device.report.vbios_version,
                "device_serial": device.chain.serial,
                "fwid": device.report.fwid.hex(),
                "fwid_matches_leaf": device.fwid_matches,
            }
            for device in fleet.devices
        ],
        "gpus": [device.fingerprint for device in fleet.devices],
        "architectures": sorted(
            {device.family.architecture for device in fleet.devices if device.family is not None}
        ),
    }


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=((ROLE,), ()),
    collateral=COLLATERAL,
    anchors=ANCHORS,
    examine=examine,
    needs=needs,
    rule=nvidia.parse_list,
    judge=nvidia.judge,
    carries=None,
    rule_keys=(nvidia.GPU_LIST_KEYS, nvidia.OPTIONAL_KEYS),
    further=further,
)
