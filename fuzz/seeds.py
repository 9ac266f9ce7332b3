"""Honest inputs to start from: vendor samples where there are any, and what simulators make.

Keys of simulators are fresh in each process, so inputs made from them are reproducible in all but
key material.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulators import amd, corim, event_log, hcl, intel, nitro, nras, nvidia, nvidia_device, vtpm
from simulators.tokens import Issuer

from attestation.anchors import NONE, Anchors
from attestation.conformance.index import parse_index
from attestation.conformance.stated import expected_of
from attestation.examined import Expected, Question
from attestation.formats.spdm import CHIP_INFO
from attestation.schemes import SCHEMES
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NONCE: Final = bytes(range(32))
PIECE_MAX: Final = 64 * 1024  # longer logs only make a run slower, not deeper


@dataclass(frozen=True, slots=True)
class Seed:
    """One honest input.

    Attributes:
        roles: name to bytes; parsers of one piece have the name "".
        context: whatever else the target needs.
    """

    roles: Mapping[str, bytes]
    context: Any = None


def samples_folder() -> Path | None:
    """The folder of vendor samples, or None."""
    named = os.environ.get("ANCHORHOLD_VECTORS")
    folder = Path(named) if named else None
    return folder if folder is not None and (folder / "index.json").is_file() else None


@cache
def questions(kind: str) -> tuple[Question, ...]:
    """Examinations of one kind: of samples first, then of what its simulator makes."""
    return (*_sampled().get(kind, ()), *simulated(kind))


@cache
def simulated(kind: str) -> tuple[Question, ...]:
    """Examinations of what this kind's simulated vendor makes."""
    return tuple(_SIMULATED[kind]())


def pieces(role: str, *kinds: str) -> tuple[Seed, ...]:
    """Every honest piece of this role, of these kinds or of all."""
    found: dict[bytes, None] = {}
    for kind in kinds or SCHEMES:
        for question in questions(kind):
            for roles in (question.evidence, question.collateral):
                if role in roles:
                    found.setdefault(roles[role])
    return tuple(Seed({"": piece}) for piece in found if len(piece) <= PIECE_MAX)


@cache
def _sampled() -> Mapping[str, list[Question]]:
    folder = samples_folder()
    if folder is None:
        return {}
    index = parse_index((folder / "index.json").read_bytes())
    found: dict[str, list[Question]] = {}
    for sample in index.samples:
        scheme = SCHEMES.get(sample.kind)
        if scheme is None:
            continue
        files = {role: (folder / path).read_bytes() for role, path in sample.files.items()}
        try:
            expected = expected_of(sample)
        except MalformedError:
            continue
        evidence = {*scheme.evidence[0], *scheme.evidence[1]}
        question = Question(
            evidence={role: data[:PIECE_MAX] for role, data in files.items() if role in evidence},
            collateral={role: data for role, data in files.items() if role in scheme.collateral},
            anchors=scheme.anchors if scheme.anchors.pins else Anchors(index.roots),
            expected=expected,
            now=sample.at or 0,
        )
        found.setdefault(sample.kind, []).append(question)
    return found


@cache
def amd_vendor() -> amd.Amd:
    """One simulated AMD: making its RSA keys is slow."""
    return amd.Amd("Genoa")


@cache
def amd_chip() -> amd.Chip:
    """A chip of it."""
    return amd_vendor().chip()


@cache
def nvidia_vendor() -> nvidia.Nvidia:
    """One simulated NVIDIA."""
    return nvidia.Nvidia()


def _snp() -> list[Question]:
    vendor, chip = amd_vendor(), amd_chip()
    provider = vendor.provider()
    collateral = vendor.collateral(crl=vendor.crl((3, 4)))
    older = [  # no processor named, none of mitigations, mitigations that a guest began without
        chip.evidence(version=2),
        chip.evidence(version=4, cpuid=(0x19, 0x11, 1)),
        chip.evidence(version=5, launch_mit=0b1001, current_mit=0b1111, cpuid=(0x19, 0x11, 1)),
    ]
    return [
        *(vendor.question(evidence, collateral) for evidence in older),
        vendor.question(
            chip.evidence(report_data=NONCE * 2), collateral, Expected(report_data=NONCE * 2)
        ),
        vendor.question(provider.evidence(), vendor.collateral("vlek")),
    ]


def _azure_snp() -> list[Question]:
    vendor, chip = amd_vendor(), amd_chip()
    vm = hcl.Paravisor(chip.report)
    return [
        vendor.question(
            vm.evidence(vtpm.NONCE),
            vendor.collateral(vcek=chip.cert, crl=vendor.crl()),
            Expected(nonce=vtpm.NONCE),
        )
    ]


