"""Reference manifests' signers: answers about them are fetched, and end the verdict."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")

from cryptography.x509 import OCSPNonce
from cryptography.x509.ocsp import OCSPCertStatus, load_der_ocsp_request
from simulators.gpu_tee import GPUS, SnpGpuTee
from simulators.nvidia import Nvidia
from simulators.tee import NOW
from simulators.vendor_collateral import rim_answer
from simulators.vendor_services import OCSP, Answer, VendorServices
from simulators.verdicts import accepted, refused_for, rejected

from attestation.anchors import Anchors
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence_collateral import resolve_evidence
from attestation.formats.container import parse_container
from attestation.schemes import SCHEMES
from attestation.verify.device import OCSP_ROLES, RIM_ROLES
from client import cli
from client.clock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from simulators.nvidia_device import Authority

    from attestation.collateral.resolve import Resolved
    from attestation.evidence import Evidence
    from attestation.result import AppraisedEvidence, Refused

SCHEME = SCHEMES[GPUS]


class World:
    """A verifier with a cache, a worker with GPUs, and NVIDIA's services."""

    def __init__(self, folder: Path, now: int = NOW) -> None:
        self.now = now
        self.tee = SnpGpuTee(now=now)
        self.tee.gpu_rule |= {"rim": "required", "rim_ocsp": "required"}
        self.binding = self.tee.binding()
        self.served = VendorServices()
        self.store = Store(folder / "cache")
        self.tee.serve(self.served)
        vendor, gpu = self.tee.nvidia, self.tee.gpus[0]
        for name, what in zip(self.names(), ("driver", "vbios"), strict=True):
            manifest = vendor.manifest(gpu, what)
            self.served.answers[f"/v1/rim/{name}"] = Answer(rim_answer(name, manifest))

    def names(self) -> list[str]:
        needs = SCHEME.needs(self.roles(self.tee.gpu_evidence(self.binding)))
        return [need.key.removeprefix("rim/") for need in needs if need.source == "nvidia-rim"]

    def roles(self, item: Evidence) -> Mapping[str, bytes]:
        return parse_container(item.body, *SCHEMES[item.kind].evidence).roles

    def found(self, *, offline: bool = False) -> dict[str, Resolved]:
        services = self.served.services()
        pins = {*self.tee.nvidia.anchors.pins, *self.tee.amd.anchors.pins}
        vendors = Vendors(services, secrets.token_bytes, Anchors(frozenset(pins), simulated=True))
        with HttpFetcher(services, pause=lambda _: None) as fetcher:
            return {
                item.kind: resolve_evidence(
                    item, self.store, vendors, None if offline else fetcher, self.now
                )
                for item in self.tee.presented(self.binding)
            }

    def appraise(self, *, offline: bool = False) -> AppraisedEvidence | Refused:
        found = {kind: one.roles for kind, one in self.found(offline=offline).items()}
        return self.tee.appraise(binding_raw=self.binding, collateral=found)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    with found.served:
        yield found


def test_evidence_alone_is_enough_where_the_manifests_signers_must_be_checked(
    world: World,
) -> None:
    verdict = accepted(world.appraise())
    assert verdict.expires <= NOW + 3600
    assert not any(found.missing for found in world.found().values())
    asked = len(world.served.asked)
    accepted(world.appraise(offline=True))
    assert len(world.served.asked) == asked


def test_signers_about_whom_nobody_answers_are_refused(world: World) -> None:
    vendor, honest = world.tee.nvidia, world.served.answers[OCSP].body
    assert not isinstance(honest, bytes)
    signers = (vendor.rim_signer, vendor.rim_ca)
    silent = {one.certificate.serial_number for one in signers}
    world.served.answers[OCSP] = Answer(
        lambda body: b"" if load_der_ocsp_request(body).serial_number in silent else honest(body)
    )
    refused_for(world.appraise(), "revocation_not_checked")
    assert [reason.step for reason in world.found()[GPUS].missing] == [
        "collateral ocsp_4", "collateral ocsp_5",
    ]  # fmt: skip
    world.tee.gpu_rule["rim_ocsp"] = "not_checked"
    accepted(world.appraise())


def test_a_revoked_signer_is_refused(world: World) -> None:
    vendor, honest = world.tee.nvidia, world.served.answers[OCSP].body
    assert not isinstance(honest, bytes)

    def answer(body: bytes) -> bytes:
        asked = load_der_ocsp_request(body)
        if asked.serial_number != vendor.rim_signer.certificate.serial_number:
            return honest(body)
        nonce = asked.extensions.get_extension_for_class(OCSPNonce).value.nonce
        return vendor.ocsp(
            vendor.rim_signer, vendor.rim_ca, status=OCSPCertStatus.REVOKED, nonce=nonce
        )

    world.served.answers[OCSP] = Answer(answer)
    refused_for(world.appraise(), "revoked")


