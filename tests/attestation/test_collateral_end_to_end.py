"""From a worker's evidence alone: what its scheme needs is fetched, and makes it genuine."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from simulators.amd import Amd
from simulators.intel import Intel
from simulators.nras import NrasService
from simulators.nvidia import Nvidia
from simulators.vendor_collateral import pem, rim_answer
from simulators.vendor_services import ISSUER, JWKS, OCSP, Answer, Fault, VendorServices

from attestation.anchors import Anchors
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved, resolve
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.examined import Examined, Expected, Question
from attestation.schemes import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from simulators.nvidia import Authority

REPORT_DATA = bytes(range(64))
NONCE = bytes(range(32))


class Verifier:
    """A verifier with a cache, loopback services, and the simulated vendors' roots."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "cache")
        self.served = VendorServices()

    def resolve(
        self, kind: str, evidence: Mapping[str, bytes], anchors: Anchors, now: int
    ) -> Resolved:
        services = self.served.services()
        vendors = Vendors(services, secrets.token_bytes, anchors)
        with HttpFetcher(services, pause=lambda _: None) as fetcher:
            return resolve(SCHEMES[kind].needs(evidence), self.store, vendors, fetcher, now)

    def examine(
        self,
        kind: str,
        evidence: Mapping[str, bytes],
        anchors: Anchors,
        now: int,
        expected: Expected,
    ) -> tuple[Resolved, Examined]:
        found = self.resolve(kind, evidence, anchors, now)
        question = Question(evidence, anchors, now, found.roles, expected)
        return found, SCHEMES[kind].examine(question)


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    found = Verifier(tmp_path)
    with found.served:
        yield found


def serve_intel(served: VendorServices, intel: Intel) -> None:
    roles = intel.roles()
    signer = {"TCB-Info-Issuer-Chain": quote(roles["tcb_sign_chain"])}
    tee, fmspc = intel.tee, intel.fmspc.hex()
    served.answers[f"/{tee}/certification/v4/tcb?fmspc={fmspc}&update=standard"] = Answer(
        roles["tcb_info"], signer
    )
    served.answers[f"/{tee}/certification/v4/qe/identity?update=standard"] = Answer(
        roles["qe_identity"],
        {"SGX-Enclave-Identity-Issuer-Chain": signer["TCB-Info-Issuer-Chain"]},
    )
    chain = quote(roles["pck_sign_chain"])
    served.answers["/sgx/certification/v4/pckcrl?ca=platform&encoding=der"] = Answer(
        roles["pck_crl"], {"SGX-PCK-CRL-Issuer-Chain": chain}
    )
    served.answers["/IntelSGXRootCA.der"] = Answer(roles["root_crl"])


@pytest.mark.parametrize(
    ("tee", "version", "kind"),
    [("tdx", 4, "intel-tdx-quote"), ("tdx", 5, "intel-tdx-quote"), ("sgx", 3, "intel-sgx-quote")],
)
def test_an_intel_quote_alone_is_enough(
    verifier: Verifier, tee: str, version: int, kind: str
) -> None:
    intel = Intel(tee, version)
    intel.body["report_data"] = REPORT_DATA
    evidence = {"quote": intel.quote()}
    serve_intel(verifier.served, intel)
    found, examined = verifier.examine(
        kind, evidence, intel.anchors(), intel.now, Expected(report_data=REPORT_DATA)
    )
    assert not found.missing
    assert examined.reasons == ()
    assert examined.authentic


def test_an_intel_quote_whose_certificate_was_revoked_meanwhile_is_refused(
    verifier: Verifier,
) -> None:
    intel = Intel()
    evidence = {"quote": intel.quote()}
    serve_intel(verifier.served, intel)
    assert verifier.examine("intel-tdx-quote", evidence, intel.anchors(), intel.now, Expected())[
        1
    ].authentic
    intel.revoked_pck.append(intel.pck.serial)
    serve_intel(verifier.served, intel)
    later = intel.now + 24 * 3600  # the cached list has ended
    _, examined = verifier.examine("intel-tdx-quote", evidence, intel.anchors(), later, Expected())
    assert "revoked" in [reason.code for reason in examined.reasons]


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_an_amd_report_alone_is_enough(verifier: Verifier, product: str) -> None:
    amd = Amd(product)
    chip = amd.chip()
    report = chip.evidence(report_data=REPORT_DATA)["report"]
    chain = pem(*(x509.load_der_x509_certificate(der) for der in (amd.ask, amd.root))).encode()
    verifier.served.answers[f"/vcek/v1/{product}/cert_chain"] = Answer(chain)
    verifier.served.answers[f"/vcek/v1/{product}/crl"] = Answer(amd.crl())
    path = path_of_vcek(verifier, {"report": report}, amd)
    verifier.served.answers[path] = Answer(chip.cert)
    found, examined = verifier.examine(
        "amd-sev-snp-report",
        {"report": report},
        amd.anchors,
        amd.now,
        Expected(report_data=REPORT_DATA),
    )
    assert not found.missing
    assert examined.reasons == ()
    assert examined.authentic