def _azure_tdx() -> list[Question]:
    vendor = intel.Intel()

    def report(report_data: bytes) -> bytes:
        vendor.body["report_data"] = report_data
        return hcl.td_report(report_data, vendor.body["mr_td"])

    evidence = hcl.Paravisor(report).evidence(vtpm.NONCE, kind=4)
    return [
        Question(
            evidence={**evidence, "td_quote": vendor.quote()},
            anchors=vendor.anchors(),
            now=intel.NOW,
            collateral={"collateral": vendor.collateral()},
            expected=Expected(nonce=vtpm.NONCE),
        )
    ]


def _tdx() -> list[Question]:
    found = []
    for version, extended in ((4, False), (5, False), (5, True)):
        vendor = intel.Intel("tdx", version)
        vendor.revoked_pck.append(77)
        if extended:
            vendor.extended()
        found.append(vendor.question())
        found.append(
            Question(
                evidence={"quote": vendor.quote()},
                anchors=vendor.anchors(),
                now=intel.NOW,
                collateral=vendor.roles(),
            )
        )
    return found


def _nitro() -> list[Question]:
    vendor = nitro.NitroVendor(1_790_000_000)
    enclave = nitro.NitroEnclave(vendor, nonce=NONCE, user_data=bytes(64), public_key=bytes(65))
    streamed = nitro.NitroEnclave(vendor, encode=nitro.streamed, tagged=True)
    expected = (Expected(nonce=NONCE, user_data=bytes(64)), Expected())
    return [
        Question({"document": made.document()}, vendor.anchors, vendor.now, expected=asked)
        for made, asked in zip((enclave, streamed), expected, strict=True)
    ]


def _nvidia(*architectures: str) -> list[Question]:
    vendor = nvidia_vendor()
    found = []
    for architecture in architectures:
        device = vendor.switch() if architecture == "LS10" else vendor.gpu(architecture)
        answers = {f"ocsp_{n}": der for n, der in enumerate(vendor.revocation(device), 1)}
        found.append(
            Question(
                {"evidence": device.report(NONCE), "cert_chain": device.chain()},
                vendor.anchors,
                vendor.now,
                answers,
                Expected(nonce=NONCE, arch=architecture),
            )
        )
    return found


def _gpus() -> list[Question]:
    line = Expected(nonce=NONCE, arch="BLACKWELL")
    device = line_device()
    evidence = {"evidence": device.report(NONCE), "cert_chain": device.chain()}
    vendor = nvidia_vendor()
    return [
        Question(evidence, vendor.anchors, vendor.now, expected=line),
        *_nvidia("HOPPER", "BLACKWELL"),
    ]


def line_device() -> nvidia_device.Device:
    """A GPU whose certificates name a line of chips; its report says which of them it is."""
    device = nvidia_vendor().gpu("BLACKWELL", common="GB20X A01 GSP FMC LF")
    device.opaque = {**device.opaque, CHIP_INFO: b"GB202\0"}
    return device


def _nvidia_list() -> list[Question]:
    vendor = nvidia_vendor()
    gpu = vendor.gpu()
    hexes = [make(gpu, NONCE) for make in (nvidia_device.text_entry, nvidia_device.raw_entry)]
    lists = [
        nvidia_device.listing([gpu, vendor.gpu()], NONCE),
        nvidia_device.listing([line_device()], NONCE),
        *(json.dumps(one).encode() for one in hexes),
        json.dumps({"nonce": NONCE.hex(), "arch": "HOPPER", "evidence_list": hexes}).encode(),
    ]
    return [
        Question({"evidence_list": raw}, vendor.anchors, vendor.now, expected=Expected(nonce=NONCE))
        for raw in lists
    ]


def _tpm() -> list[Question]:
    maker = vtpm.VtpmMaker()
    tpm = vtpm.Vtpm(maker)
    tpm.boot(boot_log())
    collateral = maker.collateral(crl_intermediate=maker.crl(), crl_root=maker.crl("root"))
    return [maker.question(tpm.evidence(), collateral=collateral)]


def boot_log() -> event_log.EventLog:
    """An agile log of a few events."""
    log = event_log.EventLog(("sha1", "sha256"))
    log.locality(3)
    for register, data in ((0, b"firmware"), (4, b"loader"), (4, b"kernel"), (9, b"initrd")):
        log.measure(register, data)
    return log


def cc_log() -> event_log.EventLog:
    """A CC log of a few events."""
    log = event_log.EventLog.cc()
    for register in (1, 2, 3, 3):
        log.measure(register, b"event")
    return log


def _tcg() -> list[Question]:
    legacy = event_log.EventLog.legacy()
    legacy.measure(4, b"kernel")
    logs = (boot_log(), legacy)
    return [Question({"event_log": log.encode()}, NONE, 0) for log in logs]


