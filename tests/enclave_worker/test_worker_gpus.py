"""A worker's GPUs, from the driver to the verdict: named by its binding, shown beside the CPU.

The kernel's and the driver's interfaces are simulated, what the vendors sign is real.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.gpu_machine import GpuMachine, gpu_of
from simulators.key_holder import key_holder
from simulators.nvidia import Nvidia
from simulators.nvidia_device import listing
from simulators.tee import NOW

from attestation.binding import GPUS_MAX, parse_binding
from attestation.collect.gpu_check import check_gpus
from attestation.collect.nvml import ACCEPTING, CHAIN_MAX, KIND, NOT_ACCEPTING, REPORT_MAX
from attestation.collect.tdx import KIND as TDX
from attestation.evidence import EVIDENCE_MAX, Evidence
from attestation.formats.container import encode_container
from attestation.result import AppraisedEvidence, Refused
from enclave_worker.epochs import Keyring
from enclave_worker.machine import Machine, gpu_collector
from wire.errors import AnchorholdError, AttestationError, ConfigError, MalformedError
from wire.ids import sha256_tag
from wire.limits import JSON_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS = {"first_party": sha256_tag(b"code"), "model": sha256_tag(b"weights")}
NONCE = bytes(range(32))


class Worker:
    """A worker's keys on a simulated machine, as launcher and worker process make them."""

    def __init__(self, name: Sequence[str] | None = None, seed: str = "tee") -> None:
        self.found = GpuMachine(NOW, seed=seed)
        self.machine = self.found.machine()
        image = self.machine.measure(PARTS)
        self.machine.open()
        named = list(self.machine.gpu_keys if name is None else name)
        self.config = replace(key_holder(), image=image, gpus=named)
        self.ring = Keyring(self.config, os.urandom)
        self.epoch = self.ring.prepare(NOW)
        tee = self.found.tee
        tee.rule |= {"measurements": [image], "posture": {}}
        tee.demands |= {"models": [{"name": "m"}], "service_policies": [self.config.policy]}

    def evidence(self, binding: bytes | None = None) -> tuple[Evidence, ...]:
        return self.machine.attest(binding or self.epoch.binding, NOW * 1000)

    def verdict(self, evidence: Sequence[Evidence] | None = None) -> AppraisedEvidence | Refused:
        return self.found.appraise(self.epoch.binding, evidence or self.evidence())

    def close(self) -> None:
        self.ring.close()
        self.machine.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def codes(verdict: AppraisedEvidence | Refused) -> tuple[str, ...]:
    assert isinstance(verdict, Refused), "accepted"
    return verdict.codes


# ---------------------------------------------------------------- accepted


def test_a_worker_with_its_gpus_is_accepted(worker: Worker) -> None:
    binding = parse_binding(worker.epoch.binding)
    assert list(binding.gpus) == [gpu.fingerprint for gpu in worker.found.tee.gpus]
    evidence = worker.evidence()
    assert [item.kind for item in evidence] == [TDX, KIND]
    verdict = worker.verdict(evidence)
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert set(verdict.claims) == {TDX, KIND}
    assert verdict.claims[KIND]["count"] == 2


def test_a_live_answer_has_the_gpus_too_and_for_its_own_nonce(worker: Worker) -> None:
    listed = worker.evidence()
    worker.ring.install(worker.epoch, listed)
    live = worker.ring.challenged(worker.epoch, NONCE)
    verdict = worker.found.appraise(live, worker.evidence(live), nonce=NONCE)
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert verdict.binding.gpus == worker.machine.gpu_keys
    stale = (worker.evidence(live)[0], listed[1])
    assert "nonce_mismatch" in codes(worker.found.appraise(live, stale, nonce=NONCE))


def test_receipts_name_the_cpus_evidence(worker: Worker) -> None:
    evidence = worker.evidence()
    worker.ring.install(worker.epoch, evidence)
    assert worker.epoch.evidence == evidence
    assert worker.epoch.witness.kind == TDX
    assert worker.epoch.evidence_digest == sha256_tag(evidence[0].body)


def test_which_gpus_a_machine_has_is_no_part_of_the_measurement(worker: Worker) -> None:
    assert worker.config.gpus
    assert replace(worker.config, gpus=[]).measured() == worker.config.measured()


def test_a_machine_without_gpus_names_and_shows_none() -> None:
    found = GpuMachine(NOW)
    whole = found.machine()
    alone = Machine(whole._attester)
    alone.measure(PARTS)
    alone.open()
    assert alone.gpu_keys == ()
    assert [item.kind for item in alone.attest(b'{"a":"binding"}', 0)] == [TDX]
    alone.close()
    assert found.nvml.history == []


# ---------------------------------------------------------------- refused by whoever verifies


def test_a_worker_that_shows_no_gpus_is_refused(worker: Worker) -> None:
    assert codes(worker.verdict(worker.evidence()[:1])) == ("gpu_missing",)


def test_gpus_that_the_binding_does_not_name_are_refused() -> None:
    silent = Worker(name=())
    assert codes(silent.verdict()) == ("gpu_not_bound_to_cpu", "gpu_count", "gpu_not_bound_to_cpu")
    silent.close()


def test_genuine_gpus_of_another_machine_that_answer_this_binding_are_refused(
    worker: Worker,
) -> None:
    elsewhere = Worker(seed="elsewhere")
    foreign = elsewhere.evidence(worker.epoch.binding)[1]
    worker.found.tee.shown = elsewhere.found.tee.gpus
    assert codes(worker.verdict((worker.evidence()[0], foreign))) == ("gpu_not_bound_to_cpu",)
    elsewhere.close()


