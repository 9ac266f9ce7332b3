"""A device's own certificate: its names, its family's extension, the firmware it was made for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from simulators.nvidia_device import COMPOSITE, TCB_INFO, name, tlv
from simulators.nvidia_verdicts import examine
from simulators.verdicts import codes

from attestation.formats.nvidia_chain import parse_chain
from wire.errors import MalformedError

if TYPE_CHECKING:
    from simulators.nvidia import Nvidia


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
