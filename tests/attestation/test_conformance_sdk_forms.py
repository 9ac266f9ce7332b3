"""Samples of a CPU beside what NVIDIA's SDKs write: every device counts, and none goes unseen.

The reports are genuine, from $ANCHORHOLD_VECTORS, and named by a simulated TPM.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from simulators.nras import NrasService, sdk_token, switch_claims
from simulators.tokens import Issuer
from simulators.vendor_samples import (
    GENUINE,
    GPU,
    GPUS,
    OTHER,
    bound,
    file,
    item,
    needs_samples,
    verdict,
)

from attestation.conformance.gpu_file import EAT, count, evidence_in
from attestation.conformance.pairing import pair_of
from attestation.schemes import SCHEMES
from wire.errors import MalformedError

REMOTE, SWITCHES = "REMOTE_GPU_CLAIMS", "REMOTE_SWITCH_CLAIMS"


def services() -> tuple[NrasService, NrasService]:
    """One service, asked for two GPUs and for a switch."""
    gpus, switches = NrasService(devices=2), NrasService()
    switches.issuer, switches.devices = gpus.issuer, {"SWITCH-0": switch_claims()}
    return gpus, switches


def word(gpus: NrasService, switches: NrasService) -> bytes:
    return sdk_token({REMOTE: gpus.bundle(), SWITCHES: switches.bundle()})


def beside(raw: bytes, keys: bytes, now: int) -> tuple[bool | None, bool | None, set[str]]:
    return verdict(bound("eat", now=now + 1, eat=raw, jwks=keys))


def hexed(name: str) -> dict[str, Any]:
    return {
        "attestationReportHexStr": file(name, "evidence").hex(),
        "certChainBase64Encoded": base64.b64encode(file(name, "cert_chain")).decode(),
    }


def test_every_bundle_of_the_sdks_token_is_examined() -> None:
    gpus, switches = services()
    assert beside(word(gpus, switches), gpus.jwks(), gpus.now) == GENUINE
    honest, switches.issuer = gpus.issuer, Issuer("ES384", gpus.issuer.kid)
    raw = word(gpus, switches)
    refuted = beside(raw, gpus.jwks(), gpus.now)
    assert (gpus.issuer is honest, refuted[:2]) == (True, (False, False))
    assert "signature_invalid" in refuted[2]


def test_a_device_in_two_bundles_answers_twice() -> None:
    gpus, switches = services()
    switches.devices["SWITCH-0"]["ueid"] = gpus.devices["GPU-1"]["ueid"]
    refused = beside(word(gpus, switches), gpus.jwks(), gpus.now)
    assert (refused[1], "device_repeated" in refused[2]) == (False, True)


def test_each_bundle_of_a_wrapper_takes_its_room() -> None:
    raw = word(*services())
    found = evidence_in(raw, 2)
    assert ([kind for kind, _ in found], count(found)) == ([EAT], 2)
    with pytest.raises(MalformedError, match="128"):
        evidence_in(raw, 1)


@needs_samples
def test_reports_in_hex_are_examined_as_any() -> None:
    texts = [
        {**item(name), "evidence": base64.b64encode(file(name, "evidence").hex().encode()).decode()}
        for name in (GPU, OTHER)
    ]
    for document in (
        [hexed(GPU)],
        hexed(GPU),
        {"gpu": [hexed(GPU)], "of": "one node"},
        {"gpu_0": hexed(GPU), "gpu_1": texts[1]},
        texts[:1],
    ):
        found = bound("gpu", gpu=json.dumps(document).encode())
        assert verdict(found) == GENUINE, str(document)[:60]
    forged = hexed(OTHER)
    forged["attestationReportHexStr"] = forged["attestationReportHexStr"][:-2] + "00"
    for document in ([forged], {"gpu_0": hexed(GPU), "gpu_1": forged}):
        refuted = verdict(bound("gpu", gpu=json.dumps(document).encode()))
        assert (refuted[:2], "signature_invalid" in refuted[2]) == ((False, False), True)


@needs_samples
def test_a_device_in_two_spellings_is_one() -> None:
    document = {"gpu_0": item(), "gpu_1": hexed(GPU)}
    refused = verdict(bound("gpu", gpu=json.dumps(document).encode()))
    assert (refused[1], "device_repeated" in refused[2]) == (False, True)


@pytest.mark.parametrize(
    "document",
    [
        {"attestationReportHexStr": "11e0"},
        [{"attestationReportHexStr": "11e0"}],
        [{"note": ""}, {"attestationReportHexStr": "11e0", "certChainBase64Encoded": 1}],
        {"blob": [{"attestationReportHexStr": None}]},
    ],
)
def test_a_report_under_its_old_name_is_a_gpus_though_it_does_not_parse(document: object) -> None:
    raw = json.dumps(document).encode()
    assert pair_of(SCHEMES["intel-tdx-quote"], {"quote": b"", "blob": raw}) is not None


@needs_samples
def test_one_that_does_not_parse_beside_a_genuine_one_is_not_passed_over() -> None:
    for other in ({"attestationReportHexStr": "11e0"}, [{"attestationReportHexStr": "zz"}]):
        document = json.dumps({"gpu_0": item(), "gpu_1": other}).encode()
        named = {"evidence_malformed", "gpu_not_bound_to_cpu"}
        assert verdict(bound("gpu", gpu=document)) == (True, False, named)


@needs_samples
def test_a_list_of_the_index_in_hex_says_the_same() -> None:
    listed = json.loads(file(GPUS, "evidence_list"))
    listed = listed["evidence_list"] if isinstance(listed, dict) else listed
    items = [
        {
            "attestationReportHexStr": base64.b64decode(one["evidence"]).hex(),
            "certChainBase64Encoded": one["certificate"],
        }
        for one in listed
    ]
    assert verdict(bound("gpu", gpu=json.dumps(items).encode())) == GENUINE
