"""Certificates that name a line of chips, as RTX PRO boards have ("GB20X A01 GSP FMC LF")."""

from __future__ import annotations

import pytest
from simulators.nvidia import Nvidia

from attestation.examined import Examined, Expected, Question
from attestation.formats.spdm import CHIP_INFO
from attestation.schemes.nvidia_gpu import SCHEME
from attestation.verify.spdm import Device, parse_device

NONCE = bytes(range(32))
LINE = "GB20X A01 GSP FMC LF"


def examined(vendor: Nvidia, common: str, arch: str = "BLACKWELL") -> Examined:
    gpu = vendor.gpu("BLACKWELL", common=common)
    question = Question(
        evidence={"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()},
        anchors=vendor.anchors,
        now=vendor.now,
        collateral={},
        expected=Expected(nonce=NONCE, arch=arch),
    )
    return SCHEME.examine(question)


def device(stated: bytes) -> Device:
    gpu = Nvidia().gpu("BLACKWELL", common=LINE)
    gpu.opaque = {**gpu.opaque, CHIP_INFO: stated}
    return parse_device(gpu.report(NONCE), gpu.chain())


def test_a_gpu_certified_by_its_line_is_authentic() -> None:
    found = examined(Nvidia(), LINE)
    assert found.authentic is True, found.reasons
    assert (found.claims["chip"], found.claims["architecture"]) == ("GB20X", "BLACKWELL")


@pytest.mark.parametrize(
    "name", ["GB2XX A01", "GBX02 A01", "GB20Y A01", "GB20x A01", "GH10X A01", "GB20X"]
)
def test_another_name_is_of_no_known_line(name: str) -> None:
    found = examined(Nvidia(), name)
    assert found.authentic is False
    assert "product_not_accepted" in {reason.code for reason in found.reasons}


def test_a_line_is_of_one_architecture() -> None:
    found = examined(Nvidia(), LINE, arch="HOPPER")
    assert {reason.code for reason in found.reasons} == {"gpu_architecture_mismatch"}


@pytest.mark.parametrize(
    ("stated", "product"), [(b"GB202\0", "GB202"), (b"GH100\0", ""), (b"GB20X\0", "")]
)
def test_the_report_says_which_chip_of_the_line_it_is(stated: bytes, product: str) -> None:
    assert device(stated).product == product
