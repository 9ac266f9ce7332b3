"""Devices against NVIDIA's reference manifests: each names the one fact that does not match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")

from cryptography import x509
from cryptography.x509 import ocsp
from simulators.nvidia import DAY, Nvidia

from attestation.anchors import NVIDIA, NVIDIA_RIM, Anchors
from attestation.examined import FOREVER, Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.rules.nvidia import NvidiaRule, judge
from attestation.schemes import nvidia_gpu, nvidia_switch
from attestation.verify.fleet import Fleet
from attestation.verify.rim import NVDEC0_BLOCK, check_fleet, compare, verify_manifest
from attestation.verify.spdm import parse_device
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from simulators.nvidia_device import Device

NONCE = bytes(range(32))
WRONG = "ab" * 48


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


@pytest.fixture(scope="module")
def gpu(vendor: Nvidia) -> Device:
    return vendor.gpu()


def judged(device: Device, manifests: list[bytes], **changes: Any) -> list[str]:
    """Reason codes of a rule that demands manifests."""
    vendor = device.vendor
    scheme = nvidia_switch.SCHEME if device.architecture == "LS10" else nvidia_gpu.SCHEME
    roles = ["rim", *(f"rim_{number}" for number in range(1, len(manifests)))]
    collateral = dict(zip(roles, manifests, strict=False)) | changes.pop("collateral", {})
    examined = scheme.examine(
        Question(
            evidence={"evidence": device.report(NONCE), "cert_chain": device.chain()},
            anchors=changes.pop("anchors", vendor.anchors),
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
        assert judged(gpu, manifests) == ["rim_measurement_mismatch"]


@pytest.mark.parametrize("architecture", ["HOPPER", "BLACKWELL"])
@pytest.mark.parametrize("block", [3, 41])
def test_a_gpu_in_developer_mode_is_refused_by_its_measurements(
    vendor: Nvidia, architecture: str, block: int
) -> None:
    """Its report is signed and looks like any other; what it measured is not what NVIDIA did."""
    gpu = vendor.gpu(architecture)
    manifests = both(gpu)
    assert judged(gpu, manifests) == []
    gpu.measurements[block] = bytes.fromhex(WRONG)
    assert judged(gpu, manifests) == ["rim_measurement_mismatch"]


def test_the_first_of_the_other_measurements_is_named(vendor: Nvidia, gpu: Device) -> None:
    report = parse_device(gpu.report(NONCE), gpu.chain())
    raw = gpu.vendor.manifest(gpu, "driver", values={41: [WRONG], 40: [WRONG]})
    manifest = verify_manifest(raw, vendor.anchors, vendor.now).manifest
    with pytest.raises(AttestationError, match=r"found 2 of 31 .*, first block 41") as caught:
        compare(report, [manifest])
    assert caught.value.reasons == ("rim_measurement_mismatch",)
    with pytest.raises(AttestationError, match=r"unlike NVIDIA's$"):
        compare(report, [])  # nothing to compare with is no match


def test_one_of_several_alternatives_is_enough(gpu: Device) -> None:
    right = gpu.measurements[41].hex()
    assert judged(gpu, both(gpu, values={40: [WRONG, right, WRONG]})) == []
    assert judged(gpu, both(gpu, values={40: [WRONG, WRONG]})) == ["rim_measurement_mismatch"]


def test_an_inactive_measurement_demands_nothing(gpu: Device) -> None:
    assert judged(gpu, both(gpu, values={40: [WRONG]}, inactive=(40,))) == []


def test_a_measurement_that_the_report_does_not_have_is_refused(gpu: Device) -> None:
    zeros = "00" * 48
    assert judged(gpu, both(gpu, values={64: [zeros]})) == ["rim_measurement_mismatch"]


def test_a_manifest_with_nothing_active_is_refused(gpu: Device) -> None:
    assert judged(gpu, both(gpu, inactive=tuple(range(64)))) == ["rim_malformed"]


def test_a_block_named_by_both_manifests_is_refused(gpu: Device) -> None:
    right = gpu.measurements[4].hex()
    assert judged(gpu, both(gpu, values={3: [right]})) == ["rim_conflict"]


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (b"\x55", []),
        (b"\xaa", ["rim_measurement_mismatch"]),
        (b"\x00", ["rim_measurement_mismatch"]),
        (None, ["rim_measurement_mismatch"]),
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


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (b"\xaa", []),
        (b"\x55", []),
        (b"\x00", ["rim_measurement_mismatch"]),
        (b"\xaa\xaa", ["rim_measurement_mismatch"]),
        (b"", ["rim_measurement_mismatch"]),
        (None, ["rim_measurement_mismatch"]),
    ],
)
def test_a_decoder_of_unknown_status_is_refused_though_its_block_is_as_published(
    vendor: Nvidia, status: bytes | None, codes: list[str]
) -> None:
    gpu = vendor.gpu()
    gpu.opaque = {kind: value for kind, value in gpu.opaque.items() if kind != 11}
    if status is not None:
        gpu.opaque[11] = status
    manifests = both(gpu)
    assert len(gpu.measurements) >= NVDEC0_BLOCK
    assert judged(gpu, manifests) == codes


@pytest.mark.parametrize("what", ["driver", "vbios"])
def test_a_missing_manifest_is_refused(gpu: Device, what: str) -> None:
    assert judged(gpu, [gpu.vendor.manifest(gpu, what)]) == ["rim_missing"]


@pytest.mark.parametrize("facts", [{"version": "1.2"}, {"product": "GB100"}])
def test_a_manifest_of_another_build_or_chip_is_refused(gpu: Device, facts: dict[str, str]) -> None:
    for what in ("driver", "vbios"):
        assert judged(gpu, both(gpu, what, **facts)) == ["rim_missing"]


CHIP_INFO = 35
GB202 = "GB202 A01 GSP FMC LF"


@pytest.mark.parametrize(
    ("common", "stated", "product"),
    [
        pytest.param(None, None, "GB100", id="older firmware: as certified"),
        pytest.param(GB202, None, "GB202", id="older firmware of another chip"),
        pytest.param(None, b"GB100", "GB100", id="as certified and reported"),
        pytest.param(GB202, b"GB202\0\0\0", "GB202", id="filled with zeros"),
        pytest.param(None, b"GB102", "GB102", id="as the report says"),
    ],
)
def test_the_manifests_are_those_of_the_chip_that_the_report_names(
    vendor: Nvidia, common: str | None, stated: bytes | None, product: str
) -> None:
    gpu = vendor.gpu("BLACKWELL", common=common)
    if stated is not None:
        gpu.opaque[CHIP_INFO] = stated
    roles = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    asked = [need.key for need in nvidia_gpu.SCHEME.needs(roles) if need.source == "nvidia-rim"]
    assert asked == [
        f"rim/NV_GPU_CC_DRIVER_{product}_{gpu.driver}",
        f"rim/NV_GPU_VBIOS_1010_0205_862_{gpu.vbios.replace('.', '')}",
    ]
    right = [vendor.manifest(gpu, what, product=product) for what in ("driver", "vbios")]
    assert judged(gpu, right) == []
    other = "GB100" if product != "GB100" else "GB202"
    wrong = [vendor.manifest(gpu, what, product=other) for what in ("driver", "vbios")]
    assert judged(gpu, wrong) == ["rim_missing"]


def test_a_hopper_is_named_without_a_chip_in_its_report(vendor: Nvidia, gpu: Device) -> None:
    roles = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    asked = [need.key for need in nvidia_gpu.SCHEME.needs(roles) if need.source == "nvidia-rim"]
    assert asked[0] == f"rim/NV_GPU_DRIVER_GH100_{gpu.driver}"


@pytest.mark.parametrize(
    "stated",
    [
        b"", b"\0", b"B200", b"GB10X", b"GB1000", b"GB100 ", b"gb100", b"\0GB100", b"GB\xb9\xb900",
        b"GB10\xd9\xa0", b"G", b"GB", b"GB100\0x",
    ],
)  # fmt: skip
def test_a_chip_that_is_none_of_its_family_has_no_manifest(vendor: Nvidia, stated: bytes) -> None:
    gpu = vendor.gpu("BLACKWELL")
    gpu.opaque[CHIP_INFO] = stated
    roles = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    assert not any(need.source == "nvidia-rim" for need in nvidia_gpu.SCHEME.needs(roles))
    assert judged(gpu, both(gpu)) == ["rim_missing"]
    fleet = fleet_of(gpu, both(gpu))
    with pytest.raises(AttestationError, match="GB100: the report names its chip in no way known"):
        check_fleet(fleet, vendor.now, revocation=False, accept_hold=False)


def test_a_device_of_an_unknown_product_has_no_manifest(vendor: Nvidia) -> None:
    gpu = vendor.gpu(common="GA100 A01 GSP FMC LF")
    roles = {"evidence": gpu.report(NONCE), "cert_chain": gpu.chain()}
    assert not any(need.source == "nvidia-rim" for need in nvidia_gpu.SCHEME.needs(roles))
    with pytest.raises(AttestationError, match="found a device of an unknown product") as caught:
        check_fleet(fleet_of(gpu, both(gpu)), vendor.now, revocation=False, accept_hold=False)
    assert caught.value.reasons == ("rim_missing",)


def fleet_of(gpu: Device, manifests: list[bytes]) -> Fleet:
    """One device, whatever an examination would say of it."""
    device = parse_device(gpu.report(NONCE), gpu.chain())
    return Fleet((device,), None, tuple(manifests), gpu.vendor.anchors)


@pytest.mark.parametrize("rim", [True, False])
def test_a_judgement_lasts_as_long_as_the_first_manifest_that_it_rests_on(
    gpu: Device, rim: bool
) -> None:
    rule = NvidiaRule(
        architectures=frozenset({gpu.architecture}),
        models=None,
        drivers=None,
        vbios=None,
        modes=None,
        rim=rim,
        ocsp=False,
        rim_ocsp=False,
        accept_hold=False,
        accept_unknown=False,
        count=None,
    )
    ledger, now = Ledger(), gpu.vendor.now
    end = judge(ledger, fleet_of(gpu, both(gpu)), rule, now)
    assert ledger.accepted
    assert end == (now + 365 * DAY if rim else FOREVER)


def test_two_manifests_of_one_build_are_refused(gpu: Device) -> None:
    manifests = [*both(gpu), gpu.vendor.manifest(gpu, "driver", values={40: [WRONG]})]
    assert judged(gpu, manifests) == ["rim_conflict"]


def test_a_manifest_is_verified_even_if_no_device_needs_it(gpu: Device) -> None:
    forged = Nvidia().manifest(gpu, "driver", version="9.9")
    assert judged(gpu, [*both(gpu), forged]) == ["untrusted_root"]


def test_the_device_root_vouches_for_no_manifest(gpu: Device) -> None:
    assert not NVIDIA.pins & NVIDIA_RIM.pins
    # Under a vendor's own pins only the one manifest root counts for manifests.
    pins = Anchors(gpu.vendor.anchors.pins, simulated=False)
    assert judged(gpu, both(gpu), anchors=pins) == ["untrusted_root"]


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