def test_a_driver_that_passes_a_report_of_another_gpu_later_is_found_out(worker: Worker) -> None:
    stranger = worker.found.tee.nvidia.gpu()
    worker.found.nvml.gpus[0].report = stranger.report
    assert codes(worker.verdict())[0] == "signature_invalid"


def test_a_mode_that_the_gpu_itself_reports_counts_whatever_the_driver_says(
    worker: Worker,
) -> None:
    worker.found.tee.gpus[0].opaque[36] = b"\2\0"  # links between GPUs in clear text
    assert codes(worker.verdict()) == ("mode_not_accepted",)


# ---------------------------------------------------------------- refused before anything starts


def never_worked(found: GpuMachine) -> None:
    assert ACCEPTING not in found.nvml.history
    assert not found.nvml.initialised


@pytest.mark.parametrize(
    ("lie", "value", "sentence"),
    [
        ("devtools", 1, "developer tools"),
        ("feature", 0, "confidential computing off"),
        ("environment", 1, "environment 1"),
    ],
)
def test_a_driver_in_another_state_is_refused(lie: str, value: int, sentence: str) -> None:
    found = GpuMachine(NOW)
    setattr(found.nvml, lie, value)
    machine = found.machine()
    machine.measure(PARTS)
    with pytest.raises(ConfigError, match=sentence):
        machine.open()
    never_worked(found)


def other_report(found: GpuMachine) -> None:
    found.nvml.gpus[1].report = found.tee.nvidia.gpu().report


def other_chain(found: GpuMachine) -> None:
    found.nvml.gpus[1].chain = found.tee.nvidia.gpu().chain()


def look_alike(found: GpuMachine) -> None:
    found.nvml.gpus[1] = gpu_of(Nvidia(NOW).gpu())


def other_architecture(found: GpuMachine) -> None:
    found.nvml.gpus[1] = replace(gpu_of(found.tee.nvidia.gpu()), arch=10)


def other_firmware(found: GpuMachine) -> None:
    found.nvml.gpus[1] = gpu_of(found.tee.nvidia.gpu(leaf_fwids=[bytes(48)]))


def one_chip_twice(found: GpuMachine) -> None:
    serial = "41" + "00" * 8
    twins = [found.tee.nvidia.gpu(chip_serial=serial) for _ in range(2)]
    found.nvml.gpus[:] = [gpu_of(twin) for twin in twins]


def ended(found: GpuMachine) -> None:
    found.nvml.gpus[1] = gpu_of(found.tee.nvidia.gpu(leaf={"end": -1}))


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (other_report, "signature_invalid"),
        (other_chain, "signature_invalid"),
        (look_alike, "untrusted_root"),
        (other_architecture, "gpu_architecture_mismatch"),
        (other_firmware, "fwid_mismatch"),
        (one_chip_twice, "gpu_repeated"),
        (ended, "certificate_not_valid_at_time"),
    ],
)
def test_gpus_that_are_not_what_they_say_never_work(lie: Any, code: str) -> None:
    found = GpuMachine(NOW)
    lie(found)
    machine = found.machine()
    machine.measure(PARTS)
    with pytest.raises(AttestationError, match="GPUs") as caught:
        machine.open()
    assert code in caught.value.reasons
    never_worked(found)
    assert machine.gpu_keys == ()


def test_without_other_anchors_only_nvidias_own_gpus_may_work() -> None:
    found = GpuMachine(NOW)
    with pytest.raises(AttestationError) as caught:
        gpu_collector(found.nvml, clock=found.clock).open()
    assert "untrusted_root" in caught.value.reasons
    never_worked(found)


def test_gpus_work_from_the_look_at_them_until_the_worker_ends(worker: Worker) -> None:
    assert worker.found.nvml.history == [ACCEPTING]
    worker.close()
    assert worker.found.nvml.history == [ACCEPTING, NOT_ACCEPTING]


def test_the_look_is_for_the_nonce_that_was_asked() -> None:
    found = GpuMachine(NOW)
    answered = listing(found.tee.gpus, NONCE)
    check_gpus(answered, NONCE, found.tee.nvidia.anchors, NOW)
    with pytest.raises(AttestationError) as caught:
        check_gpus(answered, bytes(32), found.tee.nvidia.anchors, NOW)
    assert "nonce_mismatch" in caught.value.reasons


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'[{"evidence":""}]'])
def test_what_is_no_list_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        check_gpus(raw, NONCE, GpuMachine(NOW).tee.nvidia.anchors, NOW)


def test_a_switch_is_no_gpu() -> None:
    vendor = GpuMachine(NOW).tee.nvidia
    with pytest.raises(AnchorholdError):
        check_gpus(listing([vendor.switch()], NONCE), NONCE, vendor.anchors, NOW)


# ---------------------------------------------------------------- size


def test_the_largest_reports_of_sixteen_gpus_fit_an_item_and_a_message() -> None:
    entry = {
        "arch": "BLACKWELL",
        "nonce": "00" * 32,
        "evidence": base64.b64encode(bytes(REPORT_MAX)).decode(),
        "certificate": base64.b64encode(bytes(CHAIN_MAX)).decode(),
    }
    raw = json.dumps([entry] * GPUS_MAX, separators=(",", ":")).encode()
    parts = {f"part_{number}": sha256_tag(bytes([number])) for number in range(13)}
    item = Evidence(KIND, encode_container({"evidence_list": raw}, parts))
    assert 262_144 < len(item.body) <= EVIDENCE_MAX
    assert Evidence.from_json(item.to_json()) == item
    cpu = Evidence(TDX, bytes(64 * 1024)).to_json()
    assert len(json.dumps([cpu, item.to_json()])) < JSON_MAX
