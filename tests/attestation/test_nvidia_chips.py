"""Certificates that name a line of chips, as RTX PRO boards have ("GB20X A01 GSP FMC LF")."""

from __future__ import annotations

import pytest
from simulators.nvidia import Nvidia

from attestation.examined import Examined, Expected, Question
from attestation.formats.spdm import CHIP_INFO
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nvidia_gpu import SCHEME
from attestation.verify.spdm import Device, Family, parse_device
from wire.errors import PolicyError

NONCE = bytes(range(32))
LINE = "GB20X A01 GSP FMC LF"


def examined(
    vendor: Nvidia, common: str, arch: str = "BLACKWELL", stated: bytes | None = None
) -> Examined:
    gpu = vendor.gpu(arch if stated is not None else "BLACKWELL", common=common)
    if stated is not None:
        gpu.opaque = {**gpu.opaque, CHIP_INFO: stated}
    question = Question(
        evidence={"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()},
        anchors=vendor.anchors,
        now=vendor.now,
        collateral={},
        expected=Expected(nonce=NONCE, arch=arch),
    )
    return SCHEME.examine(question)


def device(stated: bytes, common: str = LINE) -> Device:
    gpu = Nvidia().gpu("BLACKWELL", common=common)
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
    ("stated", "product"),
    [(b"GB202\0", "GB202"), (b"GH100\0", ""), (b"GB20X\0", ""), (b"", ""), (b"GB202\0A\0", "")],
)
def test_the_report_says_which_chip_of_the_line_it_is(stated: bytes, product: str) -> None:
    assert device(stated).product == product


@pytest.mark.parametrize(
    ("common", "arch", "stated"),
    [
        ("GB100 A01 GSP FMC LF", "BLACKWELL", b"GH100\0"),
        ("GB100 A01 GSP FMC LF", "BLACKWELL", b"GB202\0"),
        ("GH100 A01 GSP FMC LF", "HOPPER", b"GB202\0"),
        ("GH100 A01 GSP FMC LF", "HOPPER", b"LS_10\0"),
        ("GH100 A01 GSP FMC LF", "HOPPER", b"AD102\0"),
        (LINE, "BLACKWELL", b"GH100\0"),
        (LINE, "BLACKWELL", b"GB100\0"),
        (LINE, "BLACKWELL", b"GH100\0A"),
    ],
)
def test_a_report_of_another_chip_than_the_certified_is_refused(
    common: str, arch: str, stated: bytes
) -> None:
    found = examined(Nvidia(), common, arch, stated)
    assert [reason.code for reason in found.reasons] == ["gpu_architecture_mismatch"]


@pytest.mark.parametrize(
    ("common", "arch", "stated"),
    [
        ("GB100 A01 GSP FMC LF", "BLACKWELL", b"GB100\0"),
        ("GB100 A01 GSP FMC LF", "BLACKWELL", b"GB102\0"),
        ("GB100 A01 GSP FMC LF", "BLACKWELL", b"B200\0"),  # a name that says nothing to us
        ("GH100 A01 GSP FMC LF", "HOPPER", b"GH100"),
        (LINE, "BLACKWELL", b"GB202\0"),
        (LINE, "BLACKWELL", b"GB20X\0"),
        (LINE, "BLACKWELL", b"GB20B\0"),
    ],
)
def test_a_report_of_a_chip_that_the_certificate_can_be_of_is_authentic(
    common: str, arch: str, stated: bytes
) -> None:
    found = examined(Nvidia(), common, arch, stated)
    assert found.authentic is True, found.reasons


@pytest.mark.parametrize(
    ("common", "stated", "models", "accepted"),
    [
        (LINE, b"GB202\0", ["GB202"], True),
        (LINE, b"GB202\0", ["GB20X"], True),
        (LINE, b"GB202\0", ["GB203"], False),
        (LINE, b"GB202\0", ["GB100", "GH100"], False),
        (LINE, b"B40\0", ["GB202"], False),
        (LINE, b"B40\0", ["GB20X"], True),
        (LINE, None, ["GB202"], False),
        (LINE, None, ["GB20X"], True),
        ("GB100 A01", None, ["GB20X"], False),
        ("GB100 A01", None, ["GB100"], True),
        ("GB100 A01", b"GB100\0", ["GB20X"], False),
        ("GB100 A01", b"GB100\0", ["GB100"], True),
        ("GB100 A01", b"GB102\0", ["GB100"], False),  # both names must be accepted
        ("GB100 A01", b"GB102\0", ["GB102"], False),
        ("GB100 A01", b"GB102\0", ["GB100", "GB102"], True),
        ("GB100 A01", b"B200\0", ["GB100"], True),
        ("GH100 A01", None, ["GB20X"], False),
    ],
)
def test_a_model_is_what_certificate_and_report_say(
    common: str, stated: bytes | None, models: list[str], accepted: bool
) -> None:
    vendor = Nvidia()
    arch = "HOPPER" if common.startswith("GH") else "BLACKWELL"
    gpu = vendor.gpu(arch, common=common)
    if stated is not None:
        gpu.opaque = {**gpu.opaque, CHIP_INFO: stated}
    else:
        gpu.opaque = {kind: raw for kind, raw in gpu.opaque.items() if kind != CHIP_INFO}
    evidence = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    examined = SCHEME.examine(
        Question(evidence=evidence, anchors=vendor.anchors, now=vendor.now, collateral={})
    )
    assert examined.authentic is True, examined.reasons
    required, optional = SCHEME.rule_keys
    members = Members(
        {"architectures": ["HOPPER", "BLACKWELL"], "models": models, "driver_in": "any",
         "vbios_in": "any", "modes": "any", "rim": "not_checked", "ocsp": "not_checked"},
        "rule", required=required, optional=optional, error=PolicyError,
    )  # fmt: skip
    ledger = Ledger()
    SCHEME.judge(ledger, examined.facts, SCHEME.rule(members), vendor.now)
    codes = [reason.code for reason in ledger.reasons]
    assert codes == ([] if accepted else ["product_not_accepted"])


@pytest.mark.parametrize(
    ("certified", "chip", "held"),
    [
        ("GB20X", "GB202", True),
        ("GB20X", "GB20B", True),
        ("GB20X", "GB212", False),
        ("GB20X", "GB102", False),
        ("GB100", "GB102", True),
        ("GB100", "GB110", True),
        ("GB100", "GB202", False),
        ("GH100", "GH200", False),
    ],
)
def test_a_line_holds_its_chips_and_a_chip_its_siblings(
    certified: str, chip: str, held: bool
) -> None:
    assert Family("BLACKWELL", certified).holds(chip) is held
