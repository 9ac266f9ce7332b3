"""A device's line of certificates up to a pinned root, with exactly one fact changed."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia import DAY, Nvidia
from simulators.nvidia_device import name
from simulators.nvidia_verdicts import NONCE, examine
from simulators.verdicts import codes

from attestation.anchors import Anchors
from attestation.examined import Expected
from attestation.formats.nvidia_chain import parse_chain
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_no_pinned_root_no_trust(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    examined = examine(gpu, anchors=Anchors(frozenset()), collateral={"root": vendor.root.der})
    assert codes(examined) == {"untrusted_root"}


def test_a_chain_rebuilt_under_a_root_of_the_same_names_is_refused(vendor: Nvidia) -> None:
    forged = Nvidia().gpu()
    examined = examine(forged, anchors=vendor.anchors, collateral={"root": forged.vendor.root.der})
    assert codes(examined) == {"untrusted_root"}


@pytest.mark.parametrize("facts", [{"ca": False}, {"cert_sign": False}])
def test_a_boot_rom_certificate_that_may_not_sign_is_refused(
    vendor: Nvidia, facts: dict[str, Any]
) -> None:
    gpu = vendor.gpu()
    gpu.brom = vendor.issue("GH100 A01 GSP BROM", vendor.icas["GH100"], serial="41AA", **facts)
    assert codes(examine(gpu)) == {"chain_invalid"}


def test_a_certificate_signed_by_another_than_it_names_is_refused(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    other = vendor.issue("GH100 A01 GSP BROM", vendor.icas["GH100"], serial=f"{gpu.serial}AA"[-20:])
    honest = gpu.brom.certificate
    gpu.brom.key = other.key  # the leaf is then signed by a key that the certificate does not hold
    assert gpu.brom.certificate is honest
    assert codes(examine(gpu)) == {"chain_invalid"}


@pytest.mark.parametrize("arch", ["BLACKWELL", "LS10", "AMPERE", ""])
def test_another_architecture_than_expected_is_refused(vendor: Nvidia, arch: str) -> None:
    expected = Expected(nonce=NONCE, arch=arch)
    assert codes(examine(vendor.gpu(), expected=expected)) == {"gpu_architecture_mismatch"}


def test_a_report_without_a_driver_is_no_gpus(vendor: Nvidia) -> None:
    assert codes(examine(vendor.gpu(driver=""))) == {"gpu_architecture_mismatch"}


def test_a_report_with_a_driver_is_no_switchs(vendor: Nvidia) -> None:
    assert codes(examine(vendor.switch(driver="580.1"))) == {"gpu_architecture_mismatch"}


def test_every_order_of_the_certificates_gives_the_same_chain(vendor: Nvidia) -> None:
    pems = [one.pem for one in vendor.gpu().certificates()]
    found = {parse_chain(b"".join(order)).ders for order in itertools.permutations(pems)}
    assert len(found) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pems: [], id="no certificate"),
        pytest.param(lambda pems: [*pems, b"trailing text"], id="text behind"),
        pytest.param(lambda pems: [b"leading text", *pems], id="text before"),
        pytest.param(lambda pems: pems * 10_000, id="fifty thousand"),
        pytest.param(lambda pems: [pems[0][:-40]], id="cut"),
    ],
)
def test_a_chain_of_another_form_is_malformed(
    vendor: Nvidia, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    pems = [one.pem for one in vendor.gpu().certificates()]
    with pytest.raises(MalformedError):
        parse_chain(b"".join(change(pems)))


def test_leaf_and_boot_rom_alone_are_a_chain(vendor: Nvidia) -> None:
    leaf, brom, *_ = vendor.gpu().certificates()
    found = parse_chain(leaf.pem + brom.pem)
    assert (found.ders, found.fault) == ((leaf.der, brom.der), "")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(lambda ders: ders[:1], "found 1 certificate,", id="the leaf alone"),
        pytest.param(lambda ders: [ders[0], *ders[2:]], "found 2 leaves", id="no boot ROM"),
        pytest.param(lambda ders: [*ders[:2], *ders[3:]], "found 2 leaves", id="no provisioner"),
        pytest.param(lambda ders: [*ders[:3], ders[4]], "found 2 leaves", id="no identity"),
        pytest.param(
            lambda ders: [*ders, ders[0]], "found 1 certificates outside", id="leaf twice"
        ),
        pytest.param(
            lambda ders: [*ders, ders[4]], "found 1 certificates outside", id="root twice"
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_chain_that_is_no_line_of_issuers_is_refused_and_its_report_told(
    vendor: Nvidia, change: Callable[[list[bytes]], list[bytes]], fault: str, turned: bool
) -> None:
    gpu = vendor.gpu()
    pems = change([one.pem for one in gpu.certificates()])
    raw = b"".join(pems[::-1] if turned else pems)
    found = parse_chain(raw)
    assert found.fault.startswith(fault)
    assert found.serial == gpu.serial
    examined = examine(
        gpu,
        evidence={"evidence": gpu.report(NONCE), "cert_chain": raw},
        collateral={"root": vendor.root.der},
    )
    assert codes(examined) == {"chain_invalid"}
    assert examined.authentic is False
    assert examined.claims["nonce"] == NONCE.hex()
    assert examined.claims["driver_version"] == gpu.driver
    assert len(examined.claims["measurements"]) == 64
    assert not any(name == "chip_id:" for name in examined.identities)


def test_the_root_alone_vouches_for_nothing_and_the_report_is_told(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    examined = examine(gpu, evidence={"evidence": gpu.report(NONCE), "cert_chain": vendor.root.pem})
    assert {"chain_invalid", "signature_invalid", "product_not_accepted"} <= codes(examined)
    assert examined.claims["vbios_version"] == gpu.vbios


def test_a_leaf_alone_is_no_chain_even_under_a_pinned_boot_rom(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    pins = Anchors(frozenset({hashlib.sha256(gpu.brom.der).digest()}), simulated=True)
    for count, code in ((1, {"chain_invalid"}), (2, set())):
        raw = b"".join(one.pem for one in gpu.certificates()[:count])
        examined = examine(
            gpu,
            evidence={"evidence": gpu.report(NONCE), "cert_chain": raw},
            anchors=pins,
            collateral={"root": gpu.brom.der},
        )
        assert codes(examined) == code


def test_issuers_in_a_circle_are_no_line(vendor: Nvidia) -> None:
    one, other = vendor.issue("one"), vendor.issue("other")
    ring = [vendor.issue("one", other), vendor.issue("other", one)]
    found = parse_chain(b"".join(certificate.pem for certificate in ring))
    assert found.fault == "found 0 leaves, expected one line of issuers"
    assert len(found.ders) == 2


@pytest.mark.parametrize("raw", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----"])
def test_a_report_is_told_though_its_chain_does_not_parse(vendor: Nvidia, raw: bytes) -> None:
    gpu = vendor.gpu()
    report = gpu.report(NONCE)
    examined = examine(gpu, evidence={"evidence": report, "cert_chain": raw})
    assert codes(examined) == {"evidence_malformed"}
    assert examined.facts is None
    assert examined.claims["nonce"] == NONCE.hex()
    cut = examine(gpu, evidence={"evidence": report[:-97], "cert_chain": raw})
    assert codes(cut) == {"evidence_malformed"}
    assert not cut.claims


@pytest.mark.parametrize("arch", ["hopper", "Hopper"])
def test_the_architecture_asked_for_may_be_in_lower_case(vendor: Nvidia, arch: str) -> None:
    assert examine(vendor.gpu(), expected=Expected(nonce=NONCE, arch=arch)).authentic is True


@pytest.mark.parametrize("over", [0, 1])
def test_a_chain_of_up_to_64_kibibytes_is_read(vendor: Nvidia, over: int) -> None:
    raw = vendor.gpu().chain()
    raw += b"\n" * (64 * 1024 - len(raw) + over)
    if over:
        with pytest.raises(MalformedError, match="found 65537 bytes, expected at most 65536"):
            parse_chain(raw)
    else:
        assert len(parse_chain(raw).ders) == 5


@pytest.mark.parametrize("serial", ["", "GG", "41" * 33])
def test_a_serial_number_that_is_no_hex_is_malformed(vendor: Nvidia, serial: str) -> None:
    gpu = vendor.gpu()
    subject = name("GH100 A01 GSP BROM", serial or " ")
    gpu.brom = vendor.issue("", vendor.icas["GH100"], subject=subject)
    with pytest.raises(MalformedError):
        parse_chain(gpu.chain())


def test_a_subject_without_a_serial_number_has_the_certificates(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    gpu.brom = vendor.issue("GH100 A01 GSP BROM", vendor.icas["GH100"])
    number = gpu.brom.certificate.serial_number
    assert parse_chain(gpu.chain()).chip == f"{number:X}"
    assert all(len(one.partition(":")[2]) % 2 == 0 for one in examine(gpu).identities)


def test_two_leaves_are_no_line_of_issuers(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    other = vendor.issue("GH100 A01 GSP FMC LF 2", gpu.brom, ca=False)
    raw = gpu.chain() + other.pem
    assert parse_chain(raw).fault == "found 2 leaves, expected one line of issuers"
    examined = examine(gpu, evidence={"evidence": gpu.report(NONCE), "cert_chain": raw})
    assert codes(examined) == {"chain_invalid"}


def test_the_verdict_ends_with_the_first_certificate(vendor: Nvidia) -> None:
    assert examine(vendor.gpu(leaf={"end": DAY})).not_after == vendor.now + DAY
