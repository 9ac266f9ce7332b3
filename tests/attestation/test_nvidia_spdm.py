"""A simulated GPU's evidence with exactly one fact changed: each is refused for its own reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia import Nvidia
from simulators.nvidia_verdicts import NONCE, examine
from simulators.verdicts import codes

from attestation.formats.nvidia_chain import parse_chain
from attestation.formats.spdm import REPORT_MAX, parse_report
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = ec.SECP384R1.group_order
BLOCKS_AT = 45  # request 37, response header 8


def patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + value + raw[at + len(value) :]


@pytest.mark.parametrize("architecture", ["HOPPER", "BLACKWELL", "LS10"])
def test_honest_devices_are_authentic_and_bound(vendor: Nvidia, architecture: str) -> None:
    device = vendor.switch() if architecture == "LS10" else vendor.gpu(architecture)
    examined = examine(device)
    assert examined.authentic is True
    assert examined.bound is True
    assert examined.claims["architecture"] == architecture
    assert examined.claims["key"] == device.fingerprint
    assert examined.claims["driver_version"] == device.driver
    assert examined.claims["vbios_version"] == device.vbios


@pytest.mark.parametrize("version", [0x10, 0x12, 0x13, 0])
def test_another_spdm_version_is_refused(vendor: Nvidia, version: int) -> None:
    examined = examine(vendor.gpu(edit=patched(0, bytes((version,)))))
    assert codes(examined) == {"version_not_accepted"}


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(1, b"\xe1", id="another request"),
        pytest.param(2, b"\0", id="no signature asked"),
        pytest.param(2, b"\3", id="reserved attribute bit"),
        pytest.param(3, b"\1", id="one block only asked"),
        pytest.param(36, b"\x08", id="slot out of range"),
        pytest.param(37, b"\x12", id="response of another version"),
        pytest.param(38, b"\x7f", id="an error response"),
        pytest.param(39, b"\1", id="reserved response byte"),
        pytest.param(40, b"\1", id="another slot signed"),
        pytest.param(41, b"\0", id="no blocks announced"),
        pytest.param(41, b"\x3f", id="fewer blocks announced"),
        pytest.param(41, b"\x41", id="more blocks announced"),
        pytest.param(42, b"\xff\xff\xff", id="16 MiB of blocks announced"),
        pytest.param(BLOCKS_AT, b"\2", id="index repeated by the next"),
        pytest.param(BLOCKS_AT, b"\0", id="index zero"),
        pytest.param(BLOCKS_AT + 1, b"\3", id="unknown specification bit"),
        pytest.param(BLOCKS_AT + 2, b"\x34", id="block longer than its value"),
        pytest.param(BLOCKS_AT + 4, b"\x81", id="raw value instead of a digest"),
        pytest.param(BLOCKS_AT + 4, b"\5", id="unknown value type"),
        pytest.param(BLOCKS_AT + 5, b"\x2f", id="value shorter than its block"),
    ],
)
def test_a_header_of_another_form_is_malformed(vendor: Nvidia, at: int, value: bytes) -> None:
    examined = examine(vendor.gpu(edit=patched(at, value)))
    assert codes(examined) == {"evidence_malformed"}
    assert examined.facts is None


def test_a_repeated_opaque_field_is_malformed(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    raw = gpu.exchange(NONCE)
    fields = parse_report(gpu.report(NONCE)).opaque
    size = sum(len(value) + 4 for value in fields.values())
    again = raw[: -size - 2] + (size + 5).to_bytes(2, "little") + raw[-size:] + b"\x0b\0\1\0\xaa"
    gpu.edit = lambda _: again
    assert codes(examine(gpu)) == {"evidence_malformed"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(6, b"96.00\xff", id="VBIOS version of odd characters"),
        pytest.param(6, b"", id="no VBIOS version"),
        pytest.param(20, bytes(47), id="FWID of 47 bytes"),
        pytest.param(34, bytes(9), id="opaque version of 9 bytes"),
        pytest.param(17, b"10\n10", id="project with a line end"),
    ],
)
def test_a_field_of_another_form_is_malformed(vendor: Nvidia, field: int, value: bytes) -> None:
    gpu = vendor.gpu(states_fwid=False)
    gpu.opaque[field] = value
    assert codes(examine(gpu)) == {"evidence_malformed"}


def test_an_opaque_layout_of_a_later_version_is_refused(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    gpu.opaque[34] = b"\3\0"
    assert codes(examine(gpu)) == {"version_not_accepted"}


def test_opaque_data_of_more_fields_than_there_are_types_is_malformed(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    gpu.opaque |= dict.fromkeys(range(100, 200), b"")
    assert codes(examine(gpu)) == {"evidence_malformed"}


def test_opaque_data_that_announces_more_than_there_is_is_malformed(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    gpu.opaque[99] = b"x"
    gpu.edit = lambda raw: raw.replace(b"\x63\0\1\0x", b"\x63\0\xff\xffx")
    assert codes(examine(gpu)) == {"evidence_malformed"}


def test_bytes_after_the_signature_are_refused(vendor: Nvidia) -> None:
    assert "evidence_malformed" in codes(examine(vendor.gpu(tail=b"\0")))


def test_a_report_over_its_limit_is_malformed(vendor: Nvidia) -> None:
    assert codes(examine(vendor.gpu(tail=bytes(REPORT_MAX)))) == {"evidence_malformed"}


def test_a_report_signed_by_another_key_is_refused(vendor: Nvidia) -> None:
    gpu = vendor.gpu(signing_key=ec.generate_private_key(ec.SECP384R1()))
    assert codes(examine(gpu)) == {"signature_invalid"}


def test_another_gpus_report_under_this_chain_is_refused(vendor: Nvidia) -> None:
    gpu, other = vendor.gpu(), vendor.gpu()
    evidence = {"evidence": other.report(NONCE), "cert_chain": gpu.chain()}
    assert codes(examine(gpu, evidence=evidence)) == {"signature_invalid"}


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda raw: bytes(48) + raw[48:], id="r is 0"),
        pytest.param(lambda raw: raw[:48] + bytes(48), id="s is 0"),
        pytest.param(lambda raw: ORDER.to_bytes(48, "big") + raw[48:], id="r is the order"),
        pytest.param(lambda raw: raw[:48] + ORDER.to_bytes(48, "big"), id="s is the order"),
        pytest.param(lambda raw: raw[48:] + raw[:48], id="r and s swapped"),
        pytest.param(lambda raw: raw[47::-1] + raw[:47:-1], id="little-endian"),
    ],
)
def test_a_signature_of_another_form_is_refused(
    vendor: Nvidia, edit: Callable[[bytes], bytes]
) -> None:
    assert codes(examine(vendor.gpu(sign_edit=edit))) == {"signature_invalid"}


def test_a_leaf_key_of_another_curve_is_refused(vendor: Nvidia) -> None:
    gpu = vendor.gpu(key=ec.generate_private_key(ec.SECP256R1()))  # which signs, correctly
    assert codes(examine(gpu)) == {"signature_invalid"}


@pytest.mark.parametrize(
    ("nonce", "bound"), [(NONCE, True), (NONCE[::-1], False), (NONCE[:31], False), (b"", False)]
)
def test_only_the_nonce_expected_is_bound(vendor: Nvidia, nonce: bytes, bound: bool) -> None:
    examined = examine(vendor.gpu(), nonce)
    assert examined.bound is bound
    assert codes(examined) == (set() if bound else {"nonce_mismatch"})


def test_the_devices_own_nonce_does_not_count(vendor: Nvidia) -> None:
    gpu = vendor.gpu(response_nonce=NONCE)
    evidence = {"evidence": gpu.report(bytes(32)), "cert_chain": gpu.chain()}
    assert codes(examine(gpu, evidence=evidence)) == {"nonce_mismatch"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_only_ever_malformed(raw: bytes) -> None:
    for parse in (parse_report, parse_chain):
        with pytest.raises(MalformedError):
            parse(raw)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_report_parses_or_is_malformed(data: st.DataObject) -> None:
    raw = bytearray(_HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        report = parse_report(bytes(raw))
    except MalformedError:
        return
    report.claims()


_HONEST = Nvidia().gpu().report(NONCE)
