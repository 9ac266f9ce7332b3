"""Evidence made for nobody in particular answers every question, so no appraisal accepts it.

The conformance index may ask for no nonce (docs/spec/evidence.md §9.1); a gateway that admits a
worker and a client that verifies one both call `appraise`, which always asks.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulators.gpu_tee import GPUS, SnpGpuTee, TdxGpuTee
from simulators.hardware_tee import (
    AzureSnpTee,
    AzureTdxTee,
    NitroTee,
    QuoteTee,
    SnpTee,
    TdxTee,
)
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee
from simulators.verdicts import accepted, rejected

from attestation.evidence import SOFTWARE, TPM2
from attestation.examined import Expected
from attestation.hardware import check_bound
from attestation.schemes import SCHEMES
from wire.errors import AttestationError

sys.path.insert(0, str(Path(__file__).parents[2]))  # `fuzz` is part of no distribution

from fuzz.seeds import simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.tee import Tee


def _software() -> Tee:
    tee = SoftwareTee()
    tee.statement["report_data"] = bytes(64)
    return tee


def _tpm(quoted: bytes) -> Tee:
    tee = TpmTee()
    tee.extra_data = quoted
    return tee


def _snp() -> Tee:
    tee = SnpTee()
    tee.lies["report_data"] = bytes(64)
    return tee


def _tdx() -> Tee:
    tee = TdxTee()
    tee.body["report_data"] = bytes(64)
    return tee


def _nitro(asked: dict[str, bytes | None]) -> Tee:
    tee = NitroTee()
    tee.asked = asked
    return tee


def _azure(make: type[AzureSnpTee] | type[AzureTdxTee], quoted: bytes) -> Tee:
    tee = make()
    tee.quoted = quoted
    return tee


def _quote(quoted: bytes) -> Tee:
    tee = QuoteTee()
    tee.roles |= tee.tpm.evidence(quoted)
    return tee


def _gpus(make: type[SnpGpuTee] | type[TdxGpuTee]) -> Tee:
    tee = make()
    tee.quoted = bytes(32)
    return tee


NOBODY: dict[str, dict[str, Callable[[], Tee]]] = {
    SOFTWARE: {"zeros": _software},
    TPM2: {"none": lambda: _tpm(b""), "zeros": lambda: _tpm(bytes(32))},
    "amd-sev-snp-report": {"zeros": _snp},
    "intel-tdx-quote": {"zeros": _tdx},
    "aws-nitro-document": {
        "none": lambda: _nitro({"nonce": None, "user_data": None}),
        "empty": lambda: _nitro({"nonce": b"", "user_data": b""}),
        "no-nonce": lambda: _nitro({"nonce": None}),
        "no-user-data": lambda: _nitro({"user_data": None}),
    },
    "azure-vtpm-snp": {
        "none": lambda: _azure(AzureSnpTee, b""),
        "zeros": lambda: _azure(AzureSnpTee, bytes(32)),
    },
    "azure-vtpm-tdx": {
        "none": lambda: _azure(AzureTdxTee, b""),
        "zeros": lambda: _azure(AzureTdxTee, bytes(32)),
    },
    "tpm2-quote": {"none": lambda: _quote(b""), "zeros": lambda: _quote(bytes(32))},
    GPUS: {"zeros": lambda: _gpus(SnpGpuTee), "zeros-tdx": lambda: _gpus(TdxGpuTee)},
}
CASES = [(kind, how) for kind, ways in NOBODY.items() for how in ways]


@pytest.mark.parametrize(("kind", "how"), CASES, ids=[f"{kind}-{how}" for kind, how in CASES])
def test_evidence_made_for_nobody_is_refused_in_every_appraisal(kind: str, how: str) -> None:
    verdict = rejected(NOBODY[kind][how]().appraise())
    assert set(verdict.codes) <= {"report_data_mismatch", "nonce_mismatch", "gpu_not_bound_to_cpu"}


@pytest.mark.parametrize(
    "make",
    [SoftwareTee, TpmTee, SnpTee, TdxTee, NitroTee, AzureSnpTee, AzureTdxTee, QuoteTee, SnpGpuTee],
)
def test_the_same_workers_are_accepted_for_their_own_binding(make: type[Tee]) -> None:
    accepted(make().appraise())


def test_no_kind_that_a_policy_can_accept_is_left_out() -> None:
    carrying = {kind for kind, scheme in SCHEMES.items() if scheme.carries is not None}
    assert {SOFTWARE, TPM2, GPUS, *carrying} == set(NOBODY)


@pytest.mark.parametrize("kind", SCHEMES)
def test_an_examination_that_was_asked_nothing_says_that_nothing_is_bound(kind: str) -> None:
    """Which an appraisal refuses, should one ever forget to ask."""
    for question in simulated(kind):
        examined = SCHEMES[kind].examine(replace(question, expected=Expected()))
        assert examined.bound is False
        with pytest.raises(AttestationError) as refused:
            check_bound(examined, "report_data_mismatch")
        assert refused.value.reasons[0] in {"report_data_mismatch", "signature_missing"}