def _cc() -> list[Question]:
    vendor, log = intel.Intel(), cc_log()
    for register, value in log.registers("sha384").items():
        vendor.body[f"rt_mr{register - 1}"] = value
    evidence = {"quote": vendor.quote(), "event_log": log.encode()}
    return [Question(evidence, vendor.anchors(), intel.NOW)]


def _nras() -> list[Question]:
    whole = nras.NrasService(devices=2)
    whole.devices["SWITCH-0"] = nras.switch_claims()
    found = []
    for service in (nras.NrasService(version="2.0"), whole):
        keys, raw = {"jwks": service.jwks()}, service.bundle(NONCE)
        asked = Expected(nonce=NONCE)
        found.append(Question({"eat": raw}, NONE, service.now + 1, keys, asked))
    named = json.dumps({"detached_eat": json.loads(raw)}).encode()  # as local tools wrap it
    switches = nras.NrasService()
    switches.issuer, switches.devices = whole.issuer, {"SWITCH-1": nras.switch_claims(1)}
    bundles = {"REMOTE_GPU_CLAIMS": raw, "REMOTE_SWITCH_CLAIMS": switches.bundle(NONCE)}
    wrapped = nras.sdk_token(bundles)  # as the SDK hands them out
    return [*(replace(found[-1], evidence={"eat": one}) for one in (named, wrapped)), *found]


EAR_CLAIMS: Final[Mapping[str, Any]] = {
    "eat_profile": "tag:github.com,2023:veraison/ear",
    "iat": 1_790_000_000,
    "exp": 1_790_003_600,
    "ear.verifier-id": {"developer": "a verifier", "build": "1"},
    "submods": {
        "PLATFORM": {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": {"hardware": 2, "executables": 3, "configuration": 2},
            "ear.appraisal-policy-id": "policy 1",
        },
        "REALM": {"ear.status": "none"},
    },
}


def _ear() -> list[Question]:
    issuers = (Issuer("ES256"), Issuer("EdDSA"), Issuer("PS256"))
    return [
        Question(
            {"token": issuer.sign(dict(EAR_CLAIMS)).encode()},
            NONE,
            1_790_000_001,
            {"jwks": issuer.jwks()},
        )
        for issuer in issuers
    ]


def _corim() -> list[Question]:
    found = []
    for algorithm in (corim.ES256, corim.ES384, corim.EDDSA):
        publisher = corim.CorimPublisher(algorithm, not_before=1, not_after=2_000_000_000)
        values = {1: corim.tagged(552, 7), 2: [[1, bytes(32)], [7, bytes(48)]]}
        publisher.reference(
            corim.environment("acme"), corim.element("firmware", values), corim.element(7)
        )
        publisher.reference(corim.environment(), corim.component())
        collateral = {"public_key": publisher.public_key}
        for role, raw in (
            ("corim", publisher.signed()),
            ("corim", publisher.unsigned()),
            ("comid", publisher.comid()),
        ):
            found.append(Question({role: raw}, NONE, 1_790_000_000, collateral))
    return [*found, *_profiles()]


def _profiles() -> list[Question]:
    """Manifests that keep a profile of Arm's, unwrapped modules, and keys of attesters."""
    found = []
    for profile in (corim.CCA_PLATFORM, corim.CCA_REALM, corim.PSA):
        publisher = corim.CorimPublisher(wrapped=False, members={3: profile})
        publisher.reference(
            corim.environment(instance=corim.tagged(550, bytes(33))),
            corim.component(),
            corim.element("r", {14: {"rim": [[7, bytes(48)]]}}),
        )
        publisher.attest_key(corim.environment(), corim.tagged(554, "MFkw"))
        keys = {"public_key": publisher.public_key}
        found.append(Question({"corim": publisher.signed()}, NONE, 1_790_000_000, keys))
    return found


_SIMULATED: Final[Mapping[str, Callable[[], list[Question]]]] = {
    "amd-sev-snp-report": _snp,
    "azure-vtpm-snp": _azure_snp,
    "azure-vtpm-tdx": _azure_tdx,
    "intel-tdx-quote": _tdx,
    "intel-sgx-quote": lambda: [intel.Intel("sgx").question()],
    "aws-nitro-document": _nitro,
    "nvidia-gpu-spdm": _gpus,
    "nvidia-nvswitch-spdm": lambda: _nvidia("LS10"),
    "nvidia-gpu-spdm-list": _nvidia_list,
    "tpm2-quote": _tpm,
    "nvidia-nras-eat": _nras,
    "ear-jwt": _ear,
    "corim": _corim,
    "cc-event-log": _cc,
    "tcg-event-log": _tcg,
}
