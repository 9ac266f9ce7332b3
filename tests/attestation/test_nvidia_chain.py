"""A simulated GPU's certificates with exactly one fact changed."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from simulators.nvidia import DAY, Nvidia
from simulators.nvidia_device import COMPOSITE, TCB_INFO, Device, name, tlv

from attestation.anchors import Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.nvidia_chain import parse_chain
from attestation.schemes import nvidia_gpu, nvidia_switch
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


def examine(device: Device, nonce: bytes | None = NONCE, **changes: Any) -> Examined:
    scheme = nvidia_switch.SCHEME if device.architecture == "LS10" else nvidia_gpu.SCHEME
    facts: dict[str, Any] = {
        "evidence": {"evidence": device.report(NONCE), "cert_chain": device.chain()},
        "anchors": device.vendor.anchors,
        "now": device.vendor.now,
        "expected": Expected(nonce=nonce, arch=device.architecture),
        **changes,
    }
    return scheme.examine(Question(**facts))


def codes(examined: Examined) -> set[str]:
    return {reason.code for reason in examined.reasons}


def test_no_pinned_root_no_trust(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    examined = examine(gpu, anchors=Anchors(frozenset()), collateral={"root": vendor.root.der})
    assert codes(examined) == {"untrusted_root"}


def test_a_chain_rebuilt_under_a_root_of_the_same_names_is_refused(vendor: Nvidia) -> None:
    forged = Nvidia().gpu()
    examined = examine(forged, anchors=vendor.anchors, collateral={"root": forged.vendor.root.der})
    assert codes(examined) == {"untrusted_root"}


@pytest.mark.parametrize(
    ("leaf", "code"),
    [
        pytest.param({"end": -1}, "certificate_not_valid_at_time", id="expired"),
        pytest.param({"start": 60}, "certificate_not_valid_at_time", id="not yet valid"),
        pytest.param({"ca": True}, "chain_invalid", id="a CA as the leaf"),
        pytest.param({"algorithm": hashes.SHA224()}, "chain_invalid", id="signed with SHA-224"),
    ],
)
def test_a_leaf_certificate_that_does_not_hold_is_refused(
    vendor: Nvidia, leaf: dict[str, Any], code: str
) -> None:
    assert codes(examine(vendor.gpu(leaf=leaf))) == {code}


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


@pytest.mark.parametrize(
    "common",
    [
        "GA100 A01 GSP FMC LF",
        "GR100 A01 GSP FMC LF",
        "GH100",
        "GH1000 A01",
        "XGH100 A01",
        "GPU",
    ],
)
def test_a_device_of_an_unknown_family_is_refused(vendor: Nvidia, common: str) -> None:
    assert codes(examine(vendor.gpu(common=common))) == {"product_not_accepted"}


@pytest.mark.parametrize(("architecture", "oid"), [("HOPPER", TCB_INFO), ("BLACKWELL", COMPOSITE)])
def test_a_leaf_with_another_familys_extension_is_refused(
    vendor: Nvidia, architecture: str, oid: str
) -> None:
    assert codes(examine(vendor.gpu(architecture, oid=oid))) == {"gpu_architecture_mismatch"}


@pytest.mark.parametrize("arch", ["BLACKWELL", "LS10", "AMPERE", ""])
def test_another_architecture_than_expected_is_refused(vendor: Nvidia, arch: str) -> None:
    expected = Expected(nonce=NONCE, arch=arch)
    assert codes(examine(vendor.gpu(), expected=expected)) == {"gpu_architecture_mismatch"}


def test_a_report_without_a_driver_is_no_gpus(vendor: Nvidia) -> None:
    assert codes(examine(vendor.gpu(driver=""))) == {"gpu_architecture_mismatch"}


def test_a_report_with_a_driver_is_no_switchs(vendor: Nvidia) -> None:
    assert codes(examine(vendor.switch(driver="580.1"))) == {"gpu_architecture_mismatch"}


@pytest.mark.parametrize("architecture", ["HOPPER", "BLACKWELL"])
def test_firmware_that_the_leaf_was_not_made_for_is_refused(
    vendor: Nvidia, architecture: str
) -> None:
    gpu = vendor.gpu(architecture, leaf_fwids=[bytes(47) + b"\1"])
    assert codes(examine(gpu)) == {"fwid_mismatch"}


def test_firmware_of_zeros_is_in_no_leaf(vendor: Nvidia) -> None:
    gpu = vendor.gpu("BLACKWELL", fwid=bytes(48), leaf_fwids=[b"\7" * 48, bytes(48)])
    assert codes(examine(gpu)) == {"fwid_mismatch"}


def test_firmware_stated_with_none_in_the_leaf_is_refused(vendor: Nvidia) -> None:
    assert codes(examine(vendor.gpu(leaf_fwids=[]))) == {"fwid_mismatch"}


def test_firmware_may_be_the_second_in_the_leaf(vendor: Nvidia) -> None:
    gpu = vendor.gpu("BLACKWELL")
    gpu.leaf_fwids = [b"\7" * 48, gpu.fwid]
    assert examine(gpu).authentic is True


def test_a_report_without_firmware_digest_says_so(vendor: Nvidia) -> None:
    examined = examine(vendor.gpu(states_fwid=False))
    assert examined.authentic is True
    assert examined.claims["fwid_matches_leaf"] is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="4 GiB announced"),
        pytest.param(b"\x30\x80\0\0", id="indefinite length"),
        pytest.param(b"\x3f\x01\0", id="tag of several octets"),
        pytest.param(b"\x30\0", id="no firmware in it"),
        pytest.param(b"\x30\2\x30\0", id="an empty digest"),
        pytest.param(b"\x30\0\x30\0", id="two structures"),
        pytest.param(b"\x30", id="a tag"),
        pytest.param(b"\x30\x01\x30", id="a tag within"),
        pytest.param(b"\x30\x02\x04\x01", id="a value that is cut"),
        pytest.param(b"\x30\x81", id="a length that is cut"),
        pytest.param(b"\x30\x82\x01", id="a length of two octets that is cut"),
        pytest.param(b"\x30\x83\0\0\0", id="a length of three octets"),
        pytest.param(b"\x30\x05\x30\0\x04\x01\0", id="no digest last"),
    ],
)
def test_a_firmware_extension_of_another_form_is_malformed(vendor: Nvidia, body: bytes) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(COMPOSITE), body)
    gpu = vendor.gpu(leaf={"extensions": [extension]})
    assert codes(examine(gpu)) == {"evidence_malformed"}


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


def tcb_info(flags: bytes) -> x509.UnrecognizedExtension:
    """A DiceTcbInfo with this BIT STRING content."""
    fwid = tlv(0x30, tlv(0x06, bytes.fromhex("608648016503040202")) + tlv(0x04, b"\7" * 48))
    body = tlv(0x30, tlv(0xA6, fwid) + tlv(0x87, flags))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(TCB_INFO), body)


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (b"\0\x80", 0b1),
        (b"\4\x50", 0b1010),
        (b"\7\x80", 0b1),
        (b"\0" + bytes(7) + b"\x01", 1 << 63),
        (b"", None),
        (b"\0", None),
        (b"\x08\x80", None),
        (b"\0" + bytes(9), None),
    ],
)
def test_operational_flags_count_from_the_first_bit(
    vendor: Nvidia, body: bytes, flags: int | None
) -> None:
    gpu = vendor.gpu("BLACKWELL", leaf={"extensions": [tcb_info(body)]})
    if flags is None:
        with pytest.raises(MalformedError):
            parse_chain(gpu.chain())
    else:
        assert parse_chain(gpu.chain()).flags == flags


@pytest.mark.parametrize("count", [1, 8, 9])
def test_a_leaf_has_at_most_eight_firmware_digests(vendor: Nvidia, count: int) -> None:
    gpu = vendor.gpu("BLACKWELL", leaf_fwids=[bytes((number,)) * 48 for number in range(count)])
    if count > 8:
        with pytest.raises(MalformedError):
            parse_chain(gpu.chain())
    else:
        assert len(parse_chain(gpu.chain()).fwids) == count


def leaf_with(vendor: Nvidia, size: int) -> tuple[bytes, int]:
    """A chain whose leaf has a firmware extension with so many bytes to pass over; its length."""
    fwid = tlv(0x30, tlv(0x06, bytes.fromhex("608648016503040202")) + tlv(0x04, b"\7" * 48))
    body = tlv(0x30, tlv(0x04, bytes(size)) + b"\x04\x81\xc8" + bytes(200) + fwid)
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(COMPOSITE), body)
    return vendor.gpu(leaf={"extensions": [extension]}).chain(), len(body)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 255, 256, 3821, 3822, 3823])
def test_a_firmware_extension_of_up_to_four_kibibytes_is_read(vendor: Nvidia, size: int) -> None:
    raw, length = leaf_with(vendor, size)
    if size > 256:
        assert length == size + 274  # which is 4095, 4096, 4097
    if length > 4096:
        with pytest.raises(MalformedError):
            parse_chain(raw)
    else:
        assert parse_chain(raw).fwids == (b"\7" * 48,)


@pytest.mark.parametrize("over", [0, 1])
def test_a_chain_of_up_to_64_kibibytes_is_read(vendor: Nvidia, over: int) -> None:
    raw = vendor.gpu().chain()
    raw += b"\n" * (64 * 1024 - len(raw) + over)
    if over:
        with pytest.raises(MalformedError, match="found 65537 bytes, expected at most 65536"):
            parse_chain(raw)
    else:
        assert len(parse_chain(raw).ders) == 5


@pytest.mark.parametrize("length", [63, 64, 65])
def test_a_name_of_up_to_64_characters_is_read(vendor: Nvidia, length: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        common = x509.NameAttribute(NameOID.COMMON_NAME, "G" * length, _validate=False)
        raw = vendor.gpu(leaf={"subject": x509.Name([common])}).chain()
    if length > 64:
        with pytest.raises(MalformedError, match=r"subject: expected one attribute 2\.5\.4\.3"):
            parse_chain(raw)
    else:
        assert parse_chain(raw).name == "G" * length


@pytest.mark.parametrize("names", [0, 2])
def test_a_leaf_has_one_name(vendor: Nvidia, names: int) -> None:
    common = [x509.NameAttribute(NameOID.COMMON_NAME, f"GH100 {at}") for at in range(names)]
    other = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NVIDIA Corporation")
    raw = vendor.gpu(leaf={"subject": x509.Name([*common, other])}).chain()
    with pytest.raises(MalformedError, match="subject: expected one attribute"):
        parse_chain(raw)


def test_a_leaf_that_the_library_warns_of_warns_nobody(vendor: Nvidia) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        country = x509.NameAttribute(NameOID.COUNTRY_NAME, "USA", _validate=False)
        subject = x509.Name([*name("GH100 A01 GSP FMC LF", "53"), country])
        raw = vendor.gpu(leaf={"subject": subject}).chain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_chain(raw).serial == "53"


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
