"""From a guest's kernel interface to the verifier: what an attester makes, its scheme accepts."""

from pathlib import Path
from typing import Any

import pytest
from simulators.amd import Amd
from simulators.configfs_tsm import Clock, ConfigfsTsm, Provider, Registers
from simulators.intel import Intel
from simulators.nitro import NitroEnclave, NitroVendor
from simulators.nsm_device import NsmDevice
from simulators.nvidia import NOW, Nvidia
from simulators.nvml import BLACKWELL, HOPPER, FakeNvml, Gpu
from simulators.snp_report import table

from attestation.binding import report32, report_data
from attestation.collect.hardware import HardwareAttester
from attestation.collect.nitro import NitroGuest
from attestation.collect.nsm import Nsm
from attestation.collect.nvml import ACCEPTING, GpuCollector
from attestation.collect.snp import SnpGuest
from attestation.collect.tdx import RTMR, TdxGuest
from attestation.collect.tsm import Tsm
from attestation.evidence import Evidence
from attestation.examined import Examined, Expected, Question
from attestation.formats.container import parse_container
from attestation.measurement import combine, digest_bytes
from attestation.registers import NITRO_PCR, host_data_value
from attestation.schemes import SCHEMES
from wire.errors import AttestationError, UnavailableError

BASE = Path("/sys/kernel/config/tsm/report")
MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
PARTS = {"model": "sha256:" + "ab" * 32, "args": "sha256:" + "cd" * 32}
MEASUREMENT = digest_bytes(combine(PARTS))
OTHER = bytes(32)
BINDING = b'{"a":"binding"}'
EXPECTED = Expected(report_data=report_data(BINDING), nonce=report32(BINDING))


def examine(evidence: Evidence, anchors: Any, now: int, collateral: dict[str, bytes]) -> Examined:
    """As an appraisal does it."""
    scheme = SCHEMES[evidence.kind]
    roles = parse_container(evidence.body, *scheme.evidence).roles
    return scheme.examine(Question(roles, anchors, now, collateral, EXPECTED))


def accepted(examined: Examined) -> None:
    assert examined.reasons == ()
    assert examined.authentic is True
    assert examined.bound
    scheme = SCHEMES[examined.kind]
    if scheme.carries is not None:
        assert scheme.carries(examined.facts, MEASUREMENT)
        with pytest.raises(AttestationError):
            scheme.carries(examined.facts, OTHER)


def tsm(kernel: ConfigfsTsm) -> Tsm:
    clock = Clock()
    return Tsm(BASE, kernel, monotonic=clock.monotonic, sleep=clock.sleep)


@pytest.mark.parametrize("version", [4, 5])
def test_a_td(version: int) -> None:
    intel = Intel("tdx", version)
    registers = Registers(MEASUREMENTS)

    def quote(asked: bytes, _: int) -> tuple[bytes, bytes]:
        intel.body |= {"report_data": asked, "rt_mr3": registers.values[RTMR]}
        return intel.quote() + bytes(200), b""

    attester = HardwareAttester(
        TdxGuest(tsm(ConfigfsTsm(BASE, Provider("tdx_guest", quote))), MEASUREMENTS, registers)
    )
    attester.measure(PARTS)
    evidence = attester.attest(BINDING, 0)
    collateral = {"collateral": intel.collateral()}
    accepted(examine(evidence, intel.anchors(), intel.now, collateral))


@pytest.mark.parametrize("product", ["Genoa", "Turin"])
@pytest.mark.parametrize("hinted", [True, False])
def test_an_snp_guest(product: str, *, hinted: bool) -> None:
    amd = Amd(product)
    chip = amd.chip()
    leaf = chip.evidence()["endorsement_cert"]

    def report(asked: bytes, _: int) -> tuple[bytes, bytes]:
        signed = chip.evidence(report_data=asked, host_data=host_data_value(MEASUREMENT))
        return signed["report"], table({"vcek": leaf}) if hinted else b""

    kernel = ConfigfsTsm(BASE, Provider("sev_guest", report, frozenset({"auxblob"})))
    attester = HardwareAttester(SnpGuest(tsm(kernel)))
    attester.measure(PARTS)
    evidence = attester.attest(BINDING, 0)
    collateral = amd.collateral() | ({} if hinted else {"endorsement_cert": leaf})
    accepted(examine(evidence, amd.anchors, amd.now, collateral))


def test_an_enclave(tmp_path: Path) -> None:
    vendor = NitroVendor(now=1_790_000_000)

    def sign(pcrs: Any, user_data: Any, nonce: Any, key: Any) -> bytes:
        enclave = NitroEnclave(vendor, pcrs=dict(pcrs), locked=set(pcrs))
        enclave.nonce, enclave.user_data, enclave.public_key = nonce, user_data, key
        return enclave.document()

    device = NsmDevice(sign)
    device.values |= {number: bytes([number + 1]) * 48 for number in (0, 1, 2)}
    (tmp_path / "nsm").write_bytes(b"")
    attester = HardwareAttester(NitroGuest(Nsm(tmp_path / "nsm", device.ioctl)))
    attester.measure(PARTS)
    assert NITRO_PCR in device.locked
    evidence = attester.attest(BINDING, 0)
    attester.close()
    accepted(examine(evidence, vendor.anchors, vendor.now, {"root": vendor.root}))


class Machine:
    """A machine with one GPU of each kind, and a verifier that pins their vendor's root."""

    def __init__(self) -> None:
        self.vendor = Nvidia(NOW)
        self.devices = [self.vendor.gpu("HOPPER"), self.vendor.gpu("BLACKWELL")]
        architectures = (HOPPER, BLACKWELL)
        self.nvml = FakeNvml(
            [
                Gpu(device.chain(), device.report, number)
                for device, number in zip(self.devices, architectures, strict=True)
            ]
        )
        self.collector = GpuCollector(self.nvml, self.verify)

    def verify(self, evidence_list: bytes, nonce: bytes) -> None:
        examined = SCHEMES["nvidia-gpu-spdm-list"].examine(
            Question(
                {"evidence_list": evidence_list}, self.vendor.anchors, NOW,
                expected=Expected(nonce=nonce),
            )
        )  # fmt: skip
        if not (examined.authentic and examined.bound):
            raise AttestationError("GPU: not genuine", reasons=("signature_invalid",))


def test_gpus() -> None:
    machine = Machine()
    keys = machine.collector.open()
    assert machine.nvml.accepting == ACCEPTING
    examined = examine(machine.collector.attest(BINDING, PARTS), machine.vendor.anchors, NOW, {})
    accepted(examined)
    named = {identity for identity in examined.identities if identity.startswith("key:")}
    assert named == {"key:" + key.removeprefix("sha256:") for key in keys}
    machine.collector.close()


def test_a_gpu_with_another_vendors_key_never_works() -> None:
    machine = Machine()
    machine.vendor = Nvidia(NOW)
    with pytest.raises(AttestationError, match="not genuine"):
        machine.collector.open()
    assert machine.nvml.history == [0]


def test_a_quote_of_another_td_does_not_leave_the_guest() -> None:
    intel = Intel("tdx")
    registers = Registers(MEASUREMENTS)
    quote = Provider("tdx_guest", lambda *_: (intel.quote(), b""))
    attester = HardwareAttester(TdxGuest(tsm(ConfigfsTsm(BASE, quote)), MEASUREMENTS, registers))
    attester.measure(PARTS)
    with pytest.raises(UnavailableError, match="other report data"):
        attester.attest(BINDING, 0)
