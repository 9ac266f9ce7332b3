"""What NVIDIA's devices and their lists show, and what is said of them, one step from a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.nvidia import DAY, Nvidia
from simulators.nvidia_verdicts import NONCE, examine, examine_list
from simulators.verdicts import codes_of

from attestation.anchors import NONE, Anchors
from attestation.examined import Examined, Expected, Question
from attestation.formats.spdm import OPAQUE_DATA_VERSION, OPAQUE_VERSION_MAX
from attestation.ledger import Ledger
from attestation.schemes import nvidia_gpu, nvidia_switch
from attestation.verify.device import Item, examine_items
from attestation.verify.spdm import GPUS

if TYPE_CHECKING:
    from simulators.nvidia_device import Authority

ORDER = ec.SECP384R1.group_order


def steps(examined: Examined) -> list[str]:
    return [check.step for check in examined.checks]


def test_a_root_for_manifests_vouches_for_no_device(vendor: Nvidia) -> None:
    known = Anchors(frozenset({_pin(vendor.root), _pin(vendor.rim_root)}))
    rim = Anchors(frozenset({_pin(vendor.rim_root)}))
    gpu, stray = vendor.gpu(), vendor.gpu()
    above = vendor.issue("NVIDIA GH100 Identity", vendor.rim_root)
    stray.brom = vendor.issue("GH100 A01 GSP BROM", above)
    honest = gpu.certificates()
    chain = (stray.certificates()[0], stray.brom, above, vendor.rim_root)
    for device, line, rim_roots, expected in (
        (gpu, honest, rim, []),
        (stray, chain, rim, ["untrusted_root"]),
        (stray, chain, NONE, []),  # it is the only thing wrong with it
    ):
        ledger = Ledger()
        item = Item(device.report(NONCE), b"".join(one.pem for one in line))
        question = Question({}, known, vendor.now, expected=Expected(nonce=NONCE))
        examination = examine_items(ledger, [item], question, GPUS, rim_roots)
        assert [reason.code for reason in ledger.reasons] == expected
        assert examination.fleet is not None
        assert examination.fleet.manifest_anchors.pins == rim_roots.pins


def _pin(authority: Authority) -> bytes:
    return authority.certificate.fingerprint(hashes.SHA256())


def test_a_leaf_right_under_the_root_is_a_chain(vendor: Nvidia) -> None:
    gpu = vendor.gpu(leaf={"issuer": vendor.root})
    chain = b"".join(one.pem for one in (gpu.certificates()[0], vendor.root))
    examined = examine(gpu, evidence={"evidence": gpu.report(NONCE), "cert_chain": chain})
    assert examined.authentic is True


def test_a_root_beside_the_evidence_counts_if_it_is_pinned(vendor: Nvidia) -> None:
    gpu, stranger = vendor.gpu(), Nvidia().root
    chain = b"".join(one.pem for one in gpu.certificates()[:-1])
    evidence = {"evidence": gpu.report(NONCE), "cert_chain": chain}
    for collateral, expected in (
        ({"root": vendor.root.pem}, []),
        ({"root": vendor.root.der}, []),
        ({"root": stranger.pem + vendor.root.pem}, []),
        ({"root": stranger.pem}, ["untrusted_root"]),
        ({}, ["untrusted_root"]),
        ({"root": b"no certificate"}, ["chain_invalid", "untrusted_root"]),
    ):
        assert codes_of(examine(gpu, evidence=evidence, collateral=collateral)) == expected


def test_a_firmware_digest_may_have_zeros_and_is_not_all_zeros(vendor: Nvidia) -> None:
    for fwid, expected in (
        (bytes(24) + bytes(range(24)), []),
        (bytes(48), ["fwid_mismatch"]),
    ):
        assert codes_of(examine(vendor.gpu(fwid=fwid, leaf_fwids=[fwid]))) == expected


def test_what_does_not_parse_ends_at_once(vendor: Nvidia) -> None:
    for evidence in ({}, {"evidence": b"\x11", "cert_chain": vendor.gpu().chain()}):
        examined = examine(vendor.gpu(), evidence=evidence)
        assert examined.not_after == 0
        assert examined.facts is None
    assert examine_list(vendor, b"[]").not_after == 0


def test_without_a_verified_chain_the_account_says_that_nobody_was_asked(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    answers = {"ocsp": vendor.ocsp(gpu.brom, vendor.icas[gpu.chip])}
    stray = examine(gpu, anchors=NONE, collateral=answers)
    (check,) = [check for check in stray.checks if check.step == "spdm 7 revocation"]
    assert check.ok is None
    assert "spdm 7 revocation" not in steps(examine(gpu, anchors=NONE))
    assert stray.facts.revocation is None


def test_no_answer_is_counted_as_none_and_ends_nothing(vendor: Nvidia) -> None:
    examined = examine(vendor.gpu())
    assert (examined.facts.revocation.covered, examined.facts.revocation.expected) == (0, 3)
    assert examined.not_after == vendor.now + 365 * DAY
    assert "spdm 7 revocation" not in steps(examined)


def test_nothing_that_a_device_needs_is_required_and_each_family_has_names_of_its_own(
    vendor: Nvidia,
) -> None:
    names = {
        "HOPPER": ["NV_GPU_DRIVER_GH100_", "NV_GPU_VBIOS_"],
        "BLACKWELL": ["NV_GPU_CC_DRIVER_GB100_", "NV_GPU_VBIOS_"],
        "LS10": ["NV_SWITCH_BIOS_"],
    }
    for architecture, prefixes in names.items():
        device = vendor.switch() if architecture == "LS10" else vendor.gpu(architecture)
        scheme = nvidia_switch.SCHEME if architecture == "LS10" else nvidia_gpu.SCHEME
        needs = scheme.needs({"evidence": device.report(NONCE), "cert_chain": device.chain()})
        assert not any(need.required for need in needs)
        found = [need.key.removeprefix("rim/") for need in needs if need.source == "nvidia-rim"]
        assert len(found) == len(prefixes)
        assert all(map(str.startswith, found, prefixes))


@pytest.mark.parametrize(
    ("r", "s", "why"),
    [
        (0, 5, "out of range"),
        (5, 0, "out of range"),
        (ORDER, 5, "out of range"),
        (5, ORDER, "out of range"),
        (1, 5, "does not verify"),
        (5, 1, "does not verify"),
        (ORDER - 1, ORDER - 1, "does not verify"),
    ],
)
def test_the_numbers_of_a_signature_have_a_range(vendor: Nvidia, r: int, s: int, why: str) -> None:
    numbers = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    examined = examine(vendor.gpu(sign_edit=lambda _: numbers))
    assert codes_of(examined) == ["signature_invalid"]
    assert why in examined.reasons[0].detail


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()], ids=["P-256", "P-521"])
def test_a_leaf_of_another_curve_signs_no_report(vendor: Nvidia, curve: ec.EllipticCurve) -> None:
    # Of the longer curve no signature fits; that of the shorter one would verify.
    own = vendor.gpu().key if isinstance(curve, ec.SECP521R1) else None
    examined = examine(vendor.gpu(key=ec.generate_private_key(curve), signing_key=own))
    assert codes_of(examined) == ["signature_invalid"]
    assert "expected P-384" in examined.reasons[0].detail


def test_the_newest_layout_of_opaque_data_is_read_and_the_next_is_not(vendor: Nvidia) -> None:
    for version, expected in (
        (OPAQUE_VERSION_MAX, []),
        (OPAQUE_VERSION_MAX + 1, ["version_not_accepted"]),
    ):
        gpu = vendor.gpu()
        gpu.opaque[OPAQUE_DATA_VERSION] = version.to_bytes(2, "little")
        assert codes_of(examine(gpu)) == expected


@pytest.mark.parametrize(("serial", "name"), [("ABC", "0abc"), ("ABCD", "abcd")])
def test_a_serial_number_is_spelled_in_whole_octets(vendor: Nvidia, serial: str, name: str) -> None:
    gpu = vendor.gpu()
    gpu.serial = serial
    assert f"serial:{name}" in examine(gpu).identities
