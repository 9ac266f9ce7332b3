"""Workers on simulated hardware with simulated GPUs behind the same binding.

    tee = SnpGpuTee()                     # or TdxGpuTee()
    tee.appraise()                        # accepted with both GPUs
    tee.shown = [tee.gpus[0]]             # one of them keeps silent
    tee.quoted = bytes(32)                # they answer another nonce

The binding names `gpus` by key, the CPU's evidence signs the binding, each GPU answers its hash.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.x509 import OCSPNonce
from cryptography.x509.ocsp import load_der_ocsp_request

from attestation.binding import report32
from attestation.evidence import Evidence
from attestation.formats.container import encode_container

from .hardware_tee import HardwareTee, SnpTee, TdxTee, pem
from .nvidia import Nvidia
from .nvidia_device import Authority, Device, listing
from .tee import AUD, NOW
from .vendor_services import OCSP, Answer

if TYPE_CHECKING:
    from attestation.examined import CollateralSet

    from .vendor_services import VendorServices

GPUS = "nvidia-gpu-spdm-list"


class GpuTee(HardwareTee):
    """The GPUs' half, for a class that also inherits a CPU's.

    Attributes:
        nvidia: the vendor.
        gpus: those in the machine; the binding names them unless a fact says otherwise.
        shown: those that answer, None for all.
        quoted: the nonce they answer, None for the binding's.
        gpu_rule: the demands on them, the rule's member `gpu`.
        gpu_statements: collateral roles that differ; None leaves one out.
    """

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.nvidia = nvidia_of(now)
        self.gpus: list[Device] = [self.nvidia.gpu(), self.nvidia.gpu()]
        self.shown: list[Device] | None = None
        self.quoted: bytes | None = None
        self.gpu_statements: dict[str, bytes | None] = {}
        self.facts["gpus"] = names_of(self.gpus)
        self.gpu_rule: dict[str, Any] = {
            "roots": [pem(self.nvidia.root.der), pem(self.nvidia.rim_root.der)],
            "architectures": ["HOPPER"],
            "models": ["GH100"],
            "driver_in": ["580.159.03"],
            "vbios_in": "any",
            "modes": ["spt"],
            "rim": "not_checked",
            "ocsp": "required",
            "count": len(self.gpus),
        }
        self.rule["gpu"] = self.gpu_rule

    def gpu_evidence(self, binding_raw: bytes) -> Evidence:
        """What the GPUs sign."""
        nonce = report32(binding_raw) if self.quoted is None else self.quoted
        shown = self.gpus if self.shown is None else self.shown
        return Evidence(
            GPUS, encode_container({"evidence_list": listing(shown, nonce)}, self.parts)
        )

    def presented(self, binding_raw: bytes) -> list[Evidence]:
        return [self.evidence(binding_raw), self.gpu_evidence(binding_raw)]

    def serve(self, served: VendorServices) -> None:
        super().serve(served)
        served.answers[OCSP] = Answer(self._answer)

    def collateral(self) -> CollateralSet:
        answers = [self.nvidia.ocsp(*pair) for pair in self._vouched()]
        roles: dict[str, bytes | None] = {
            "ocsp" if number == 0 else f"ocsp_{number}": der for number, der in enumerate(answers)
        }
        roles |= self.gpu_statements
        found = {role: data for role, data in roles.items() if data is not None}
        return {**super().collateral(), GPUS: found}

    def _answer(self, request: bytes) -> bytes:
        """NVIDIA's responder on the certificates above these GPUs, and on manifests' signers."""
        vendor = self.nvidia
        signers = itertools.pairwise((vendor.rim_signer, vendor.rim_ca, vendor.rim_root))
        asked = load_der_ocsp_request(request)
        nonce = asked.extensions.get_extension_for_class(OCSPNonce).value.nonce
        subject, issuer = next(
            pair
            for pair in (*self._vouched(), *signers)
            if pair[0].certificate.serial_number == asked.serial_number
        )
        return self.nvidia.ocsp(subject, issuer, nonce=nonce)

    def _vouched(self) -> list[tuple[Authority, Authority]]:
        """Each certificate above the GPUs that answer, once, with its issuer."""
        vendor, shown = self.nvidia, self.gpus if self.shown is None else self.shown
        found: dict[int, tuple[Authority, Authority]] = {}
        for device in shown:
            line = (device.brom, vendor.icas[device.chip], vendor.identity[device.chip])
            for pair in itertools.pairwise((*line, vendor.root)):
                found.setdefault(pair[0].certificate.serial_number, pair)
        return list(found.values())


class SnpGpuTee(GpuTee, SnpTee):
    """An SEV-SNP guest with two GPUs."""


class TdxGpuTee(GpuTee, TdxTee):
    """A trust domain with two GPUs."""


def names_of(devices: list[Device]) -> list[str]:
    """GPUs as a binding names them."""
    return [device.fingerprint for device in devices]


@cache
def nvidia_of(now: int) -> Nvidia:
    """The NVIDIA of all workers at this time."""
    return Nvidia(now)