def path_of_vcek(verifier: Verifier, evidence: Mapping[str, bytes], amd: Amd) -> str:
    """What the service is asked: the first question about a chip goes unanswered."""
    found = verifier.resolve("amd-sev-snp-report", evidence, amd.anchors, amd.now)
    assert [reason.code for reason in found.missing] == ["collateral_unavailable"]
    assert not found.complete
    return next(path for _, path, _ in verifier.served.asked if "blSPL" in path)


def test_nvidias_responder_and_manifests_are_asked_about_a_gpu(verifier: Verifier) -> None:
    vendor = Nvidia()
    gpu = vendor.gpu()
    evidence = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    line = (gpu.brom, vendor.icas[gpu.chip], vendor.identity[gpu.chip], vendor.root)
    verifier.served.answers[OCSP] = Answer(lambda body: respond(vendor, line, body))
    found, examined = verifier.examine(
        "nvidia-gpu-spdm", evidence, vendor.anchors, vendor.now, Expected(nonce=NONCE)
    )
    assert len([role for role in found.roles if role.startswith("ocsp")]) == 3
    assert {reason.code for reason in found.missing} == {"collateral_unavailable"}  # no manifests
    asked = [path for _, path, _ in verifier.served.asked if path.startswith("/v1/rim/")]
    assert len(asked) == 2
    for path in asked:
        name = path.removeprefix("/v1/rim/")
        verifier.served.answers[path] = Answer(rim_answer(name, b"<SoftwareIdentity/>"))
    complete = verifier.resolve("nvidia-gpu-spdm", evidence, vendor.anchors, vendor.now)
    assert not complete.missing
    assert examined.reasons == ()
    assert examined.authentic


def test_an_answer_that_the_issuer_did_not_sign_denies_until_renewed_and_proves_nothing(
    verifier: Verifier,
) -> None:
    """Nothing is at hand on arrival to verify it by; every verification does."""
    vendor = Nvidia()
    gpu = vendor.gpu()
    evidence = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    line = (gpu.brom, vendor.icas[gpu.chip], vendor.identity[gpu.chip], vendor.root)
    now, asked = vendor.now, Expected(nonce=NONCE)

    def forge(body: bytes) -> bytes:
        genuine = respond(vendor, line, body)
        return genuine[:-1] + bytes([genuine[-1] ^ 1])

    verifier.served.answers[OCSP] = Answer(forge)
    for at in (now, now + 1800):
        found, examined = verifier.examine("nvidia-gpu-spdm", evidence, vendor.anchors, at, asked)
        assert len([role for role in found.roles if role.startswith("ocsp")]) == 3
        assert examined.authentic is False
        assert "ocsp_invalid" in {reason.code for reason in examined.reasons}
    verifier.served.answers[OCSP] = Answer(lambda body: respond(vendor, line, body))
    _, examined = verifier.examine("nvidia-gpu-spdm", evidence, vendor.anchors, now + 2700, asked)
    assert examined.reasons == ()
    assert examined.authentic


def respond(vendor: Nvidia, line: tuple[Authority, ...], body: bytes) -> bytes:
    asked = ocsp.load_der_ocsp_request(body)
    nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    number = next(
        n for n, one in enumerate(line) if one.certificate.serial_number == asked.serial_number
    )
    return vendor.ocsp(line[number], line[number + 1], nonce=nonce)


def test_the_key_set_of_nras_comes_from_the_configured_address(verifier: Verifier) -> None:
    service = NrasService()
    verifier.served.answers[JWKS] = Answer(service.jwks())
    evidence = {"eat": service.bundle(NONCE)}
    found, examined = verifier.examine(
        "nvidia-nras-eat", evidence, Anchors(frozenset()), service.now, Expected(nonce=NONCE)
    )
    assert not found.missing
    assert verifier.served.asked == [("GET", JWKS, b"")]
    assert ISSUER in verifier.served.services().jwks
    assert examined.authentic


@pytest.mark.parametrize("kind", sorted(SCHEMES))
def test_evidence_that_is_none_needs_nothing_and_asks_nobody(verifier: Verifier, kind: str) -> None:
    required, optional = SCHEMES[kind].evidence
    evidence = dict.fromkeys((*required, *optional), b"https://evil.example/")
    found = verifier.resolve(kind, evidence, Anchors(frozenset()), 1_790_000_000)
    assert not found.roles
    assert not verifier.served.asked


def test_a_service_that_is_down_leaves_the_evidence_refused(verifier: Verifier) -> None:
    intel = Intel()
    serve_intel(verifier.served, intel)
    verifier.served.faults["/IntelSGXRootCA.der"] = Fault("status")
    found, examined = verifier.examine(
        "intel-tdx-quote", {"quote": intel.quote()}, intel.anchors(), intel.now, Expected()
    )
    assert not found.complete
    assert examined.authentic is False
    assert "collateral_missing" in [reason.code for reason in examined.reasons]
