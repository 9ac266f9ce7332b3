"""Reference manifests signed by a simulated NVIDIA, each with one fact changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia import DAY, Device, Nvidia

from attestation.anchors import NVIDIA, NVIDIA_RIM
from attestation.examined import Expected, Question
from attestation.formats.rim import RIM_MAX, parse_document, parse_manifest
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import nvidia_gpu, nvidia_switch
from attestation.verify.rim import NVDEC0_BLOCK, verify_manifest
from wire.errors import AttestationError, MalformedError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

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


def judged(device: Device, manifests: list[bytes], **changes: Any) -> list[str]:
    """Reason codes of a rule that demands manifests."""
    vendor = device.vendor
    scheme = nvidia_switch.SCHEME if device.architecture == "LS10" else nvidia_gpu.SCHEME
    roles = ["rim", *(f"rim_{number}" for number in range(1, len(manifests)))]
    collateral = dict(zip(roles, manifests, strict=False)) | changes.pop("collateral", {})
    examined = scheme.examine(
        Question(
            evidence={"evidence": device.report(NONCE), "cert_chain": device.chain()},
            anchors=vendor.anchors,
            now=vendor.now,
            expected=Expected(nonce=NONCE),
            collateral=collateral,
        )
    )
    assert examined.authentic is True
    required, optional = scheme.rule_keys
    values: dict[str, Any] = dict.fromkeys(required, "any")
    values |= {
        "architectures": [device.architecture],
        "ocsp": "not_checked",
        "rim": "required",
        "rim_ocsp": "not_checked",
        **changes,
    }
    members = Members(values, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    scheme.judge(ledger, examined.facts, scheme.rule(members), vendor.now)
    assert ledger.accepted is not bool(ledger.reasons)
    return [reason.code for reason in ledger.reasons]


def both(gpu: Device, what: str = "driver", **facts: Any) -> list[bytes]:
    """Both manifests of a GPU, one of them with other facts."""
    other = "vbios" if what == "driver" else "driver"
    return [gpu.vendor.manifest(gpu, what, **facts), gpu.vendor.manifest(gpu, other)]


def test_a_signed_manifest_gives_its_measurements(vendor: Nvidia, gpu: Device) -> None:
    found = verify_manifest(vendor.manifest(gpu, "vbios"), vendor.anchors, vendor.now)
    assert found.manifest.product == "GH100"
    assert found.manifest.version == gpu.vbios
    assert found.manifest.values == {index: (gpu.measurements[index],) for index in range(1, 33)}
    assert len(found.path) == 3
    assert found.not_after == vendor.now + 365 * DAY


@pytest.mark.parametrize("architecture", ["HOPPER", "BLACKWELL"])
def test_a_gpu_with_the_golden_measurements_is_accepted(vendor: Nvidia, architecture: str) -> None:
    gpu = vendor.gpu(architecture)
    assert judged(gpu, both(gpu)) == []
    assert judged(gpu, both(gpu)[::-1]) == []


def test_a_switch_needs_only_its_firmwares_manifest(vendor: Nvidia) -> None:
    switch = vendor.switch()
    assert judged(switch, [vendor.manifest(switch, "vbios")]) == []
    assert judged(switch, []) == ["rim_missing"]


def test_another_measurement_is_refused(gpu: Device) -> None:
    for what, index in (("driver", 40), ("vbios", 3)):
        manifests = both(gpu, what, values={index: [WRONG]})
        assert judged(gpu, manifests) == ["measurement_mismatch"]


def test_one_of_several_alternatives_is_enough(gpu: Device) -> None:
    right = gpu.measurements[41].hex()
    assert judged(gpu, both(gpu, values={40: [WRONG, right, WRONG]})) == []
    assert judged(gpu, both(gpu, values={40: [WRONG, WRONG]})) == ["measurement_mismatch"]


def test_an_inactive_measurement_demands_nothing(gpu: Device) -> None:
    assert judged(gpu, both(gpu, values={40: [WRONG]}, inactive=(40,))) == []


def test_a_measurement_that_the_report_does_not_have_is_refused(gpu: Device) -> None:
    zeros = "00" * 48
    assert judged(gpu, both(gpu, values={64: [zeros]})) == ["measurement_mismatch"]


def test_a_manifest_with_nothing_active_is_refused(gpu: Device) -> None:
    assert judged(gpu, both(gpu, inactive=tuple(range(64)))) == ["rim_malformed"]


def test_a_block_named_by_both_manifests_is_refused(gpu: Device) -> None:
    right = gpu.measurements[4].hex()
    assert judged(gpu, both(gpu, values={3: [right]})) == ["rim_conflict"]


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (b"\x55", []),
        (b"\xaa", ["measurement_mismatch"]),
        (b"\x00", ["measurement_mismatch"]),
        (None, ["measurement_mismatch"]),
    ],
)
def test_the_decoders_block_is_passed_over_only_where_it_is_off(
    vendor: Nvidia, status: bytes | None, codes: list[str]
) -> None:
    gpu = vendor.gpu()
    if status is None:
        del gpu.opaque[11]
    else:
        gpu.opaque[11] = status
    assert judged(gpu, both(gpu, values={NVDEC0_BLOCK - 1: [WRONG]})) == codes


@pytest.mark.parametrize("what", ["driver", "vbios"])
def test_a_missing_manifest_is_refused(gpu: Device, what: str) -> None:
    assert judged(gpu, [gpu.vendor.manifest(gpu, what)]) == ["rim_missing"]


@pytest.mark.parametrize("facts", [{"version": "1.2"}, {"product": "GB100"}])
def test_a_manifest_of_another_build_or_chip_is_refused(gpu: Device, facts: dict[str, str]) -> None:
    for what in ("driver", "vbios"):
        assert judged(gpu, both(gpu, what, **facts)) == ["rim_missing"]


def test_two_manifests_of_one_build_are_refused(gpu: Device) -> None:
    manifests = [*both(gpu), gpu.vendor.manifest(gpu, "driver", values={40: [WRONG]})]
    assert judged(gpu, manifests) == ["rim_conflict"]


def test_a_manifest_is_verified_even_if_no_device_needs_it(gpu: Device) -> None:
    forged = Nvidia().manifest(gpu, "driver", version="9.9")
    assert judged(gpu, [*both(gpu), forged]) == ["untrusted_root"]


def test_a_manifest_under_another_root_is_refused(vendor: Nvidia, gpu: Device) -> None:
    assert refusal(vendor, Nvidia().manifest(gpu, "driver")) == "untrusted_root"


def test_the_device_root_vouches_for_no_manifest() -> None:
    assert not NVIDIA.pins & NVIDIA_RIM.pins


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


def _filtered(raw: bytes) -> bytes:
    xpath = b'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/>'
    return raw.replace(b"<ds:Transforms>", b"<ds:Transforms>" + xpath)


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
        _filtered,
        _doctype,
        _laughs,
        _key_value,
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


def test_the_manifests_signers_may_need_responses_too(vendor: Nvidia, gpu: Device) -> None:
    responses = vendor.rim_revocation()
    collateral = {"ocsp": responses[0], "ocsp_1": responses[1]}
    assert judged(gpu, both(gpu), rim_ocsp="required") == ["revocation_not_checked"]
    assert judged(gpu, both(gpu), rim_ocsp="required", collateral=collateral) == []
    one = {"ocsp": responses[0]}
    assert judged(gpu, both(gpu), rim_ocsp="required", collateral=one) == ["revocation_not_checked"]


@pytest.mark.parametrize(
    ("reason", "hold", "code"),
    [
        (None, "refuse", ["revoked"]),
        (None, "accept", ["revoked"]),
        (x509.ReasonFlags.certificate_hold, "refuse", ["certificate_on_hold"]),
        (x509.ReasonFlags.certificate_hold, "accept", []),
    ],
)
def test_a_revoked_signer_is_refused_even_if_responses_are_not_demanded(
    vendor: Nvidia, gpu: Device, reason: Any, hold: str, code: list[str]
) -> None:
    status = ocsp.OCSPCertStatus.REVOKED
    revoked = vendor.ocsp(vendor.rim_signer, vendor.rim_ca, status=status, reason=reason)
    assert judged(gpu, both(gpu), ocsp_hold=hold, collateral={"ocsp": revoked}) == code


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
