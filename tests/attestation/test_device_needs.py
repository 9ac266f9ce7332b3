"""What a single device's evidence asks for once the manifests that it named are at hand."""

from __future__ import annotations

import pytest

pytest.importorskip("signxml", reason="reference manifests need the extra `rim`")

from simulators.nvidia import Nvidia

from attestation.schemes import SCHEMES

NONCE = bytes(range(32))


@pytest.mark.parametrize("kind", ["nvidia-gpu-spdm", "nvidia-nvswitch-spdm"])
def test_answers_about_a_manifests_signers_are_asked_for_beside_those_about_the_device(
    kind: str,
) -> None:
    vendor, scheme = Nvidia(), SCHEMES[kind]
    device = vendor.switch() if "nvswitch" in kind else vendor.gpu()
    roles = {"evidence": device.report(NONCE), "cert_chain": device.chain()}
    needs = scheme.needs(roles)
    assert {need.source for need in needs} == {"nvidia-ocsp", "nvidia-rim"}
    assert scheme.further is not None
    assert scheme.further(roles, {}) == ()
    more = scheme.further(roles, {"rim": vendor.manifest(device, "vbios")})
    assert [need.source for need in more] == ["nvidia-ocsp"] * 2
    assert not {need.role for need in needs} & {need.role for need in more}
    assert not {need.key for need in needs} & {need.key for need in more}
