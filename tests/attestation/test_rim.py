"""Reference manifests signed by a simulated NVIDIA, each with one fact changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia import DAY, Nvidia

from attestation.formats.rim import RIM_MAX, parse_document, parse_manifest
from attestation.verify.rim import verify_manifest
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.nvidia_device import Device

NONCE = bytes(range(32))
WRONG = "ab" * 48


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


@pytest.fixture(scope="module")
def gpu(vendor: Nvidia) -> Device:
    return vendor.gpu()


def refusal(vendor: Nvidia, raw: bytes, now: int = 0) -> str:
    with pytest.raises(AttestationError) as caught:
        verify_manifest(raw, vendor.anchors, now or vendor.now)
    return caught.value.reasons[0]


def test_a_signed_manifest_gives_its_measurements(vendor: Nvidia, gpu: Device) -> None:
    found = verify_manifest(vendor.manifest(gpu, "vbios"), vendor.anchors, vendor.now)
    assert found.manifest.product == "GH100"
    assert found.manifest.version == gpu.vbios
    assert found.manifest.values == {index: (gpu.measurements[index],) for index in range(1, 33)}
    assert len(found.path) == 3
    assert found.not_after == vendor.now + 365 * DAY


def test_a_manifest_under_another_root_is_refused(vendor: Nvidia, gpu: Device) -> None:
    assert refusal(vendor, Nvidia().manifest(gpu, "driver")) == "untrusted_root"


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"end": -1}, "certificate_not_valid_at_time"),
        ({"start": 60}, "certificate_not_valid_at_time"),
        ({"ca": True}, "chain_invalid"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "rim_signature_invalid"),
    ],
)
def test_a_signer_that_may_not_sign_is_refused(
    vendor: Nvidia, gpu: Device, facts: dict[str, Any], code: str
) -> None:
    signer = vendor.issue("signer", vendor.rim_ca, **{"ca": False, **facts})
    assert refusal(vendor, vendor.manifest(gpu, "driver", signer=signer)) == code


def test_a_signature_by_another_key_than_the_signers_is_refused(
    vendor: Nvidia, gpu: Device
) -> None:
    stranger = Nvidia().rim_signer
    line = (vendor.rim_signer, vendor.rim_ca, vendor.rim_root)
    forged = vendor.manifest(gpu, "driver", signer=stranger, chain=line)
    assert refusal(vendor, forged) == "rim_signature_invalid"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'active="True"', b'active="False"'),
        (b'index="40"', b'index="41"'),
        (b'colloquialVersion="580.159.03"', b'colloquialVersion="580.159.04"'),
        (b"NVIDIA Corporation", b"NVIDIA corporation"),
        (b"<ns0:Payload>", b"<ns0:Payload> "),
    ],
)
def test_a_change_of_what_is_signed_is_refused(
    vendor: Nvidia, gpu: Device, old: bytes, new: bytes
) -> None:
    raw = vendor.manifest(gpu, "driver")
    assert old in raw
    assert refusal(vendor, raw.replace(old, new, 1)) == "rim_signature_invalid"


@pytest.mark.parametrize(
    "sign",
    [
        {"signature_algorithm": "ecdsa-sha256"},
        {"digest_algorithm": "sha256"},
        {"signature_algorithm": "ecdsa-sha512"},
    ],
)
def test_another_signature_or_digest_algorithm_is_refused(
    vendor: Nvidia, gpu: Device, sign: dict[str, str]
) -> None:
    raw = vendor.manifest(gpu, "driver", sign=sign)
    assert refusal(vendor, raw) == "rim_signature_invalid"


def test_another_canonicalisation_is_refused(vendor: Nvidia, gpu: Device) -> None:
    exclusive = {"c14n_algorithm": "http://www.w3.org/2001/10/xml-exc-c14n#"}
    assert refusal(vendor, vendor.manifest(gpu, "driver", sign=exclusive)) == "rim_malformed"


def _wrap(raw: bytes) -> bytes:
    """The signed document inside another root, whose own payload would be read."""
    root = b'<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd">'
    return root + raw + b"</SoftwareIdentity>"


def _second_signature(raw: bytes) -> bytes:
    begin, end = raw.index(b"<ds:Signature "), raw.index(b"</ds:Signature>") + 15
    return raw[:end] + raw[begin:end] + raw[end:]


def _moved_signature(raw: bytes) -> bytes:
    begin, end = raw.index(b"<ds:Signature "), raw.index(b"</ds:Signature>") + 15
    signature, rest = raw[begin:end], raw[:begin] + raw[end:]
    return rest.replace(b"</ns0:Payload>", signature + b"</ns0:Payload>")


def _without_signature(raw: bytes) -> bytes:
    begin, end = raw.index(b"<ds:Signature "), raw.index(b"</ds:Signature>") + 15
    return raw[:begin] + raw[end:]


def _part_only(raw: bytes) -> bytes:
    return raw.replace(b'<ds:Reference URI=""', b'<ds:Reference URI="#part"')


def _two_references(raw: bytes) -> bytes:
    begin, end = raw.index(b"<ds:Reference "), raw.index(b"</ds:Reference>") + 15
    return raw[:end] + raw[begin:end] + raw[end:]


def _filtered(raw: bytes) -> bytes:
    xpath = b'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/>'
    return raw.replace(b"<ds:Transforms>", b"<ds:Transforms>" + xpath)


def _parameter(raw: bytes) -> bytes:
    enveloped = b'<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"'
    assert enveloped + b"/>" in raw
    return raw.replace(enveloped + b"/>", enveloped + b"><ds:XPath/></ds:Transform>")


def _nested(raw: bytes) -> bytes:
    return raw.replace(b"<ds:KeyInfo>", b"<a>" * 17 + b"</a>" * 17 + b"<ds:KeyInfo>")


def _many(raw: bytes) -> bytes:
    return raw.replace(b"<ds:KeyInfo>", b"<a/>" * 4096 + b"<ds:KeyInfo>")


def _odd_certificate(raw: bytes) -> bytes:
    return raw.replace(b"<ds:X509Certificate>MI", b"<ds:X509Certificate>!!", 1)


def _long_certificate(raw: bytes) -> bytes:
    return raw.replace(b"<ds:X509Certificate>", b"<ds:X509Certificate>" + b"AAAA" * 8192, 1)


def _another_key(raw: bytes) -> bytes:
    return raw.replace(b"ds:X509Certificate>", b"ds:X509CRL>")


def _doctype(raw: bytes) -> bytes:
    return b'<!DOCTYPE a [<!ENTITY b "c">]>' + raw


def _laughs(raw: bytes) -> bytes:
    entities = b"".join(
        b'<!ENTITY l%d "%s">' % (number, b"&l%d;" % (number - 1) * 10) for number in range(1, 10)
    )
    return b'<!DOCTYPE a [<!ENTITY l0 "lol">' + entities + b"]>" + raw


def _key_value(raw: bytes) -> bytes:
    return raw.replace(b"<ds:KeyInfo>", b"<ds:KeyInfo><ds:KeyName>other</ds:KeyName>")


@pytest.mark.parametrize(
    "change",
    [
        _wrap,
        _second_signature,
        _moved_signature,
        _without_signature,
        _part_only,
        _two_references,
        _filtered,
        _doctype,
        _laughs,
        _key_value,
        _parameter,
        _nested,
        _many,
        _odd_certificate,
        _long_certificate,
        _another_key,
        pytest.param(lambda raw: raw + bytes(RIM_MAX), id="too long"),
        pytest.param(lambda raw: raw[:-1], id="cut"),
        pytest.param(lambda raw: raw.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(lambda raw: b"\xff" + raw, id="no UTF-8"),
        pytest.param(lambda raw: b"", id="nothing"),
        pytest.param(
            lambda raw: raw.replace(b"SoftwareIdentity", b"SoftwareIdentity2"), id="another root"
        ),
        pytest.param(lambda raw: b"<a>" * 100_000, id="deep"),
    ],
)
def test_a_document_of_another_shape_is_refused_unread(
    vendor: Nvidia, gpu: Device, change: Callable[[bytes], bytes]
) -> None:
    raw = change(vendor.manifest(gpu, "driver"))
    with pytest.raises(MalformedError):
        parse_document(raw)
    assert refusal(vendor, raw) == "rim_malformed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type="Measurement" index="40"', 'type="MinSvn" index="40"'),
        ('index="40" active="True"', 'index="40" active="maybe"'),
        ('index="40" active="True"', 'index="40" active="True" floor="3"'),
        ('index="40" active="True"', 'index="39" active="True"'),
        ('index="40" active="True"', 'index="255" active="True"'),
        ('index="40" active="True"', 'index="-1" active="True"'),
        ('index="40" active="True" alternatives="1"', 'index="40" active="True" alternatives="2"'),
        ('index="40" active="True" alternatives="1"', 'index="40" active="True" alternatives="0"'),
        (
            'index="40" active="True" alternatives="1"',
            'index="40" active="True" alternatives="999"',
        ),
        ('ns2:Hash0="' + hashlib.sha384(b"block 41").hexdigest(), 'ns2:Hash0="xy'),
        ('name="Measurement_40" size="48"', 'name="Measurement_40" size="32"'),
        ('product="GH100" edition', 'product="" edition'),
        ("<ns0:Payload>", "<ns0:Payload><ns0:Directory/>"),
        ("</ns0:Payload>", "</ns0:Payload><ns0:Payload/>"),
    ],
)
def test_a_genuine_manifest_with_something_unknown_is_refused(
    vendor: Nvidia, gpu: Device, old: str, new: str
) -> None:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    assert refusal(vendor, vendor.manifest(gpu, "driver", edit=edit)) == "rim_malformed"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_arbitrary_bytes_are_only_ever_malformed(raw: bytes) -> None:
    for parse in (parse_document, parse_manifest):
        with pytest.raises(MalformedError):
            parse(raw)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_changed_manifest_is_refused_or_means_the_same(data: st.DataObject) -> None:
    vendor, raw = _HONEST
    changed = bytearray(raw)
    at = data.draw(st.integers(0, len(raw) - 1))
    changed[at] = data.draw(st.integers(0, 255))
    try:
        found = verify_manifest(bytes(changed), vendor.anchors, vendor.now)
    except AttestationError:
        return
    assert found.manifest == verify_manifest(raw, vendor.anchors, vendor.now).manifest


def _honest() -> tuple[Nvidia, bytes]:
    vendor = Nvidia()
    return vendor, vendor.manifest(vendor.gpu(), "driver")


_HONEST = _honest()