def test_what_is_no_manifest_asks_for_nothing_more(world: World) -> None:
    roles = world.roles(world.tee.gpu_evidence(world.binding))
    assert SCHEME.further is not None
    for raw in (b"", b"<SoftwareIdentity/>", world.tee.nvidia.root.der):
        assert SCHEME.further(roles, {"rim": raw}) == ()
    assert SCHEME.further(roles, {}) == ()
    manifest = Nvidia(NOW).manifest(world.tee.gpus[0], "driver")
    (first, second) = SCHEME.further(roles, {"rim": manifest, "rim_1": manifest})
    assert {first.source, second.source} == {"nvidia-ocsp"}
    taken = {need.role for need in SCHEME.needs(roles)}
    assert not taken & {first.role, second.role}


def test_no_evidence_asks_for_more_than_there_are_roles_for() -> None:
    vendor = Nvidia(NOW)
    entries = []
    for number in range(16):  # nobody verifies a chain before asking about it
        gpu = vendor.gpu(driver=f"580.{number}", vbios=f"96.00.74.00.{number:02}")
        line = [vendor.issue(f"{number} 0")]
        for level in range(1, 7):
            line.append(vendor.issue(f"{number} {level}", line[-1]))
        gpu.brom = line[-1]
        chain = (gpu.certificates()[0], *reversed(line))
        entry = gpu.entry(bytes(32))
        pems = b"".join(one.pem for one in chain)
        entries.append({**entry, "certificate": base64.b64encode(pems).decode()})
    needs = SCHEME.needs({"evidence_list": json.dumps(entries).encode()})
    assert [need.role for need in needs] == [*OCSP_ROLES, *RIM_ROLES]


# ---------------------------------------------------------------- the end of a verdict


def stated(
    tee: SnpGpuTee, *, signer_end: int = 86_400, answer_end: int = 86_400, ocsp: str = "required"
) -> SnpGpuTee:
    """Manifests by a signer whose certificate, and the answers about it, end then."""
    vendor = tee.nvidia
    tee.gpu_rule |= {"rim": "required", "rim_ocsp": ocsp}
    signer = vendor.issue("HCC RIM L4 Signer", vendor.rim_ca, ca=False, end=signer_end)
    line: tuple[Authority, ...] = (signer, vendor.rim_ca, vendor.rim_root)
    for role, what in (("rim", "driver"), ("rim_1", "vbios")):
        tee.gpu_statements[role] = vendor.manifest(tee.gpus[0], what, signer=signer, chain=line)
    if ocsp == "required":
        for number, pair in enumerate(itertools.pairwise(line), 40):
            tee.gpu_statements[f"ocsp_{number}"] = vendor.ocsp(*pair, end=answer_end)
    return tee


@pytest.mark.parametrize("ocsp", ["required", "not_checked"])
def test_a_verdict_ends_with_the_certificate_of_a_manifests_signer(ocsp: str) -> None:
    tee = stated(SnpGpuTee(), signer_end=40, ocsp=ocsp)
    assert accepted(tee.appraise()).expires == NOW + 40
    assert "certificate_not_valid_at_time" in rejected(tee.appraise(now=NOW + 41)).codes


def test_a_verdict_ends_with_the_answer_about_a_manifests_signer() -> None:
    tee = stated(SnpGpuTee(), answer_end=40)
    assert accepted(tee.appraise()).expires == NOW + 40
    assert "collateral_expired" in rejected(tee.appraise(now=NOW + 41)).codes


def test_where_no_manifest_is_demanded_none_ends_the_verdict() -> None:
    tee = stated(SnpGpuTee(), signer_end=40, ocsp="not_checked")
    tee.gpu_rule["rim"] = "not_checked"
    del tee.gpu_rule["rim_ocsp"]
    assert accepted(tee.appraise()).expires > NOW + 40


# ---------------------------------------------------------------- the command


def test_the_command_fetches_the_answers_about_signers_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, wall_clock())
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps(world.tee.gpu_evidence(world.binding).to_json()))
    with world.served:
        services = tmp_path / "services.toml"
        url = world.served.url
        services.write_text(f'nvidia_rim = "{url}"\nnvidia_ocsp = "{url}{OCSP}"\n')
        words = ["collateral", "fetch", str(evidence), "--services", str(services)]
        words += ["--cache-dir", str(tmp_path / "cache"), "--json"]
        assert cli.execute(cli.build_parser(), words) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
    kinds = [row["key"].partition(":")[0] for row in document["entries"]]
    assert kinds.count("nvidia-rim") == 2
    assert kinds.count("nvidia-ocsp") == 4 + 2  # two boot ROMs and what they share; the signers
    found = world.found(offline=True)[GPUS]
    assert not found.missing
